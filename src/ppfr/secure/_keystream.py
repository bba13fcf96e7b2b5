"""Correlated randomness: keystreams shared by pairs of parties, and zero shares derived from them.

Party i holds key i, which party i - 1 holds too, and key i + 1 of party i + 1. The mask that party i adds to a message
for party i - 1 contains the keystream of key i + 1, which party i - 1 cannot compute.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ppfr.core import Keystream
from ppfr.secure._channel import NUM_PARTIES, Channel

KEY_BYTES = 16
SEED_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PairwiseKeys:
    """A party's two keys of a session: its own, which the previous party also holds, and the next party's.

    Attributes:
        own: 16 bytes.
        next: 16 bytes.
    """

    own: bytes
    next: bytes

    @classmethod
    def agree(cls, channel: Channel) -> PairwiseKeys:
        """Draw the own key from the operating system, send it to the previous party and receive the next party's."""
        own = os.urandom(KEY_BYTES)
        channel.send(own)
        return cls(own=own, next=bytes(channel.receive(KEY_BYTES)))

    def __repr__(self) -> str:
        return "PairwiseKeys(<redacted>)"

    def __reduce__(self) -> Any:
        raise TypeError("Keys cannot be pickled. Agree on new keys in each session.")


def agree_on_seed(party: int, channel: Channel) -> bytes:
    """32 bytes that all three parties know and that none of them chose: a hash of one contribution of each.

    Args:
        party: 0..2.
        channel: to the other two parties, in a session in which nothing else is sent meanwhile.

    Raises:
        PartyError: as for `Channel.receive`.
    """
    own = os.urandom(SEED_BYTES)
    channel.send(own)
    of_next = bytes(channel.receive(SEED_BYTES))
    channel.send(of_next)
    of_previous = bytes(channel.receive(SEED_BYTES))
    by_party = {party: own, (party + 1) % NUM_PARTIES: of_next, (party + 2) % NUM_PARTIES: of_previous}
    return hashlib.sha256(b"ppfr seed" + b"".join(by_party[i] for i in range(NUM_PARTIES))).digest()


class ZeroShares:
    """Masks of one query: over the three parties they sum (or XOR) to zero.

    Args:
        keys: of the session.
        number: of the query; must not be used twice in a session.
    """

    def __init__(self, keys: PairwiseKeys, number: int) -> None:
        self.own = Keystream(keys.own, number)
        self.next = Keystream(keys.next, number)

    def of_sum(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Masks that sum to zero: ring elements F(own) - F(next)."""
        mask = self.own.words(shape, dtype)
        mask -= self.next.words(shape, dtype)
        return mask

    def of_xor(self, shape: int | tuple[int, ...]) -> NDArray[np.uint64]:
        """Masks that XOR to zero: 64-bit words F(own) xor F(next)."""
        mask = self.own.words(shape, np.uint64)
        mask ^= self.next.words(shape, np.uint64)
        return mask
