"""A process whose children tests kill: each line, `path path path number` or `hold path`, is a new child's work.

The first coordinates changes over three stores, from that number on, and says on stdout what it was promised; the
second holds one store open.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from ppfr.core import StorageError
from ppfr.secure import Enrolment, FixedPoint, Removal, SharedRows, ShareStore

POINT = FixedPoint(dim=64, values="int16")


def enrolment(number, party):
    """The enrolment of this number, at this party: the same whoever asks. Words are noise, as shares are."""
    rng = np.random.default_rng(number)
    num = int(rng.integers(1, 40))
    ids, change_id = rng.integers(0, 256, (num, 16), dtype=np.uint8), rng.bytes(16)
    words = np.random.default_rng([number, party]).integers(0, 1 << 32, (num, 2 * POINT.dim), dtype=np.uint32)
    rows = SharedRows(party=party, fixed_point=POINT, ids_N16=ids, words_NW=words)
    return Enrolment(change_id=change_id, rows=rows, subjects=tuple(f"{number}-{n}" for n in range(num)))


def removal(number):
    """Of every second reference of that enrolment."""
    change = enrolment(number, 0)
    ids = tuple(row.tobytes() for row in change.rows.ids_N16[::2])
    return Removal(change_id=bytes(reversed(change.change_id)), reference_ids=ids)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def coordinate(stores, number):
    """Of four enrolments one is withdrawn; every fourth change removes what was enrolled before."""
    while True:
        say("trying", number)
        is_withdrawn = number % 4 == 3
        parts = [removal(number - 1)] * 3 if number % 4 == 2 else [enrolment(number, party) for party in range(3)]
        for store, part in zip(stores, parts, strict=True):
            store.prepare(part)
            say("prepared", store.party, part.change_id.hex())
        for store in stores:
            (store.abort if is_withdrawn else store.commit)(parts[0].change_id)
        say("withdrawn" if is_withdrawn else "acknowledged", parts[0].change_id.hex())
        number += 1


def run(words):
    if words[0] == "hold":
        try:
            held = ShareStore.open(words[1])
        except StorageError:
            say("refused")
            return
        say("held", held.party)
        signal.pause()
    stores = [ShareStore.open(path) for path in words[:3]]
    say("started")
    coordinate(stores, int(words[3]))


if __name__ == "__main__":
    say("ready")
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run(line.split())
            os._exit(0)
        say("child", child)
        os.waitpid(child, 0)
        say("gone")
