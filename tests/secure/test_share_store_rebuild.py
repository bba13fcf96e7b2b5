"""Rebuilding the share store of a party that lost it, from the exports of the two others."""

from __future__ import annotations

import dataclasses
import stat

import numpy as np
import pytest

from ppfr.core import InvalidInputError, ProblemsError
from ppfr.secure import (
    FixedPoint,
    reconstruct_rows,
)
from support.share_stores import (
    GALLERY,
    content,
    enrolments,
    exports_for,
    listing,
    perform,
    rebuilt,
    refreshes,
    removals,
)


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
