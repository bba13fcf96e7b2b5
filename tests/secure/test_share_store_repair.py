"""Repairing share stores that have diverged."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from ppfr.core import CorruptTemplateError, InvalidInputError, StorageError
from ppfr.secure import (
    Removal,
    Repair,
    StoreExport,
    reconstruct_rows,
    repair_store,
)
from support.share_stores import (
    by_row,
    content,
    enrolments,
    exports_for,
    listing,
    perform,
    prepare,
    rebuilt,
    refreshes,
    removals,
    states_of,
    words_of,
)


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
