"""Refreshes of share stores: other shares of the same embeddings, and nothing of the earlier ones on disk."""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError
from ppfr.secure import Enrolment, FixedPoint, Refresh, Removal, SharedRows, ShareStore, reconstruct_rows, share_rows

POINT = FixedPoint(dim=16)
REFRESH = Refresh(change_id=b"r" * 16, seed=bytes(range(1, 33)))


def unit_rows(num, dim=16):
    rows = np.random.default_rng(num).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def enrolments(number, embeddings, point=POINT):
    """The change for each party."""
    subjects = tuple(f"{number}-{n}" for n in range(len(embeddings)))
    return [
        Enrolment(change_id=bytes([number]) * 16, rows=rows, subjects=subjects)
        for rows in share_rows(embeddings, point)
    ]


def perform(store, change):
    store.prepare(change)
    store.commit(change.change_id)


def on_disk(store):
    return b"".join(path.read_bytes() for path in sorted(store.path.parent.glob(store.path.name + "*")))


def pieces(content):
    return {content[at : at + 8] for at in range(len(content))}


@pytest.fixture
def stores(make_stores):
    made = make_stores()
    for store, change in zip(made, enrolments(1, unit_rows(30)), strict=True):
        perform(store, change)
    return made


@pytest.mark.parametrize("values", ["int8", "int16"])
def test_a_refresh_replaces_all_shares_and_keeps_embeddings_subjects_and_order(make_stores, values):
    point = FixedPoint(dim=16, values=values)
    stores = make_stores(point=point)
    parts = [enrolments(number, unit_rows(10 * number), point) for number in (1, 2, 3)]
    for store in stores:
        for number in ((0, 1, 2), (2, 0, 1), (1, 2, 0))[store.party]:  # other places in the files
            perform(store, parts[number][store.party])
    before = [store.load() for store in stores]
    for store in stores:
        assert store.epoch == 0
        perform(store, REFRESH)
        assert (store.epoch, store.state(REFRESH.change_id), store.pending()) == (1, "committed", ())
    after = [store.load() for store in stores]
    expected = reconstruct_rows(before[0][0], before[1][0])
    for one, other in ((0, 1), (1, 2), (2, 0)):
        np.testing.assert_array_equal(reconstruct_rows(after[one][0], after[other][0]), expected)
        np.testing.assert_array_equal(after[one][0].words_NW[:, 16:], after[other][0].words_NW[:, :16])
        mixed = reconstruct_rows(before[one][0], after[other][0])  # an old backup and a new disk
        assert np.mean(mixed == expected) < 0.01
    for (old, old_subjects), (new, subjects) in zip(before, after, strict=True):
        assert np.mean(old.words_NW == new.words_NW) < 0.01
        assert old.digest() == new.digest() and old_subjects == subjects
        np.testing.assert_array_equal(REFRESH.applied(old).words_NW, new.words_NW)


def test_the_new_randomness_of_a_row_depends_on_seed_and_id_alone_and_sums_to_zero():
    ids_N16 = np.random.default_rng(1).integers(0, 256, (5000, 16), dtype=np.uint8)
    zero = np.zeros((5000, 32), dtype=np.uint32)
    parts = [SharedRows(party=party, fixed_point=POINT, ids_N16=ids_N16, words_NW=zero) for party in range(3)]
    added = [REFRESH.applied(part).words_NW for part in parts]
    np.testing.assert_array_equal(sum(words[:, :16] for words in added), zero[:, :16])
    few = SharedRows(party=2, fixed_point=POINT, ids_N16=ids_N16[[4999, 7]], words_NW=zero[:2])
    np.testing.assert_array_equal(REFRESH.applied(few).words_NW, added[2][[4999, 7]])
    other = Refresh(change_id=b"r" * 16, seed=bytes(range(2, 34)))
    assert np.mean(other.applied(parts[0]).words_NW == added[0]) < 0.01
    for words in added:  # 255 degrees of freedom; exceeds 420 by chance three times in 10^10
        counts = np.bincount(words.view(np.uint8).ravel(), minlength=256)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 420


@pytest.mark.parametrize("end", ["commit", "abort"])
@pytest.mark.parametrize("dim", [16, 4096])  # many rows in a page, and rows larger than a page
def test_earlier_shares_and_the_seed_are_erased_from_the_disk(make_stores, end, dim):
    """Rows are erased when they are replaced; the seed is erased in either case."""
    point = FixedPoint(dim=dim)
    store, change = make_stores(point=point)[1], enrolments(1, unit_rows(30 if dim == 16 else 9, dim), point)[1]
    perform(store, change)
    ids = tuple(one.tobytes() for one in store.load()[0].ids_N16[::3])
    perform(store, Removal(change_id=b"s" * 16, reference_ids=ids))  # empty slots between the others
    old, _ = store.load()
    for number in range(3):
        change = Refresh(change_id=bytes([50 + number]) * 16, seed=os.urandom(32))
        store.prepare(change)
        assert change.seed in on_disk(store)
        getattr(store, end)(change.change_id)
        held = pieces(on_disk(store))
        assert held.isdisjoint(change.seed[at : at + 8] for at in range(25))
        new, _ = store.load()
        assert len(words_of(new) - held) <= 2 * len(new)  # pairs of words that two pages divide
        if end == "commit":
            assert held.isdisjoint(words_of(old))
        old = new
    assert store.epoch == (3 if end == "commit" else 0)
    assert not [path for path in store.path.parent.glob(f"{store.path.name}-wal") if path.stat().st_size]


def words_of(rows):
    """Pairs of words, as they are in the file."""
    content = rows.words_NW.tobytes()
    return {content[at : at + 8] for at in range(0, len(content), 8)}


def test_a_refresh_is_the_only_prepared_change(stores):
    store, second = stores[0], enrolments(2, unit_rows(3))[0]
    ids = tuple(one.tobytes() for one in store.load()[0].ids_N16[:2])
    removal = Removal(change_id=b"s" * 16, reference_ids=ids)
    for other in (second, removal):
        store.prepare(other)
        with pytest.raises(InvalidInputError, match=r"A change is prepared.*Commit or abort it"):
            store.prepare(REFRESH)
        assert store.state(REFRESH.change_id) == "unknown"
        store.abort(other.change_id)
    store.prepare(REFRESH)
    again = Refresh(change_id=b"t" * 16, seed=REFRESH.seed)
    for other in (enrolments(3, unit_rows(3))[0], Removal(change_id=b"u" * 16, reference_ids=ids), again):
        with pytest.raises(InvalidInputError, match=r"A refresh is prepared.*Commit or abort it"):
            store.prepare(other)
        assert store.state(other.change_id) == "unknown"
    store.commit(REFRESH.change_id)
    perform(store, again)
    perform(store, enrolments(3, unit_rows(3))[0])
    assert (store.epoch, len(store)) == (2, 33)


def test_repeated_steps_of_a_refresh_have_no_effect_and_invalid_ones_are_rejected(stores):
    store = stores[2]
    with pytest.raises(InvalidInputError, match="Prepare it first"):
        store.commit(REFRESH.change_id)
    store.prepare(REFRESH)
    store.prepare(REFRESH)
    with pytest.raises(InvalidInputError, match="was used and is prepared"):
        store.prepare(Refresh(change_id=REFRESH.change_id, seed=bytes(range(2, 34))))
    assert store.pending() == (REFRESH.change_id,)
    store.commit(REFRESH.change_id)
    words_NW = store.load()[0].words_NW
    store.commit(REFRESH.change_id)
    assert store.epoch == 1
    np.testing.assert_array_equal(store.load()[0].words_NW, words_NW)
    with pytest.raises(InvalidInputError, match="was used and is committed"):
        store.prepare(REFRESH)
    with pytest.raises(InvalidInputError, match="cannot become aborted"):
        store.abort(REFRESH.change_id)
    late = Refresh(change_id=b"l" * 16, seed=REFRESH.seed)
    store.abort(late.change_id)
    with pytest.raises(InvalidInputError, match="was used and is aborted"):
        store.prepare(late)


def test_a_prepared_refresh_survives_a_restart(stores):
    store = stores[0]
    expected = REFRESH.applied(store.load()[0]).words_NW
    store.prepare(REFRESH)
    store.close()
    with ShareStore.open(store.path) as again:
        assert (again.pending(), again.epoch) == ((REFRESH.change_id,), 0)
        again.commit(REFRESH.change_id)
    with ShareStore.open(store.path) as again:
        assert again.epoch == 1
        np.testing.assert_array_equal(again.load()[0].words_NW, expected)


def test_an_empty_store_can_be_refreshed(make_stores):
    for store in make_stores():
        perform(store, REFRESH)
        assert (store.epoch, len(store)) == (1, 0)


def test_a_failing_write_leaves_a_refresh_prepared_and_all_rows_as_they_were(stores):
    store = stores[0]
    words_NW = store.load()[0].words_NW
    store.prepare(REFRESH)
    store._connection.execute("CREATE TEMP TRIGGER failing BEFORE UPDATE ON store BEGIN SELECT raise(ABORT, 'x'); END")
    with pytest.raises((CorruptTemplateError, StorageError)):
        store.commit(REFRESH.change_id)
    assert (store.state(REFRESH.change_id), store.epoch) == ("prepared", 0)
    np.testing.assert_array_equal(store.load()[0].words_NW, words_NW)
    store._connection.execute("DROP TRIGGER failing")
    store.commit(REFRESH.change_id)
    assert store.epoch == 1


@pytest.mark.parametrize("part", ["seed", "row"])
def test_a_refresh_with_a_damaged_seed_or_row_is_refused_and_changes_nothing(stores, part):
    store = stores[0]
    first, _ = store.load()
    store.prepare(REFRESH)
    store.close()
    whole = store.path.read_bytes()
    at = whole.index(REFRESH.seed if part == "seed" else first.words_NW[20].tobytes()) + 9
    content = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    store.path.write_bytes(content)
    with ShareStore.open(store.path) as again:
        with pytest.raises(CorruptTemplateError, match=f"damaged {part}"):
            again.commit(REFRESH.change_id)
        assert (again.state(REFRESH.change_id), again.epoch) == ("prepared", 0)
    store.path.write_bytes(whole)
    with ShareStore.open(store.path) as again:
        np.testing.assert_array_equal(again.load()[0].words_NW, first.words_NW)


def test_a_file_of_the_earlier_version_is_refused_and_not_changed(stores):
    store = stores[0]
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA user_version = 1")
    other.close()
    content = store.path.read_bytes()
    with pytest.raises(OutdatedTemplateError, match=r"version 1.*reads version 2.*Use the release that wrote it"):
        ShareStore.open(store.path)
    assert store.path.read_bytes() == content
