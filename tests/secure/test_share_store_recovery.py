"""Recovery of share stores: exports, rebuilding a lost store, repairing stores that have diverged."""

from __future__ import annotations

import dataclasses
import os
import stat

import numpy as np
import pytest
from safetensors.numpy import load, save

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, ProblemsError, StorageError
from ppfr.secure import (
    Enrolment,
    FixedPoint,
    Refresh,
    Removal,
    Repair,
    ShareStore,
    StoreExport,
    rebuild_store,
    reconstruct_rows,
    repair_store,
    share_rows,
)
from ppfr.secure._share_exports import _checksum
from support.damage import outcomes

POINT = FixedPoint(dim=16)
GALLERY = bytes(range(16))


def unit_rows(num, seed=1):
    rows = np.random.default_rng(seed).standard_normal((num, 16))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def enrolments(number, num, point=POINT):
    """The change for each party."""
    subjects = tuple(f"{number}-{n}-\u00e9" for n in range(num))
    shared = share_rows(unit_rows(num, number), point)
    return [Enrolment(change_id=bytes([number]) * 16, rows=rows, subjects=subjects) for rows in shared]


def removals(number, parts, chosen=slice(None, None, 2)):
    ids = tuple(one.tobytes() for one in parts[0].rows.ids_N16[chosen])
    return [Removal(change_id=bytes([number]) * 16, reference_ids=ids)] * 3


def refreshes(number):
    return [Refresh(change_id=bytes([number]) * 16, seed=os.urandom(32))] * 3


def prepare(stores, parts):
    for store in stores:
        store.prepare(parts[store.party])


def commit(stores, parts):
    for store in stores:
        store.commit(parts[store.party].change_id)


def perform(stores, parts):
    prepare(stores, parts)
    commit(stores, parts)


def content(store):
    rows, subjects = store.load()
    return rows.ids_N16.tobytes(), rows.words_NW.tobytes(), subjects, store.epoch


def listing(store):
    return content(store)[0], content(store)[2], content(store)[3]


@pytest.fixture
def make_stores(tmp_path):
    opened = []

    def make(*, point=POINT, gallery_id=GALLERY):
        for party in range(3):
            path = tmp_path / f"{len(opened)}-{party}.shares"
            opened.append(ShareStore.create(path, party=party, fixed_point=point, gallery_id=gallery_id))
        return opened[-3:]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def stores(make_stores):
    """Three stores with enrolled, removed, refreshed, aborted and refused changes."""
    stores = make_stores()
    first, second = enrolments(1, 20), enrolments(2, 7)
    perform(stores, first)
    perform(stores, removals(3, first))
    perform(stores, refreshes(4))
    perform(stores, second)
    prepare(stores, aborted := enrolments(5, 3))
    for store in stores:
        store.abort(aborted[0].change_id)
    stores[1].abort(b"\x06" * 16)  # the other parties never heard of it
    return stores


def exports_for(stores, lost, folder):
    """Written and read again."""
    exports = []
    for store in stores:
        if store.party != lost:
            path = folder / f"from-{store.party}-for-{lost}"
            store.exported(recipient=lost).write(path)
            exports.append(StoreExport.read(path))
    return exports


def rebuilt(path, party, exports, *, point=POINT, gallery_id=GALLERY):
    return rebuild_store(path, party=party, fixed_point=point, gallery_id=gallery_id, exports=exports)


@pytest.mark.parametrize("lost", range(3))
@pytest.mark.parametrize("values", ["int8", "int16"])
def test_a_rebuilt_store_is_equal_bit_for_bit_and_takes_part_again(make_stores, tmp_path, lost, values):
    point = FixedPoint(dim=16, values=values)
    stores = make_stores(point=point)
    first = enrolments(1, 20, point)
    perform(stores, first)
    perform(stores, removals(3, first))
    perform(stores, refreshes(4))
    expected = content(stores[lost])
    embeddings = reconstruct_rows(stores[0].load()[0], stores[1].load()[0])
    exports = exports_for(stores, lost, tmp_path)
    stores[lost].close()
    stores[lost].path.unlink()
    with rebuilt(stores[lost].path, lost, exports[::-1], point=point) as store:
        assert content(store) == expected
        assert (store.party, store.fixed_point, store.gallery_id) == (lost, point, GALLERY)
        assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
        again = [store if party == lost else stores[party] for party in range(3)]
        for one, other in ((0, 1), (1, 2), (2, 0)):  # the same integers decide
            loaded = again[one].load()[0], again[other].load()[0]
            np.testing.assert_array_equal(reconstruct_rows(*loaded), embeddings)
        for changes in (enrolments(9, 3, point), refreshes(10), removals(11, first, slice(1, None, 4))):
            perform(again, changes)
        assert len({listing(each) for each in again}) == 1
        one, other = again[lost].load()[0], again[(lost + 1) % 3].load()[0]
        np.testing.assert_array_equal(one.words_NW[:, 16:], other.words_NW[:, :16])


@pytest.mark.parametrize("lost", range(3))
def test_a_rebuilt_store_refuses_late_messages_of_old_changes(stores, tmp_path, lost):
    with rebuilt(tmp_path / "new", lost, exports_for(stores, lost, tmp_path)) as store:
        states = {number: store.state(bytes([number]) * 16) for number in range(1, 7)}
        expected = dict.fromkeys((1, 2, 3, 4), "committed") | {5: "aborted", 6: "unknown" if lost == 1 else "aborted"}
        assert states == expected
        for number in (1, 2, 5):
            with pytest.raises(InvalidInputError, match="was used and is"):
                store.prepare(enrolments(number, 3)[lost])


def test_a_store_without_references_can_be_rebuilt(make_stores, tmp_path):
    with rebuilt(tmp_path / "new", 0, exports_for(make_stores(), 0, tmp_path)) as store:
        assert content(store) == (b"", b"", (), 0)


def test_exports_have_one_component_each_and_inventories_have_none(stores, tmp_path):
    words = {store.party: store.load()[0].words_NW for store in stores}
    one, two = exports_for(stores, 0, tmp_path)
    np.testing.assert_array_equal(one.component_MD, words[1][:, :16])
    np.testing.assert_array_equal(two.component_MD, words[2][:, 16:])
    stores[1].exported().write(tmp_path / "inventory")
    for path, held in (("from-1-for-0", [words[1][:, :16]]), ("inventory", [])):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o600
        written = (tmp_path / path).read_bytes()
        for component in (words[1][:, :16], words[1][:, 16:]):
            is_held = any(np.array_equal(component, each) for each in held)
            assert all((row.tobytes()[:8] in written) == is_held for row in component)
        texts = repr(StoreExport.read(tmp_path / path))
        assert "-0-" not in texts and str(words[1][0, 0]) not in texts
    with pytest.raises(InvalidInputError, match="already exists"):
        stores[1].exported().write(tmp_path / "inventory")


@pytest.mark.parametrize("recipient", [1, 3, -1])
def test_an_export_for_no_other_party_is_refused(stores, recipient):
    with pytest.raises(InvalidInputError, match=f"other parties of party 1 .*got {recipient}"):
        stores[1].exported(recipient=recipient)


@pytest.mark.parametrize("make", [lambda: enrolments(8, 2), lambda: refreshes(8)])
def test_an_export_with_a_prepared_change_is_refused_with_the_remedy(stores, make):
    stores[1].prepare(make()[1])
    with pytest.raises(InvalidInputError, match=r"Start all three parties.*repair --lost 0"):
        stores[1].exported(recipient=0)
    stores[1].exported()


def test_exports_that_do_not_belong_together_are_refused(stores, make_stores, tmp_path):
    one, two = exports_for(stores, 0, tmp_path)
    other_gallery = make_stores(gallery_id=bytes(16))
    ids_M16 = two.ids_M16[::-1]
    states = [dataclasses.replace(two.changes[0], state="aborted"), *two.changes[1:]]
    cases = [
        ([one, one], "each of the parties 2 and 1, got 1, 1"),
        ([one], "each of the parties 2 and 1, got 1"),
        ([], "got none"),
        ([one, two, two], "got 1, 2, 2"),
        ([one, stores[0].exported(recipient=1)], "got 1, 0"),
        ([one, stores[2].exported(recipient=1)], "party 2 is for party 1, and not for party 0"),
        ([one, stores[2].exported()], "party 2 is an inventory, and not for party 0"),
        ([one, other_gallery[2].exported(recipient=0)], "of another gallery"),
        ([one, dataclasses.replace(two, ids_M16=ids_M16)], "other references.*Repair"),
        ([one, dataclasses.replace(two, subjects=two.subjects[::-1])], "other references or subjects.*Repair"),
        ([one, dataclasses.replace(two, changes=tuple(states))], r"1 change\(s\) are committed in one export only"),
        ([one, dataclasses.replace(two, changes=two.changes[1:])], r"1 change\(s\) are committed in one export only"),
        ([dataclasses.replace(one, changes=one.changes[2:]), two], r"2 change\(s\) are committed in one export only"),
    ]
    for exports, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            rebuilt(tmp_path / "new", 0, exports)
    perform(stores[2:], refreshes(12))
    with pytest.raises(ProblemsError, match="epochs 2 and 1"):
        rebuilt(tmp_path / "new", 0, [one, stores[2].exported(recipient=0)])
    for wrong in ({"point": FixedPoint(dim=16, values="int8")}, {"gallery_id": bytes(16)}):
        with pytest.raises(ProblemsError, match="party 1 is of another gallery, or has other parameters"):
            rebuilt(tmp_path / "new", 0, [one, two], **wrong)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InvalidInputError, match="already exists"):
        rebuilt(stores[0].path, 0, [one, two])


def test_damaged_exports_raise_documented_errors(stores, tmp_path):
    path = tmp_path / "export"

    def read(whole):
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(0o600)
        found = StoreExport.read(path)
        return found.header, found.changes, found.ids_M16.tobytes(), found.subjects, found.component_MD.tobytes()

    stores[1].exported(recipient=0).write(tmp_path / "whole")
    found = outcomes(
        (tmp_path / "whole").read_bytes(), 400, read, (CorruptTemplateError, OutdatedTemplateError), seed=3
    )
    assert found["CorruptTemplateError"] > 350
    for foreign in (b"", b"words", bytes(5000), save({"ids": np.zeros(3)}), save({}, {"format": "ppfr share export"})):
        with pytest.raises((CorruptTemplateError, OutdatedTemplateError)):
            read(foreign)


FORGED = {
    "ids in another order": lambda metadata, arrays: arrays.update(ids=arrays["ids"][::-1].copy()),
    "an id twice": lambda metadata, arrays: arrays.update(ids=arrays["ids"][[0, *range(len(arrays["ids"]) - 1)]]),
    "too few ids": lambda metadata, arrays: arrays.update(ids=arrays["ids"][1:]),
    "short ids": lambda metadata, arrays: arrays.update(ids=arrays["ids"][:, 1:].copy()),
    "words of another type": lambda metadata, arrays: arrays.update(component=arrays["component"].astype(np.uint16)),
    "words of another width": lambda metadata, arrays: arrays.update(component=arrays["component"][:, 1:].copy()),
    "a number as ids": lambda metadata, arrays: arrays.update(ids=np.array(3, np.uint8)),
    "no words": lambda metadata, arrays: arrays.pop("component"),
    "another array": lambda metadata, arrays: arrays.update(more=np.zeros(3)),
    "a control character": lambda metadata, arrays: arrays["subject_bytes"].__setitem__(0, 10),
    "no text": lambda metadata, arrays: arrays["subject_bytes"].__setitem__(0, 255),
    "an empty subject": lambda metadata, arrays: arrays["subject_lengths"].__setitem__(
        slice(0, 2), [0, arrays["subject_lengths"][:2].sum()]
    ),
    "an unknown state": lambda metadata, arrays: arrays["change_states"].__setitem__(0, 3),
    "a prepared change": lambda metadata, arrays: arrays["change_states"].__setitem__(0, 0),
    "an unknown kind": lambda metadata, arrays: arrays["change_kinds"].__setitem__(0, 9),
    "a change twice": lambda metadata, arrays: arrays["change_ids"].__setitem__(1, arrays["change_ids"][0]),
    "a pending row": lambda metadata, arrays: arrays["pending"].__setitem__(0, 0),
    "a pending row of no change": lambda metadata, arrays: arrays["pending"].__setitem__(0, 99),
    "the own party": lambda metadata, arrays: metadata.update(recipient="1"),
    "no party": lambda metadata, arrays: metadata.update(party="7"),
    "a negative epoch": lambda metadata, arrays: metadata.update(epoch="-1"),
    "no number": lambda metadata, arrays: metadata.update(dim="many"),
    "other values": lambda metadata, arrays: metadata.update(values="float"),
    "a short gallery id": lambda metadata, arrays: metadata.update(gallery_id="00"),
    "more metadata": lambda metadata, arrays: metadata.update(more="x"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "1.shares"
    with ShareStore.create(path, party=1, fixed_point=POINT, gallery_id=GALLERY) as store:
        perform([store], enrolments(1, 5))
        perform([store], refreshes(2))
        return store.exported(recipient=0)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_an_inconsistent_export_with_a_correct_checksum_is_refused(exported, tmp_path, forge):
    metadata, arrays = exported._metadata(), {name: each.copy() for name, each in exported._tensors().items()}
    path = tmp_path / "forged"

    def write():
        path.unlink(missing_ok=True)
        path.write_bytes(save(arrays, {**metadata, "sha256": _checksum(metadata, arrays)}))
        path.chmod(0o600)

    write()
    assert StoreExport.read(path).subjects == exported.subjects
    forge(metadata, arrays)
    write()
    with pytest.raises(CorruptTemplateError, match=r"inconsistent content.*export it again"):
        StoreExport.read(path)


def test_a_tampered_export_and_one_of_another_version_are_refused(stores, tmp_path):
    stores[1].exported(recipient=0).write(tmp_path / "whole")
    arrays = load((tmp_path / "whole").read_bytes())
    arrays["component"] = arrays["component"] + np.uint32(1)
    metadata = stores[1].exported(recipient=0)._metadata()
    for number, (given, error, message) in enumerate(
        [
            (metadata | {"sha256": _checksum(metadata, {})}, CorruptTemplateError, "checksum does not match"),
            (metadata, CorruptTemplateError, "checksum does not match"),
            (metadata | {"version": "2"}, OutdatedTemplateError, r"reads \(1\)"),
        ]
    ):
        path = tmp_path / f"{number}"
        path.write_bytes(save(arrays, given))
        path.chmod(0o600)
        with pytest.raises(error, match=message):
            StoreExport.read(path)


def test_an_export_that_other_users_can_access_or_that_is_missing_is_refused(stores, tmp_path):
    path = tmp_path / "export"
    stores[1].exported(recipient=0).write(path)
    path.chmod(0o640)
    with pytest.raises(StorageError, match=r"mode 0640.*chmod 600"):
        StoreExport.read(path)
    with pytest.raises(StorageError, match="missing"):
        StoreExport.read(tmp_path / "missing")


def inventories(stores, folder):
    """Written and read again, in order of the parties."""
    found = []
    for store in stores:
        path = folder / f"inventory-{store.party}-{os.urandom(4).hex()}"
        store.exported().write(path)
        found.append(StoreExport.read(path))
    return found


def repair_all(stores, folder, **kwargs):
    """Repair each store with inventories from before the first repair."""
    found = inventories(stores, folder)
    return [
        repair_store(store, [each for each in found if each.header.party != store.party], **kwargs) for store in stores
    ]


def test_stores_that_agree_are_not_changed_by_a_repair(make_stores, tmp_path):
    stores = make_stores()
    perform(stores, enrolments(1, 9))
    before = [content(store) for store in stores]
    assert repair_all(stores, tmp_path) == [Repair(num_kept=9, num_erased=0, num_committed=0, num_aborted=0)] * 3
    assert [content(store) for store in stores] == before


def test_stores_whose_ids_subjects_and_kinds_of_changes_differ_become_equal(stores, tmp_path):
    common = set(zip(*by_row(stores[0]), strict=True))
    perform(stores[:1], enrolments(20, 4))  # at one party
    perform(stores[1:], enrolments(21, 5))  # at two parties
    renamed = enrolments(22, 2)
    renamed[2] = dataclasses.replace(renamed[2], subjects=("other", renamed[2].subjects[1]))
    perform(stores, renamed)  # another subject at party 2
    gone = stores[2].load()[0].ids_N16[:1].tobytes()
    perform(stores[2:], [Removal(change_id=b"\x17" * 16, reference_ids=(gone,))] * 3)  # removed at party 2
    perform(stores[:2], enrolments(24, 1))  # one change id, two kinds
    some = stores[2].load()[0].ids_N16[-1:].tobytes()
    perform(stores[2:], [Removal(change_id=b"\x18" * 16, reference_ids=(some,))] * 3)
    kept = common | {(renamed[0].rows.ids_N16[1].tobytes(), renamed[0].subjects[1])}
    kept = {(one, subject) for one, subject in kept if one not in (gone, some)}
    before = [content(store) for store in stores]
    dry = repair_all(stores, tmp_path, is_dry_run=True)
    assert [content(store) for store in stores] == before
    gone_words = [
        words.tobytes() for store in stores for one, words in words_of(store) if one not in {one for one, _ in kept}
    ]
    assert repair_all(stores, tmp_path) == dry
    assert [repair.num_kept for repair in dry] == [len(kept)] * 3
    assert all(repair.num_erased > 3 for repair in dry)
    assert len({listing(store) for store in stores}) == 1
    assert set(zip(*by_row(stores[0]), strict=True)) == kept
    held = b"".join(store.path.read_bytes() for store in stores)
    assert len(gone_words) > 10 and not any(words[:8] in held for words in gone_words)
    assert len({tuple(sorted(states_of(store).items())) for store in stores}) == 1
    assert (
        repair_all(stores, tmp_path) == [Repair(num_kept=len(kept), num_erased=0, num_committed=0, num_aborted=0)] * 3
    )
    perform(stores, enrolments(30, 3))
    expected = content(stores[1])
    with rebuilt(tmp_path / "new", 1, exports_for(stores, 1, tmp_path)) as store:
        assert content(store) == expected


def test_a_failing_repair_changes_nothing(stores, tmp_path):
    perform(stores[:1], enrolments(20, 4))
    prepare(stores[:1], refreshes(21))
    before = content(stores[0]), stores[0].pending()
    others = inventories(stores, tmp_path)[1:]
    stores[0]._connection.execute(
        "CREATE TEMP TRIGGER failing BEFORE DELETE ON listed BEGIN SELECT raise(ABORT, 'x'); END"
    )
    with pytest.raises((CorruptTemplateError, StorageError)):
        repair_store(stores[0], others)
    assert (content(stores[0]), stores[0].pending()) == before
    stores[0]._connection.execute("DROP TRIGGER failing")
    assert repair_store(stores[0], others).num_erased == 4
    assert listing(stores[0]) == listing(stores[1])


def by_row(store):
    rows, subjects = store.load()
    return [one.tobytes() for one in rows.ids_N16], subjects


def words_of(store):
    rows, _ = store.load()
    return [(one.tobytes(), words) for one, words in zip(rows.ids_N16, rows.words_NW, strict=True)]


def states_of(store):
    return {change.change_id: change.state for change in store.exported().changes}


@pytest.mark.parametrize("kind", ["enrolment", "removal", "refresh"])
@pytest.mark.parametrize("num_steps", range(7))
@pytest.mark.parametrize("is_sequential", [False, True])
def test_a_repair_settles_changes_at_any_step_alike(make_stores, tmp_path, kind, num_steps, is_sequential):
    """With inventories from before the first repair, or from after the repairs of the parties that come first."""
    stores, first = make_stores(), enrolments(1, 6)
    perform(stores, first)
    parts = {"enrolment": enrolments(8, 2), "removal": removals(8, first), "refresh": refreshes(8)}[kind]
    for step in range(num_steps):
        store = stores[step % 3]
        store.prepare(parts[store.party]) if step < 3 else store.commit(parts[0].change_id)
    found = inventories(stores, tmp_path)
    for store in stores:
        found = inventories(stores, tmp_path) if is_sequential else found
        repair_store(store, [each for each in found if each.header.party != store.party])
    states = {store.state(parts[0].change_id) for store in stores}
    assert states == {"committed" if num_steps >= 3 else "aborted" if num_steps else "unknown"}
    assert len({listing(store) for store in stores}) == 1 and not any(store.pending() for store in stores)
    assert len(stores[0]) == 6 + {"enrolment": 2, "removal": -3, "refresh": 0}[kind] * (num_steps >= 3)
    loaded = [store.load()[0] for store in stores]
    np.testing.assert_array_equal(reconstruct_rows(loaded[0], loaded[1]), reconstruct_rows(loaded[1], loaded[2]))


@pytest.mark.parametrize("lost", range(3))
@pytest.mark.parametrize("num_steps", range(1, 6))
@pytest.mark.parametrize("make", [enrolments, refreshes])
def test_a_change_is_settled_by_two_parties_if_the_store_of_the_third_is_lost(
    make_stores, tmp_path, lost, num_steps, make
):
    """Committed at a remaining party is committed; otherwise the change was not acknowledged, and is aborted."""
    stores = make_stores()
    perform(stores, enrolments(1, 6))
    parts = make(8, 2) if make is enrolments else make(8)
    for step in range(num_steps):
        store = stores[step % 3]
        store.prepare(parts[store.party]) if step < 3 else store.commit(parts[0].change_id)
    remaining = [store for store in stores if store.party != lost]
    is_committed = any(store.state(parts[0].change_id) == "committed" for store in remaining)
    found = inventories(remaining, tmp_path)
    repair_store(remaining[0], found[1:], lost=lost)
    repair_store(remaining[1], found[:1], lost=lost)
    with rebuilt(tmp_path / "new", lost, exports_for(remaining, lost, tmp_path)) as store:
        assert len({listing(each) for each in (store, *remaining)}) == 1
        is_known = any(each.state(parts[0].change_id) != "unknown" for each in remaining)
        expected = "committed" if is_committed else "aborted" if is_known else "unknown"
        assert {each.state(parts[0].change_id) for each in (store, *remaining)} == {expected}
        one, other = remaining[0].load()[0], store.load()[0]
        embeddings = reconstruct_rows(one, other)
    np.testing.assert_array_equal(embeddings, reconstruct_rows(one, remaining[1].load()[0]))


def test_stores_of_other_epochs_are_not_repaired_and_the_remedy_works(stores, tmp_path):
    perform(stores[1:], refreshes(12))
    before = [content(store) for store in stores]
    found = inventories(stores, tmp_path)
    for store in stores:
        others = [each for each in found if each.header.party != store.party]
        with pytest.raises(InvalidInputError, match=r"party 0: 1, party 1: 2, party 2: 2.*rebuild it"):
            repair_store(store, others)
    assert [content(store) for store in stores] == before
    with rebuilt(tmp_path / "new", 0, exports_for(stores, 0, tmp_path)) as store:
        assert len({listing(each) for each in (store, *stores[1:])}) == 1


def test_inventories_of_other_parties_or_galleries_are_refused(stores, make_stores):
    one, two = stores[1].exported(), stores[2].exported()
    strange = make_stores(gallery_id=bytes(16))[2].exported()
    for given, lost, message in (
        ([one], None, "parties 1, 2, got those of 1"),
        ([one, one], None, "parties 1, 2, got those of 1, 1"),
        ([one, stores[0].exported()], None, "got those of 1, 0"),
        ([one, two], 2, "parties 1, got those of 1, 2"),
        ([two], 2, "parties 1, got those of 2"),
        ([one, two], 0, "parties 1, 2"),
        ([one, strange], None, "another gallery"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            repair_store(stores[0], given, lost=lost)
