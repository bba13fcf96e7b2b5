"""Replicated secret sharing, two out of three: x = x_0 + x_1 + x_2 in the ring; party i holds x_i and x_(i+1).

Two components are drawn uniformly, so the components of one party are uniform for every x; any two parties together can
reconstruct x. Suffixes: D embedding, N rows, W = 2 D words of one shared row: the own component, then the next party's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import ID_BYTES, InvalidInputError, Keystream, ShapeError, new_reference_ids
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._keystream import KEY_BYTES

HELD_COMPONENTS = tuple((i, (i + 1) % NUM_PARTIES) for i in range(NUM_PARTIES))
"""The components that each party holds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedRows:
    """One party's shares of N embeddings.

    Attributes:
        party: 0..2, the recipient.
        fixed_point: conversion to integers; public.
        ids_N16: (N, 16) uint8, a random id of each sharing; public and equal at all three parties. The parties compare
            ids before they compute: components of different sharings would add up to noise.
        words_NW: (N, 2 D) ring elements: component `party`, then component `party` + 1.

    Raises:
        ShapeError, InvalidInputError: inconsistent arrays, or a party outside 0..2.

    Privacy:
        The words of one party are uniform and reveal nothing. The words of two parties reveal the embeddings.
    """

    party: int
    fixed_point: FixedPoint
    ids_N16: NDArray[np.uint8]
    words_NW: NDArray[Any]

    def __post_init__(self) -> None:
        check_party(self.party)
        num, width = len(self.words_NW), 2 * self.fixed_point.dim
        if self.words_NW.shape != (num, width) or self.ids_N16.shape != (num, ID_BYTES):
            raise ShapeError(
                f"Expected words of shape (N, {width}) and ids of shape (N, {ID_BYTES}), "
                f"got {self.words_NW.shape} and {self.ids_N16.shape}."
            )
        if self.words_NW.dtype != self.fixed_point.dtype or self.ids_N16.dtype != np.uint8:
            raise InvalidInputError(
                f"Expected words of type {self.fixed_point.dtype} and ids of type uint8, "
                f"got {self.words_NW.dtype} and {self.ids_N16.dtype}."
            )

    def __len__(self) -> int:
        return len(self.words_NW)

    @classmethod
    def concatenate(cls, parts: Sequence[SharedRows]) -> SharedRows:
        """Concatenate several enrolments into one gallery.

        Raises:
            InvalidInputError: no parts, or parts of different parties or parameters.
        """
        if not parts:
            raise InvalidInputError("Expected at least one part to concatenate, got none.")
        first = parts[0]
        if any(part.party != first.party or part.fixed_point != first.fixed_point for part in parts):
            raise InvalidInputError("The parts belong to different parties or use different fixed-point parameters.")
        return cls(
            party=first.party,
            fixed_point=first.fixed_point,
            ids_N16=np.concatenate([part.ids_N16 for part in parts]),
            words_NW=np.concatenate([part.words_NW for part in parts]),
        )

    def digest(self) -> bytes:
        """32-byte hash of parameters and ids in order; public and equal at all three parties."""
        return hashlib.sha256(repr(self.fixed_point).encode() + np.ascontiguousarray(self.ids_N16).tobytes()).digest()

    def __repr__(self) -> str:
        return f"SharedRows(party={self.party}, num={len(self)}, {self.fixed_point}, words=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedThreshold:
    """One party's share of a threshold that is hidden from all parties.

    Attributes:
        party: 0..2.
        fixed_point: parameters of the scores.
        sharing: 16 random bytes, equal at all three parties.
        words_2: component `party`, then component `party` + 1.
    """

    party: int
    fixed_point: FixedPoint
    sharing: bytes
    words_2: NDArray[Any]

    def __post_init__(self) -> None:
        check_party(self.party)
        if self.words_2.shape != (2,) or self.words_2.dtype != self.fixed_point.dtype:
            raise ShapeError(
                f"Expected two {self.fixed_point.dtype} words, got {self.words_2.shape} of {self.words_2.dtype}."
            )

    def __repr__(self) -> str:
        return f"SharedThreshold(party={self.party}, words=<redacted>)"


def share_rows(embeddings_ND: ArrayLike, fixed_point: FixedPoint) -> tuple[SharedRows, SharedRows, SharedRows]:
    """Split embeddings among three parties; send each part to its party only.

    Args:
        embeddings_ND: (N, D) of L2 norm 1.
        fixed_point: parameters with `dim` D.

    Raises:
        ShapeError: not (N, D) with N >= 1.
        RangeError: not finite, or not of norm 1.
    """
    words_ND = fixed_point.quantise(embeddings_ND)
    ids_N16 = new_reference_ids(len(words_ND))
    components = _split(words_ND)
    first, second, third = (
        SharedRows(
            party=i,
            fixed_point=fixed_point,
            ids_N16=ids_N16,
            words_NW=np.concatenate([components[k] for k in held], axis=1),
        )
        for i, held in enumerate(HELD_COMPONENTS)
    )
    return first, second, third


def share_threshold(
    threshold: float, fixed_point: FixedPoint
) -> tuple[SharedThreshold, SharedThreshold, SharedThreshold]:
    """Split a threshold among three parties.

    Raises:
        RangeError: not in [-1, 1].
    """
    integer = fixed_point.integer_threshold(threshold)
    components = _split(np.array([integer], dtype=np.int64).astype(fixed_point.dtype))
    sharing = os.urandom(16)
    first, second, third = (
        SharedThreshold(
            party=i,
            fixed_point=fixed_point,
            sharing=sharing,
            words_2=np.concatenate([components[k] for k in held]),
        )
        for i, held in enumerate(HELD_COMPONENTS)
    )
    return first, second, third


def reconstruct_rows(one: SharedRows, other: SharedRows) -> NDArray[np.int64]:
    """Reconstruct (N, D) integers from the shares of two parties.

    Raises:
        InvalidInputError: both shares belong to one party, or to different sharings.
    """
    if one.party == other.party:
        raise InvalidInputError(f"Both shares belong to party {one.party}. Pass the shares of two parties.")
    if one.digest() != other.digest():
        raise InvalidInputError("The shares belong to different sharings. Pass the shares of one sharing.")
    if (one.party + 1) % NUM_PARTIES != other.party:
        one, other = other, one
    dim = one.fixed_point.dim
    total_ND = one.words_NW[:, :dim] + one.words_NW[:, dim:] + other.words_NW[:, dim:]
    return one.fixed_point.signed(total_ND)


def check_party(party: int) -> None:
    """Raise InvalidInputError unless the party is 0, 1 or 2."""
    if party not in range(NUM_PARTIES):
        raise InvalidInputError(f"party must be 0, 1 or 2, got {party}.")


def _split(words: NDArray[Any]) -> list[NDArray[Any]]:
    """Three components of the same shape, two of them drawn with a key from the operating system."""
    stream = Keystream(os.urandom(KEY_BYTES), 0)
    drawn = [stream.words(words.shape, words.dtype) for _ in range(NUM_PARTIES - 1)]
    return [*drawn, words - drawn[0] - drawn[1]]
