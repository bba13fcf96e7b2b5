"""The share store: atomic changes, uniform contents, a common order, validation and erasure."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import resource
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    OutdatedTemplateError,
    ProblemsError,
    StorageError,
    UnsupportableError,
    new_reference_ids,
)
from ppfr.secure import Enrolment, FixedPoint, Removal, SharedRows, ShareStore, reconstruct_rows, share_rows

POINT = FixedPoint(dim=64, values="int16")
GALLERY = bytes(range(16))
draw = functools.partial(np.random.default_rng, 7)


def noise(num, *, party=1, point=POINT):
    """Uniform rows, as a party sees them."""
    ids = new_reference_ids(num)
    words = np.random.default_rng([*ids.ravel()]).integers(0, 1 << point.ring_bits, (num, 2 * point.dim), point.dtype)
    return SharedRows(party=party, fixed_point=point, ids_N16=ids, words_NW=words)


def enrolment(number, num=5, **kwargs):
    return enrolling(number, noise(num, **kwargs))


def enrolling(number, rows):
    subjects = tuple(f"subject-{number}-{n}" for n in range(len(rows)))
    return Enrolment(change_id=number.to_bytes(16, "big"), rows=rows, subjects=subjects)


def enrol(store, change):
    store.prepare(change)
    store.commit(change.change_id)
    return change


def on_disk(store):
    return b"".join(path.read_bytes() for path in sorted(store.path.parent.glob(store.path.name + "*")))


@pytest.fixture
def make_store(tmp_path):
    opened = []

    def make(name="party.shares", *, party=1, point=POINT):
        opened.append(ShareStore.create(tmp_path / name, party=party, fixed_point=point, gallery_id=GALLERY))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()


def test_a_change_takes_effect_when_it_is_committed(store):
    change = enrolment(1)
    assert store.state(change.change_id) == "unknown"
    store.prepare(change)
    assert (store.state(change.change_id), store.pending(), len(store)) == ("prepared", (change.change_id,), 0)
    assert len(store.load()[0]) == 0
    store.commit(change.change_id)
    assert (store.state(change.change_id), store.pending(), len(store)) == ("committed", (), 5)


@pytest.mark.parametrize("values", ["int8", "int16"])
def test_load_returns_enrolled_rows_in_order_of_ids_for_any_order_of_changes(make_store, values):
    point = FixedPoint(dim=12, values=values)
    embeddings = draw().standard_normal((30, 12))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    parts = [share_rows(embeddings[at : at + 10], point) for at in (0, 10, 20)]
    loaded = []
    for party, order in enumerate([(0, 1, 2), (2, 0, 1), (1, 2, 0)]):
        store = make_store(f"{party}.shares", party=party, point=point)
        for number in order:
            enrol(store, enrolling(number, parts[number][party]))
        withdrawn = enrolment(9, party=party, point=point)
        store.prepare(withdrawn)
        if party:
            store.abort(withdrawn.change_id)
        store.close()
        with ShareStore.open(store.path) as again:
            assert (again.party, again.fixed_point, again.gallery_id) == (party, point, GALLERY)
            loaded.append(again.load())
    rows, subjects = zip(*loaded, strict=True)
    assert rows[0].digest() == rows[1].digest() == rows[2].digest()
    assert subjects[0] == subjects[1] == subjects[2]
    ids = [row.tobytes() for row in rows[0].ids_N16]
    assert ids == sorted(ids)
    named = {f"subject-{number}-{n}": 10 * number + n for number in range(3) for n in range(10)}
    expected = point.signed(point.quantise(embeddings))[[named[subject] for subject in subjects[0]]]
    np.testing.assert_array_equal(reconstruct_rows(rows[0], rows[1]), expected)
    np.testing.assert_array_equal(reconstruct_rows(rows[2], rows[1]), expected)


def test_invalid_transitions_are_rejected_and_repeated_ones_are_not(store):
    change = enrolment(1)
    with pytest.raises(InvalidInputError, match=r"is unknown here and cannot become committed\. Prepare it first"):
        store.commit(change.change_id)
    store.prepare(change)
    store.prepare(change)  # a repeated message
    with pytest.raises(InvalidInputError, match="was used and is prepared"):
        store.prepare(enrolment(1))
    store.commit(change.change_id)
    store.commit(change.change_id)
    with pytest.raises(InvalidInputError, match="was used and is committed"):
        store.prepare(change)
    with pytest.raises(InvalidInputError, match=r"is committed here and cannot become aborted. Use settle\(\)"):
        store.abort(change.change_id)
    late = enrolment(2)
    store.abort(late.change_id)  # before it arrives
    store.abort(late.change_id)
    assert store.state(late.change_id) == "aborted"
    with pytest.raises(InvalidInputError, match="was used and is aborted"):
        store.prepare(late)
    with pytest.raises(InvalidInputError, match="is aborted here and cannot become committed"):
        store.commit(late.change_id)
    assert len(store) == 5


def test_known_ids_are_rejected_by_position_and_nothing_is_stored(store):
    first = enrol(store, enrolment(1))
    waiting = enrolment(2)
    store.prepare(waiting)
    for known in (first, waiting):
        rows = noise(3)
        rows = dataclasses.replace(rows, ids_N16=np.stack([rows.ids_N16[0], known.rows.ids_N16[2], rows.ids_N16[2]]))
        with pytest.raises(
            ProblemsError, match=r"nothing was prepared: 1 problem\(s\)\n  - entry 1: its id exists already"
        ):
            store.prepare(enrolling(3, rows))
        assert store.state((3).to_bytes(16, "big")) == "unknown"
    assert len(store) == 5


def test_shares_of_another_party_or_of_other_parameters_are_rejected(store):
    for change, message in (
        (enrolment(1, party=2), "belong to party 2, the store to party 1"),
        (enrolment(1, point=FixedPoint(dim=64, values="int8")), "this store uses FixedPoint"),
        (enrolment(1, point=FixedPoint(dim=32)), "this store uses FixedPoint"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            store.prepare(change)
    assert store.pending() == ()


def test_a_removal_takes_effect_on_commit_and_can_be_aborted(store):
    change = enrol(store, enrolment(1))
    ids = [row.tobytes() for row in change.rows.ids_N16]
    removal = Removal(change_id=b"r" * 16, reference_ids=(ids[0], ids[3]))
    store.prepare(removal)
    store.prepare(removal)
    assert len(store) == 5
    with pytest.raises(ProblemsError, match="entry 0: it is not enrolled, or another change to it is prepared"):
        store.prepare(Removal(change_id=b"s" * 16, reference_ids=(ids[3], ids[4])))
    store.abort(removal.change_id)
    again = Removal(change_id=b"t" * 16, reference_ids=removal.reference_ids)
    store.prepare(again)
    store.commit(again.change_id)
    store.commit(again.change_id)
    rows, subjects = store.load()
    assert {row.tobytes() for row in rows.ids_N16} == {ids[1], ids[2], ids[4]}
    assert sorted(subjects) == ["subject-1-1", "subject-1-2", "subject-1-4"]
    with pytest.raises(ProblemsError, match="entry 0: it is not enrolled"):
        store.prepare(Removal(change_id=b"u" * 16, reference_ids=(ids[0],)))


def test_a_prepared_enrolment_cannot_be_removed(store):
    change = enrolment(1)
    store.prepare(change)
    with pytest.raises(ProblemsError, match="entry 0: it is not enrolled"):
        store.prepare(Removal(change_id=b"r" * 16, reference_ids=(change.rows.ids_N16[0].tobytes(),)))


@pytest.mark.parametrize("ends", ["removed", "aborted"])
def test_removed_and_aborted_rows_are_erased_from_the_file(store, ends):
    """Includes copies that SQLite leaves when it reorganises pages; changes are many, interleaved and of all sizes."""
    rng = draw()
    gone, kept = [], []
    for number in range(1, 40):
        change = enrolment(number, int(rng.integers(1, 30)))
        store.prepare(change)
        if ends == "aborted" and number % 2:
            store.abort(change.change_id)
            gone += [(words.tobytes(), name) for words, name in zip(change.rows.words_NW, change.subjects, strict=True)]
            continue
        store.commit(change.change_id)
        rows = zip(change.rows.ids_N16, change.rows.words_NW, change.subjects, strict=True)
        kept += [(one.tobytes(), words.tobytes(), name) for one, words, name in rows]
        if ends == "removed" and number % 3 == 0:
            chosen = {int(n) for n in rng.choice(len(kept), len(kept) // 3, replace=False)}
            removal = Removal(change_id=bytes([number]) * 16, reference_ids=tuple(kept[n][0] for n in chosen))
            store.prepare(removal)
            store.commit(removal.change_id)
            gone += [kept[n][1:] for n in chosen]
            kept = [row for n, row in enumerate(kept) if n not in chosen]
    held = on_disk(store)
    assert len(gone) > 100 and all(row[1] in held for row in kept)
    pieces = {held[at : at + 8] for at in range(len(held))}
    for words, name in gone:
        assert name.encode() + b"\0" not in held  # slots pad subjects with zeros
        assert pieces.isdisjoint(words[at : at + 8] for at in range(0, len(words), 8))
    assert all(name.encode() + b"\0" in held for *_, name in kept)


def test_a_file_contains_only_shares_and_they_are_uniform(make_store):
    """Chi-square of bytes, 255 degrees of freedom: it exceeds 420 by chance three times in 10^10."""
    embedding = np.repeat(draw().standard_normal((1, 64)), 400, axis=0)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    quantised = POINT.quantise(embedding)
    for party, rows in enumerate(share_rows(embedding, POINT)):
        store = make_store(f"{party}.shares", party=party)
        enrol(store, enrolling(1, rows))
        held = on_disk(store)
        for row in (quantised[0], quantised[0].byteswap(), embedding[0], embedding[0].astype(np.float32)):
            assert row.tobytes()[:8] not in held
        loaded, _ = store.load()
        for position in range(4):
            counts = np.bincount(loaded.words_NW.view(np.uint8)[:, position::4].ravel(), minlength=256)
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 420
        assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in store.path.parent.iterdir())


def test_a_full_disk_leaves_the_store_readable(store):
    kept = enrol(store, enrolment(1))
    limit = store._connection.execute("PRAGMA page_count").fetchone()[0] + 2
    store._connection.execute(f"PRAGMA max_page_count = {limit}").fetchall()
    big = enrolment(2, 500)
    with pytest.raises(StorageError, match=r"full; nothing was changed. Check free space"):
        store.prepare(big)
    assert (store.state(big.change_id), len(store)) == ("unknown", 5)
    enrol(store, enrolment(3))
    store.close()
    with ShareStore.open(store.path) as again:
        assert len(again.load()[0]) == 10
        enrol(again, big)  # there is space again
        assert len(again) == 510
        assert kept.rows.words_NW[0].tobytes() in on_disk(again)


def test_a_failing_write_leaves_the_store_readable(store):
    """A limit on file sizes stops the log from growing, so a write fails within a transaction."""
    enrol(store, enrolment(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(StorageError, match="nothing was changed"):
            store.prepare(enrolment(2, 2000))
        assert len(store.load()[0]) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    enrol(store, enrolment(3))
    assert (len(store.load()[0]), store.pending()) == (10, ())


def read(path):
    with ShareStore.open(path) as store:
        return len(store.load()[0])


def test_foreign_and_truncated_files_are_rejected_and_not_changed(store, tmp_path):
    for number in range(1, 9):
        enrol(store, enrolment(number, 40))
    store.close()
    whole = store.path.read_bytes()
    path = tmp_path / "other"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE faces (x)")
    other.close()
    path.chmod(0o600)
    foreign = [b"", b"words", bytes(5000), path.read_bytes(), whole[1:]]
    for content in [
        *foreign,
        *(whole[:at] for at in (1, 50, 100, 2000, 32768, 50000, len(whole) // 2, len(whole) - 1)),
    ]:
        path.write_bytes(content)
        with pytest.raises(CorruptTemplateError, match=r"truncated|damaged row"):
            read(path)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    assert read(path) == 320


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o640])
def test_a_file_that_other_users_can_access_is_refused_with_the_remedy(store, mode):
    store.close()
    store.path.chmod(mode)
    with pytest.raises(StorageError, match=rf"has mode {mode:04o}.*chmod 600 "):
        ShareStore.open(store.path)
    store.path.chmod(0o600)
    assert read(store.path) == 0


def test_a_newer_file_is_rejected_and_not_changed(store):
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA user_version = 3")
    other.close()
    content = store.path.read_bytes()
    with pytest.raises(OutdatedTemplateError, match="has format version 3, but this release reads version 2"):
        ShareStore.open(store.path)
    assert store.path.read_bytes() == content


def test_a_damaged_row_is_detected(store):
    change = enrol(store, enrolment(1))
    store.close()
    whole = store.path.read_bytes()
    for needle in (change.rows.words_NW[2].tobytes(), b"subject-1-3"):
        at = whole.index(needle) + 5
        store.path.write_bytes(whole[:at] + bytes([whole[at] ^ 128]) + whole[at + 1 :])
        with pytest.raises(CorruptTemplateError, match="damaged row"):
            read(store.path)


def test_only_one_object_may_open_a_file(store):
    with pytest.raises(StorageError, match="already open"):
        ShareStore.open(store.path)
    with pytest.raises(InvalidInputError, match="already exists"):
        ShareStore.create(store.path, party=1, fixed_point=POINT, gallery_id=GALLERY)
    store.close()
    with pytest.raises(StorageError, match="Cannot operate on a closed database"):
        len(store)
    with ShareStore.open(store.path) as again:
        assert len(again) == 0
    assert [path.name for path in store.path.parent.iterdir()] == ["party.shares"]


def test_threads_can_share_a_store(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enrol, [store] * 8, [enrolment(number) for number in range(1, 9)]))
    assert len(store.load()[0]) == 40


def test_missing_files_and_invalid_arguments_are_rejected(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        ShareStore.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Cannot write"):
        ShareStore.create(tmp_path / "file" / "store", party=0, fixed_point=POINT, gallery_id=GALLERY)
    for bad, message in (
        ({"party": 3}, "got 3"),
        ({"gallery_id": b"short"}, "gallery id must be 16 bytes"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            ShareStore.create(tmp_path / "new", **{"party": 0, "fixed_point": POINT, "gallery_id": GALLERY} | bad)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_texts_show_no_contents(store):
    change = enrol(store, enrolment(1))
    removal = Removal(change_id=b"r" * 16, reference_ids=(change.rows.ids_N16[0].tobytes(),))
    texts = [repr(change), repr(store), repr(store.load()[0]), repr(removal)]
    for failing in (lambda: store.prepare(enrolling(2, change.rows)), lambda: store.prepare(enrolment(3, party=0))):
        with pytest.raises(InvalidInputError) as error:
            failing()
        texts.append(str(error.value))
    for secret in ("subject", str(change.rows.words_NW[0, 0]), change.rows.ids_N16[0].tobytes().hex()):
        assert not any(secret in text.replace("subjects=<redacted>", "") for text in texts)
    with pytest.raises(UnsupportableError, match="cannot be pickled"):
        pickle.dumps(store)
