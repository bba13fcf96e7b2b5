"""Seeds derived from labels, so that no draw depends on the order of other draws."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for the stream named by `labels` under the root `seed`.

    The same (seed, labels) give the same number on every machine and in every process. Different sequences of labels
    give unrelated numbers. A training step uses `derive_seed(seed, "step", 1234)`, so a resumed run makes the same
    draws as an uninterrupted one.

    >>> derive_seed(1, "noise", 3) == derive_seed(1, "noise", 3)
    True
    >>> derive_seed(1, "noise", 3) == derive_seed(1, "noise", 4)
    False
    """
    text = repr((int(seed), tuple(labels))).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
