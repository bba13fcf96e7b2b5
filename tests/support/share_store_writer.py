"""A process whose children are killed by tests.

Each input line, `path path path number` or `hold path`, starts a child. The first form coordinates changes over three
stores, starting at that number, and reports each completed step on stdout. The second form keeps one store open.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from ppfr.core import StorageError
from ppfr.secure import Enrolment, FixedPoint, Refresh, Removal, SharedRows, ShareStore

POINT = FixedPoint(dim=64, values="int16")


def enrolment(number, party):
    """The enrolment with this number at this party, deterministic. Words are uniform, as shares are."""
    rng = np.random.default_rng(number)
    num = int(rng.integers(1, 40))
    ids, change_id = rng.integers(0, 256, (num, 16), dtype=np.uint8), rng.bytes(16)
    words = np.random.default_rng([number, party]).integers(0, 1 << 32, (num, 2 * POINT.dim), dtype=np.uint32)
    rows = SharedRows(party=party, fixed_point=POINT, ids_N16=ids, words_NW=words)
    return Enrolment(change_id=change_id, rows=rows, subjects=tuple(f"{number}-{n}" for n in range(num)))


def removal(number):
    """The removal of every second reference of that enrolment."""
    change = enrolment(number, 0)
    ids = tuple(row.tobytes() for row in change.rows.ids_N16[::2])
    return Removal(change_id=bytes(reversed(change.change_id)), reference_ids=ids)


def refresh(number):
    """The refresh with this number."""
    rng = np.random.default_rng([number, 7])
    return Refresh(change_id=rng.bytes(16), seed=rng.bytes(32))


def change(number, party):
    """The change with this number at this party: of five, one removes half of the one before, one is a refresh."""
    if number % 5 == 1:
        return removal(number - 1)
    return refresh(number) if number % 5 == 2 else enrolment(number, party)


def report(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def coordinate(stores, number):
    """One of five changes is withdrawn."""
    while True:
        report("trying", number)
        is_withdrawn = number % 5 == 3
        parts = [change(number, party) for party in range(3)]
        for store, part in zip(stores, parts, strict=True):
            store.prepare(part)
            report("prepared", store.party, part.change_id.hex())
        for store in stores:
            (store.abort if is_withdrawn else store.commit)(parts[0].change_id)
        report("withdrawn" if is_withdrawn else "acknowledged", parts[0].change_id.hex())
        number += 1


def run(words):
    if words[0] == "hold":
        try:
            held = ShareStore.open(words[1])
        except StorageError:
            report("rejected")
            return
        report("held", held.party)
        signal.pause()
    stores = [ShareStore.open(path) for path in words[:3]]
    report("started")
    coordinate(stores, int(words[3]))


if __name__ == "__main__":
    report("ready")
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run(line.split())
            os._exit(0)
        report("child", child)
        os.waitpid(child, 0)
        report("gone")
