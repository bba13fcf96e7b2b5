"""Files with one flipped or missing part, for tests of readers."""

from __future__ import annotations

import collections
import random

from ppfr.core import PpfrError


def damaged_copies(whole, num, *, seed):
    """That many damaged versions: bytes flipped, set to 0 or 255, cut off, cut out, repeated or exchanged."""
    rng = random.Random(seed)
    for number in range(num):
        # Half of the damage is in the first kilobyte, where headers are.
        at = rng.randrange(min(len(whole), 1024)) if number % 2 else rng.randrange(len(whole))
        size = rng.choice([1, 1, 1, 2, 16, 300])
        kind = rng.choice(["flip", "flip", "flip", "zero", "ones", "random", "cut", "out", "twice"])
        part = whole[at : at + size]
        if kind == "cut":
            yield whole[:at]
        elif kind in ("out", "twice"):
            yield whole[:at] + part * (2 * (kind == "twice")) + whole[at + size :]
        else:
            new = {
                "flip": bytes(byte ^ 1 << rng.randrange(8) for byte in part),
                "zero": bytes(len(part)),
                "ones": b"\xff" * len(part),
                "random": rng.randbytes(len(part)),
            }[kind]
            yield whole[:at] + new + whole[at + len(part) :]


def outcomes(whole, num, read, allowed, *, seed, earlier=()):
    """How many damaged versions raise each of the allowed errors, or are read as if they were whole.

    Any other error, and any result other than that of the whole file or an `earlier` one, fails the test.
    """
    expected, found = read(whole), collections.Counter()
    for content in damaged_copies(whole, num, seed=seed):
        try:
            result = read(content)
        except PpfrError as error:
            assert isinstance(error, allowed), repr(error)
            found[type(error).__name__] += 1
        else:
            assert result == expected or result in earlier
            found["whole"] += 1
    return found
