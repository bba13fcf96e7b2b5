"""What a client sends of an embedding: shares that the parties can check before they use them.

A client can share any words. The parties therefore receive embeddings in the ring of twice the width, where a sum of
squares does not overflow, together with the bits of the distance of their squared norm to its lower bound; see
`InputCheck`. The lower halves of the words are the shares that the parties compute with.

Suffixes: D embedding, P bits of the distance, X = D + P columns of an input, N inputs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import ID_BYTES, InvalidInputError, Keystream, ShapeError, new_reference_ids
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._keystream import KEY_BYTES
from ppfr.secure._sharing import HELD_COMPONENTS, SharedRows, check_party

_NUM_SEEDED = NUM_PARTIES - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedInputs:
    """One party's shares of N inputs of a client.

    Attributes:
        party: 0..2, the recipient.
        fixed_point: conversion to integers; public.
        ids_N16: (N, 16) uint8, as in `SharedRows`.
        words_2NX: (2, N, X) words of `fixed_point.wide_dtype`: component `party`, then component `party` + 1. The first
            D columns are the embedding, in two's complement. The others are 0 or -1: minus the bits by which
            `fixed_point.slack_weights` add up to the squared norm less its lower bound.

    Raises:
        ShapeError, InvalidInputError: inconsistent arrays, or a party outside 0..2.

    Privacy:
        As for `SharedRows`.
    """

    party: int
    fixed_point: FixedPoint
    ids_N16: NDArray[np.uint8]
    words_2NX: NDArray[Any]

    def __post_init__(self) -> None:
        check_party(self.party)
        shape = (2, len(self.ids_N16), _num_columns(self.fixed_point))
        if self.words_2NX.shape != shape or self.ids_N16.shape != (shape[1], ID_BYTES):
            raise ShapeError(
                f"Expected words of shape {shape} and ids of shape (N, {ID_BYTES}), "
                f"got {self.words_2NX.shape} and {self.ids_N16.shape}."
            )
        if self.words_2NX.dtype != self.fixed_point.wide_dtype or self.ids_N16.dtype != np.uint8:
            raise InvalidInputError(
                f"Expected words of type {self.fixed_point.wide_dtype} and ids of type uint8, "
                f"got {self.words_2NX.dtype} and {self.ids_N16.dtype}."
            )

    def __len__(self) -> int:
        return len(self.ids_N16)

    def rows(self) -> SharedRows:
        """The lower halves of the words of the embeddings: shares of the same integers in the ring."""
        words_2ND = self.words_2NX[:, :, : self.fixed_point.dim].astype(self.fixed_point.dtype)
        return SharedRows(
            party=self.party,
            fixed_point=self.fixed_point,
            ids_N16=self.ids_N16,
            words_NW=np.concatenate(list(words_2ND), axis=1),
        )

    def digest(self) -> bytes:
        """32-byte hash of parameters and ids in order; public and equal at all three parties."""
        return hashlib.sha256(repr(self.fixed_point).encode() + np.ascontiguousarray(self.ids_N16).tobytes()).digest()

    def __repr__(self) -> str:
        return f"SharedInputs(party={self.party}, num={len(self)}, {self.fixed_point}, words=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeededInputs:
    """One party's shares in transport form: components 0 and 1 are replaced by the seeds that generate them.

    Attributes:
        party: 0..2, the recipient.
        fixed_point: as in `SharedInputs`.
        ids_N16: as in `SharedInputs`.
        seeds: 16 bytes for each seeded component of the party, in its order: two for party 0, one for the others.
        rest_NX: (N, X) words of component 2, the inputs minus components 0 and 1; None for party 0.

    Raises:
        ShapeError, InvalidInputError: inconsistent parts.

    Privacy:
        As for `SharedInputs`: seeds are random, and component 2 is uniform for a party that lacks one of them.
    """

    party: int
    fixed_point: FixedPoint
    ids_N16: NDArray[np.uint8]
    seeds: tuple[bytes, ...]
    rest_NX: NDArray[Any] | None

    def __post_init__(self) -> None:
        check_party(self.party)
        held = HELD_COMPONENTS[self.party]
        if (self.rest_NX is not None) != (_NUM_SEEDED in held):
            raise InvalidInputError(f"Component {_NUM_SEEDED} must be given for parties 1 and 2, and only for them.")
        num_seeds = sum(k < _NUM_SEEDED for k in held)
        if [len(seed) for seed in self.seeds] != [KEY_BYTES] * num_seeds:
            raise InvalidInputError(f"Expected {num_seeds} seeds of {KEY_BYTES} bytes for party {self.party}.")

    def expanded(self) -> SharedInputs:
        """Generate the party's shares from the seeds.

        Raises:
            ShapeError, InvalidInputError: as for `SharedInputs`.
        """
        point = self.fixed_point
        shape = (len(self.ids_N16), _num_columns(point))
        if self.rest_NX is not None and self.rest_NX.shape != shape:
            raise ShapeError(f"Expected component 2 of shape {shape}, got {self.rest_NX.shape}.")
        words_2NX = np.empty((2, *shape), dtype=point.wide_dtype)
        seeds = iter(self.seeds)
        for place, component in enumerate(HELD_COMPONENTS[self.party]):
            words_2NX[place] = _seeded(next(seeds), shape, point) if component < _NUM_SEEDED else self.rest_NX
        return SharedInputs(party=self.party, fixed_point=point, ids_N16=self.ids_N16, words_2NX=words_2NX)

    def __repr__(self) -> str:
        return f"SeededInputs(party={self.party}, num={len(self.ids_N16)}, {self.fixed_point}, contents=<redacted>)"


def share_inputs(embeddings_ND: ArrayLike, fixed_point: FixedPoint) -> tuple[SharedInputs, SharedInputs, SharedInputs]:
    """Split embeddings among three parties as inputs; send each part to its party only.

    Raises:
        ShapeError, RangeError: as for `share_rows`.
    """
    first, second, third = (part.expanded() for part in seeded_inputs(embeddings_ND, fixed_point))
    return first, second, third


def seeded_inputs(embeddings_ND: ArrayLike, fixed_point: FixedPoint) -> tuple[SeededInputs, SeededInputs, SeededInputs]:
    """Split embeddings among three parties in transport form, a third of the bytes of `share_inputs`.

    Raises:
        ShapeError, RangeError: as for `share_rows`.
    """
    return seeded_words(input_words(fixed_point.signed(fixed_point.quantise(embeddings_ND)), fixed_point), fixed_point)


def seeded_words(words_NX: NDArray[Any], fixed_point: FixedPoint) -> tuple[SeededInputs, SeededInputs, SeededInputs]:
    """Split the words of inputs, which may be any."""
    seeds = tuple(os.urandom(KEY_BYTES) for _ in range(_NUM_SEEDED))
    rest_NX = words_NX - sum(_seeded(seed, words_NX.shape, fixed_point) for seed in seeds)
    ids_N16 = new_reference_ids(len(words_NX))
    first, second, third = (
        SeededInputs(
            party=i,
            fixed_point=fixed_point,
            ids_N16=ids_N16,
            seeds=tuple(seeds[k] for k in held if k < _NUM_SEEDED),
            rest_NX=rest_NX if _NUM_SEEDED in held else None,
        )
        for i, held in enumerate(HELD_COMPONENTS)
    )
    return first, second, third


def input_words(values_ND: NDArray[np.int64], fixed_point: FixedPoint) -> NDArray[Any]:
    """(N, D) integers -> (N, X) words of the inputs; the bits are right if the norms are within the bounds."""
    low, _ = fixed_point.squared_norm_bounds
    *powers, rest = fixed_point.slack_weights
    distance_N = np.square(values_ND).sum(axis=1) - low
    has_rest_N = distance_N >= 1 << len(powers)
    bits_NP = ((distance_N - rest * has_rest_N)[:, None] >> np.arange(len(powers))) & 1
    words_NX = np.concatenate([values_ND, -bits_NP, -has_rest_N[:, None].astype(np.int64)], axis=1)
    return words_NX.astype(fixed_point.wide_dtype)


def bytes_per_input(fixed_point: FixedPoint) -> int:
    """Memory that a party needs for one input and the row that is taken from it."""
    of_input = 2 * _num_columns(fixed_point) * fixed_point.wide_dtype.itemsize
    return of_input + 2 * fixed_point.dim * fixed_point.dtype.itemsize


def _num_columns(point: FixedPoint) -> int:
    return point.dim + len(point.slack_weights)


def _seeded(seed: bytes, shape: tuple[int, ...], point: FixedPoint) -> NDArray[Any]:
    return Keystream(seed, 0).words(shape, point.wide_dtype)
