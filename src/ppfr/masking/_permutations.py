"""Permutations from a secret: SHAKE-256 as the stream, Fisher-Yates with rejection for uniformity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator


def permutation_from(secret: bytes, label: str, size: int) -> tuple[int, ...]:
    """The permutation of range(size) derived from `secret` and `label`; the same on every machine.

    Two labels give independent permutations. Over secrets, every order is equally likely. One permutation does not help
    to find the secret or another permutation (SHAKE-256 as a pseudo-random function).
    """
    stream = _words(secret, label)
    order = list(range(size))
    for last in range(size - 1, 0, -1):
        chosen = _below(last + 1, stream)
        order[last], order[chosen] = order[chosen], order[last]
    return tuple(order)


def _words(secret: bytes, label: str) -> Iterator[int]:
    """Endless 32-bit words: SHAKE-256 of (label, secret, counter), lengths in front so that no two inputs collide."""
    name = label.encode()
    head = len(name).to_bytes(4, "little") + name + len(secret).to_bytes(4, "little") + secret
    counter = 0
    while True:
        block = hashlib.shake_256(head + counter.to_bytes(8, "little")).digest(1024)
        for start in range(0, len(block), 4):
            yield int.from_bytes(block[start : start + 4], "little")
        counter += 1


def _below(bound: int, stream: Iterator[int]) -> int:
    """A uniform number in 0..bound-1; words above the last multiple of `bound` are rejected (no modulo bias)."""
    limit = (1 << 32) // bound * bound
    while True:
        word = next(stream)
        if word < limit:
            return word % bound
