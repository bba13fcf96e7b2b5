"""Damaged share stores raise the documented errors and never return other contents than were stored."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError, new_reference_ids
from ppfr.secure import Enrolment, FixedPoint, Removal, SharedRows, ShareStore
from support.damage import outcomes

POINT = FixedPoint(dim=8, values="int16")


def enrolment(number, num):
    words = np.random.default_rng(number).integers(0, 1 << 32, (num, 16), dtype=np.uint32)
    rows = SharedRows(party=1, fixed_point=POINT, ids_N16=new_reference_ids(num), words_NW=words)
    return Enrolment(change_id=bytes([number]) * 16, rows=rows, subjects=tuple(f"{number}-{n}" for n in range(num)))


@pytest.fixture
def whole(tmp_path):
    """The bytes of a store with committed, prepared and aborted changes."""
    path = tmp_path / "whole"
    with ShareStore.create(path, party=1, fixed_point=POINT, gallery_id=bytes(16)) as store:
        changes = [enrolment(number, 40) for number in range(1, 6)]
        for change in changes:
            store.prepare(change)
        for change in changes[:3]:
            store.commit(change.change_id)
        store.abort(changes[3].change_id)
        ids = tuple(row.tobytes() for row in changes[0].rows.ids_N16[:5])
        store.prepare(Removal(change_id=b"r" * 16, reference_ids=ids))
        store.commit(b"r" * 16)
    return path.read_bytes()


def write(path, content):
    for left in path.parent.glob("damaged*"):
        left.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def test_a_damaged_share_store_is_detected_when_it_is_loaded(whole, tmp_path):
    path = tmp_path / "damaged"

    def read(content):
        write(path, content)
        with ShareStore.open(path) as store:
            rows, subjects = store.load()
            return rows.digest(), rows.words_NW.tobytes(), subjects, store.gallery_id, store.party

    found = outcomes(whole, 450, read, (CorruptTemplateError, OutdatedTemplateError), seed=1)
    assert found["CorruptTemplateError"] > 100


def test_operations_on_a_damaged_share_store_raise_documented_errors(whole, tmp_path):
    path = tmp_path / "damaged"

    def read(content):
        write(path, content)
        with ShareStore.open(path) as store:
            pending = store.pending()
            states = [store.state(bytes([number]) * 16) for number in range(1, 7)]
            store.commit(bytes([5]) * 16)
            store.prepare(enrolment(9, 3))
            store.abort(bytes([9]) * 16)
            return pending, states, len(store)

    allowed = CorruptTemplateError, OutdatedTemplateError, StorageError, InvalidInputError
    outcomes(whole, 60, read, allowed, seed=2)
