"""Changes to three share stores, and what the stores contain afterwards."""

from __future__ import annotations

import os

import numpy as np

from ppfr.secure import (
    Enrolment,
    FixedPoint,
    Refresh,
    Removal,
    StoreExport,
    rebuild_store,
    share_rows,
)

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


def by_row(store):
    rows, subjects = store.load()
    return [one.tobytes() for one in rows.ids_N16], subjects


def words_of(store):
    rows, _ = store.load()
    return [(one.tobytes(), words) for one, words in zip(rows.ids_N16, rows.words_NW, strict=True)]


def states_of(store):
    return {change.change_id: change.state for change in store.exported().changes}
