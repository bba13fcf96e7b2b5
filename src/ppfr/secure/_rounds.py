"""The communication rounds of a query: each sends one message to the previous party and receives one from the next.

Shared values have a leading axis of size 2: the party's own component, then that of the next party.

Suffixes: B probes, N values, K planes (bits, lowest first), W words of 64 lanes, G gates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr.core import PartyError
from ppfr.secure._channel import NUM_PARTIES, Buffer, Channel
from ppfr.secure._keystream import ZeroShares

Words = NDArray[Any]
LANES = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes that one party sent and received for one query; they follow from the query's sizes alone.

    Attributes:
        bytes_sent: to the previous party.
        bytes_received: from the next party.
        num_rounds: sequential steps; each takes half a round trip.
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    num_rounds: int = 0


class Rounds:
    """The communication of one query at one party.

    Args:
        party: 0..2.
        channel: to the other two parties.
        masks: of this query.
    """

    def __init__(self, party: int, channel: Channel, masks: ZeroShares) -> None:
        self._party = party
        self._channel = channel
        self._attached, self._attachment = b"", b""
        self.masks = masks
        self.traffic = Traffic()

    def send(self, data: Buffer) -> None:
        """Send a message to the previous party."""
        self._channel.send(data)
        self.traffic = dataclasses.replace(self.traffic, bytes_sent=self.traffic.bytes_sent + len(data))

    def receive(self, num_bytes: int) -> Buffer:
        """Receive a message from the next party; raises as `Channel.receive`."""
        data = self._channel.receive(num_bytes)
        self.traffic = dataclasses.replace(self.traffic, bytes_received=self.traffic.bytes_received + len(data))
        return data

    def exchange(self, data: Buffer) -> Buffer:
        """Send a message and receive one of the same size: a round."""
        self.send(data)
        received = self.receive(len(data))
        self._count_round()
        return received

    def attach(self, data: bytes) -> None:
        """Send data along with the next round in which all parties send; `attachment` returns the next party's."""
        self._attached = data

    def attachment(self) -> bytes:
        """What the next party attached to the latest round that carried an attachment."""
        return self._attachment

    def check_statement(self, statement: bytes, received: bytes) -> None:
        """Compare the next party's statement, a hash of the request, with this party's own.

        Raises:
            PartyError: they differ; the error names the party.
        """
        if received != statement:
            other = (self._party + 1) % NUM_PARTIES
            raise PartyError(
                f"Party {other} has another query, gallery, threshold or version than party {self._party}. "
                "Nothing was computed.",
                party=other,
            )

    def reshare(self, additive_BN: Words) -> Words:
        """A party's additive shares of N sums -> (2, B, N) replicated shares; sends one masked ring element per sum."""
        own_BN = self.masks.of_sum(additive_BN.shape, additive_BN.dtype)
        own_BN += additive_BN
        return self._replicated(own_BN)

    def to_summands(self, shared_2BN: Words) -> tuple[Words, Words]:
        """(2, B, N) ring elements -> the bits of two numbers, (2, K, B, W) each, that add up to them.

        Party 0 knows x_0 + x_1 and shares its bits: one component is the keystream of key 1, which party 1 holds too;
        the other component is sent to party 2. Parties 1 and 2 know x_2, which needs no sharing.
        """
        own_BN, next_BN = shared_2BN
        zero = np.zeros(_planes_shape(own_BN), dtype=np.uint64)
        if self._party == 0:
            mask = self.masks.next.words(zero.shape, np.uint64)
            rest = sliced(own_BN + next_BN) ^ mask
            self.send(as_bytes(rest))
            first, second = (rest, mask), (zero, zero)
        elif self._party == 1:
            first, second = (self.masks.own.words(zero.shape, np.uint64), zero), (zero, sliced(next_BN))
        else:
            second = (sliced(own_BN), zero)
            first = (zero, self._received(zero.shape, np.uint64))
        self._count_round()
        return np.stack(first), np.stack(second)

    def and_gates(self, left: Words, left_G: Words, right: Words, right_G: Words) -> Words:
        """Planes left[:, left_G] AND right[:, right_G] -> (2, G, ...); sends one bit per gate."""
        from ppfr.secure._kernels import and_gates

        own = self.masks.of_xor((len(left_G), *left.shape[2:]))
        and_gates(_flat(left), left_G, _flat(right), right_G, own.reshape(len(left_G), -1))
        return self._replicated(own)

    def conjunction(self, left: Words, right: Words) -> Words:
        """Bitwise AND: (2, K, ...), (2, K, ...) -> (2, K, ...)."""
        planes = np.arange(left.shape[1])
        return self.and_gates(left, planes, right, planes)

    def inverted(self, bits: Words) -> Words:
        """Complement of all bits; sends nothing."""
        flipped = bits.copy()
        if self._party == 0:
            flipped[0] ^= _ONES
        if self._party == NUM_PARTIES - 1:
            flipped[1] ^= _ONES
        return flipped

    def minus_integer(self, shared_2BN: Words, integer: int) -> Words:
        """Subtract a public integer; sends nothing."""
        difference = shared_2BN.copy()
        ring = np.array([integer], dtype=np.int64).astype(difference.dtype)
        if self._party == 0:
            difference[0] -= ring
        if self._party == NUM_PARTIES - 1:
            difference[1] -= ring
        return difference

    def _replicated(self, own: Words) -> Words:
        self.send(as_bytes(own))
        attached, self._attached = self._attached, b""
        if attached:
            self.send(attached)
        shared = np.empty((2, *own.shape), dtype=own.dtype)
        shared[0], shared[1] = own, self._received(own.shape, own.dtype)
        if attached:
            self._attachment = bytes(self.receive(len(attached)))
        self._count_round()
        return shared

    def _received(self, shape: tuple[int, ...], dtype: Any) -> Words:
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self.receive(num_bytes), dtype=dtype).reshape(shape)

    def _count_round(self) -> None:
        self.traffic = dataclasses.replace(self.traffic, num_rounds=self.traffic.num_rounds + 1)


_ONES = np.uint64(2**64 - 1)


def as_bytes(words: Words) -> memoryview:
    """An array as a message, without a copy; the sender must not change it afterwards."""
    return np.ascontiguousarray(words).reshape(-1).view(np.uint8).data


def num_words(num_values: int) -> int:
    """W: number of words that hold N lanes."""
    return -(-num_values // LANES)


def sliced(values_BN: Words) -> NDArray[np.uint64]:
    """(B, N) ring elements -> (K, B, W): bit k of value j W + w is bit j of word w of plane k."""
    from ppfr.secure._kernels import slice_bits

    planes = np.empty(_planes_shape(values_BN), dtype=np.uint64)
    slice_bits(np.ascontiguousarray(values_BN), planes)
    return planes


def unsliced(bits_BW: NDArray[np.uint64], num_values: int) -> NDArray[np.bool_]:
    """(B, W) words of one plane -> (B, N) bits: the inverse of `sliced`."""
    lanes = np.arange(LANES, dtype=np.uint64)[None, :, None]
    bits = (bits_BW[:, None, :] >> lanes) & np.uint64(1)
    return np.asarray(bits.reshape(len(bits_BW), -1)[:, :num_values].astype(bool))


def filled_lanes(num_values: int) -> NDArray[np.uint64]:
    """(W,): mask of the lanes that hold a value."""
    return np.asarray(sliced(np.ones((1, num_values), dtype=np.uint16))[0, 0])


def _planes_shape(values_BN: Words) -> tuple[int, int, int]:
    return 8 * values_BN.dtype.itemsize, len(values_BN), num_words(values_BN.shape[1])


def _flat(bits: Words) -> Words:
    return np.ascontiguousarray(bits).reshape(2, bits.shape[1], -1)
