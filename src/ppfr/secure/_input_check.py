"""The parties' check of a client's inputs, under sharing: it opens nothing but whether all is well.

A client can share any words, and give two parties different copies of a component. The check accepts inputs if

1. the two parties that hold a component have the same copy of it: each sends a hash to the other holder;
2. every coordinate y is small. With K the width of the words, e a quarter of it and z = y + 2^(e-1), t is the sum of
   the upper parts, from bit e, of two summands of z: party 0 knows z_0 + z_1, and parties 1 and 2 know z_2. If
   0 <= z < 2^e, then t is 0 or -1 modulo 2^(K-e). In turn, if t is 0 or -1, then -2^e <= z < 2^(e+1). So the equation
   is 2^e t (t + 1) = 0, modulo 2^K;
3. every bit is a bit: the column c is 0 or -1, thus c (c + 1) = 0;
4. the squared norm is within `FixedPoint.squared_norm_bounds`, a range of which the bits can express every value and no
   other: <y, y> - low + sum of w c = 0. It does not overflow, since the coordinates are small.

Products of shared values are additive shares without communication. All equations are therefore multiplied by random
words that no client can know, summed, and tested for zero: the parties re-share the sums, and each compares a hash of
what it knows of them with a hash of what it lacks.

Soundness. Multiplied by one random word, equations that do not all hold modulo 2^(K-c) add up to zero with probability
2^-(c+1) at most. All that follows from the equations, and the lower halves of the words, needs them only modulo a
2^(K-c) that exceeds the largest sum of squares, 2.25 D 2^(2 e). So many random words are taken that bad inputs pass
with probability 2^-64 at most.

Suffixes: D embedding, P bits, X = D + P columns, N inputs, L random words for each equation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ppfr.core import InputCheckError, Keystream
from ppfr.secure._channel import Buffer
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._inputs import SharedInputs
from ppfr.secure._rounds import Rounds, as_bytes

CHALLENGE_BYTES = 32
HASH_BYTES = 32
_ERROR_BITS = 64
_ROWS_AT_ONCE = 512


@final
class InputCheck:
    """The check of one request's inputs at one party. All three parties call the methods in the same order.

    Args:
        inputs: the party's shares.
        rounds: the request's communication.
        challenge: 32 random bytes, equal at the three parties, drawn after all of them had received the inputs.

    Privacy:
        Another party sees masked words and hashes: of a component that it holds itself, and of a value that it knows if
        the inputs are those of a client that follows the protocol.
    """

    def __init__(self, inputs: SharedInputs, rounds: Rounds, challenge: bytes) -> None:
        self._inputs, self._rounds, self._challenge = inputs, rounds, challenge
        self._party, self._point = inputs.party, inputs.fixed_point
        self._upper: list[NDArray[Any]] = []
        self._copies_agree = self._sums_are_zero = False
        self._sums_2L = np.zeros((2, _num_sums(self._point)), dtype=self._point.wide_dtype)

    def open(self, statement: bytes) -> None:
        """Send the previous party a statement and a hash of the own component; party 0 also shares its upper parts."""
        self._rounds.send(statement + _hash(b"copy", self._inputs.words_2NX[0]))
        words_2ND = self._inputs.words_2NX[:, :, : self._point.dim]
        half = self._point.ring_bits // 2
        if self._party == 0:
            offset = self._point.wide_dtype.type(1 << (half - 1))
            mask_ND = self._rounds.masks.next.words(words_2ND.shape[1:], self._point.wide_dtype)
            rest_ND = ((words_2ND[0] + words_2ND[1] + offset) >> half) - mask_ND
            self._rounds.send(as_bytes(rest_ND))
            self._upper = [rest_ND, mask_ND]
        elif self._party == 1:
            mask_ND = self._rounds.masks.own.words(words_2ND.shape[1:], self._point.wide_dtype)
            self._upper = [mask_ND, words_2ND[1] >> half]
        else:
            self._upper = [words_2ND[0] >> half]

    def receive_opening(self, statement: bytes) -> None:
        """Receive what the next party sent in `open`.

        Raises:
            PartyError: it has another statement.
        """
        num = len(statement)
        received = bytes(self._rounds.receive(num + HASH_BYTES))
        self._rounds.check_statement(statement, received[:num])
        self._copies_agree = received[num:] == _hash(b"copy", self._inputs.words_2NX[1])
        if len(self._upper) == 1:
            own_ND = self._upper[0]
            rest = self._rounds.receive(own_ND.nbytes)
            self._upper.append(np.frombuffer(rest, dtype=own_ND.dtype).reshape(own_ND.shape))

    def sums(self) -> bytes:
        """The party's masked shares of the random sums, for the previous party; after `receive_opening`."""
        upper_2ND = np.stack(self._upper)
        total_L = self._rounds.masks.of_sum(_num_sums(self._point), self._point.wide_dtype)
        stream = Keystream(self._challenge, 0)
        for rows in _chunks(len(self._inputs)):
            equation_NX = self._equations(upper_2ND[:, rows], self._inputs.words_2NX[:, rows])
            for place in range(len(total_L)):
                factor_NX = stream.words(equation_NX.shape, equation_NX.dtype)
                total_L[place : place + 1] += (factor_NX * equation_NX).sum(dtype=equation_NX.dtype)
        self._sums_2L[0] = total_L
        return bytes(as_bytes(total_L))

    def hash_of_lacking(self, sums_of_next: Buffer) -> bytes:
        """Take the next party's shares of the sums; return a hash of them for the previous party, which lacks them."""
        self._sums_2L[1] = np.frombuffer(sums_of_next, dtype=self._point.wide_dtype)
        return _hash(b"sums", -self._sums_2L[1])

    def compare_sums(self, hash_of_lacking: Buffer) -> None:
        """Compare the next party's hash with that of the two shares here, which are equal if the sums are 0."""
        self._sums_are_zero = bytes(hash_of_lacking) == _hash(b"sums", self._sums_2L[0] + self._sums_2L[1])

    def conclude(self) -> None:
        """Raise InputCheckError unless all is well. The party must not send or store a result before."""
        if not self._copies_agree:
            raise InputCheckError(
                "The client gave two parties different shares of one input. Nothing was computed for it. Check which "
                "program the client runs."
            )
        if not self._sums_are_zero:
            raise InputCheckError(
                "The client's input is not an embedding of norm 1 in the format of the gallery. Nothing was computed "
                "for it. Check which program the client runs."
            )

    def run_alone(self, statement: bytes) -> None:
        """The whole check in rounds of its own, for inputs that nothing is computed with yet.

        Raises:
            PartyError: another party has another statement.
            InputCheckError: as `conclude`.
        """
        self.open(statement)
        self.receive_opening(statement)
        self.compare_sums(self._rounds.exchange(self.hash_of_lacking(self._rounds.exchange(self.sums()))))
        self.conclude()

    def _equations(self, upper_2ND: NDArray[Any], words_2NX: NDArray[Any]) -> NDArray[Any]:
        """(N, X + 1): additive shares of the left sides, in the order of the columns; the norm's is the last."""
        point, dim = self._point, self._point.dim
        low, _ = point.squared_norm_bounds
        weights_P = np.array(point.slack_weights, dtype=point.wide_dtype)
        small_ND = (_square(upper_2ND) + upper_2ND[0]) << (point.ring_bits // 2)
        bits_2NP = words_2NX[:, :, dim:]
        norm_N = _square(words_2NX[:, :, :dim]).sum(axis=1, dtype=point.wide_dtype)
        norm_N += (bits_2NP[0] * weights_P).sum(axis=1, dtype=point.wide_dtype)
        if self._party == 0:
            norm_N -= point.wide_dtype.type(low)
        return np.concatenate([small_ND, _square(bits_2NP) + bits_2NP[0], norm_N[:, None]], axis=1)


def _num_sums(point: FixedPoint) -> int:
    """L: so many random sums that bad inputs pass with probability 2^-`_ERROR_BITS` at most."""
    width = 8 * point.wide_dtype.itemsize
    largest_sum = 9 * point.dim << (point.ring_bits - 2)
    bits_of_one = width - largest_sum.bit_length() + 1
    return -(-_ERROR_BITS // bits_of_one)


def _square(shared: NDArray[Any]) -> NDArray[Any]:
    """(2, ...) replicated shares -> the party's additive share of the squares."""
    return np.asarray(shared[0] * (shared[0] + 2 * shared[1]))


def _chunks(num: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, num, _ROWS_AT_ONCE))


def _hash(purpose: bytes, words: NDArray[Any]) -> bytes:
    digest = hashlib.sha256(b"ppfr input check " + purpose)
    digest.update(np.ascontiguousarray(words).reshape(-1).view(np.uint8).data)
    return digest.digest()
