"""Replicated secret sharing, two out of three: x = x_0 + x_1 + x_2 in the ring; party i holds x_i and x_(i+1).

Two components are drawn uniformly, so that what one party holds is uniform whatever x is; any two parties together hold
x. Suffixes: D embedding, N rows, W = 2 D words of one shared row: the own component, then the next party's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import ID_BYTES, InvalidInputError, ShapeError, new_reference_ids
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._keystream import KEY_BYTES, Keystream

_HELD = tuple((i, (i + 1) % NUM_PARTIES) for i in range(NUM_PARTIES))
_NUM_SEEDED = NUM_PARTIES - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedRows:
    """What one party holds of N shared embeddings.

    Attributes:
        party: 0..2, whom it is for.
        fixed_point: how they were made integers; public.
        ids_N16: (N, 16) uint8, one random number for each sharing; public and the same at all three parties, so that
            components of different sharings, which would add up to noise, are told apart before anything is computed.
        words_NW: (N, 2 D) ring elements: component `party`, then component `party` + 1.

    Raises:
        ShapeError, InvalidInputError: arrays that do not fit together, or no such party.

    Privacy:
        The words of one party are uniform and say nothing. Two parties' words together are the embeddings.
    """

    party: int
    fixed_point: FixedPoint
    ids_N16: NDArray[np.uint8]
    words_NW: NDArray[Any]

    def __post_init__(self) -> None:
        _check_party(self.party)
        num, width = len(self.words_NW), 2 * self.fixed_point.dim
        if self.words_NW.shape != (num, width) or self.ids_N16.shape != (num, ID_BYTES):
            raise ShapeError(
                f"words have shape {self.words_NW.shape} and ids {self.ids_N16.shape}; "
                f"give (N, {width}) and (N, {ID_BYTES})"
            )
        if self.words_NW.dtype != self.fixed_point.dtype or self.ids_N16.dtype != np.uint8:
            raise InvalidInputError(
                f"words are {self.words_NW.dtype} and ids {self.ids_N16.dtype}; give {self.fixed_point.dtype}, uint8"
            )

    def __len__(self) -> int:
        return len(self.words_NW)

    @classmethod
    def concatenate(cls, parts: Sequence[SharedRows]) -> SharedRows:
        """One gallery of several enrolments.

        Raises:
            InvalidInputError: nothing, or parts of different parties or parameters.
        """
        if not parts:
            raise InvalidInputError("there is nothing to concatenate; give at least one part")
        first = parts[0]
        if any(part.party != first.party or part.fixed_point != first.fixed_point for part in parts):
            raise InvalidInputError("parts are of different parties or of different fixed-point parameters")
        return cls(
            party=first.party,
            fixed_point=first.fixed_point,
            ids_N16=np.concatenate([part.ids_N16 for part in parts]),
            words_NW=np.concatenate([part.words_NW for part in parts]),
        )

    def digest(self) -> bytes:
        """32 bytes over parameters and ids, in order: equal at all three parties, and public."""
        return hashlib.sha256(repr(self.fixed_point).encode() + np.ascontiguousarray(self.ids_N16).tobytes()).digest()

    def __repr__(self) -> str:
        return f"SharedRows(party={self.party}, num={len(self)}, {self.fixed_point}, words=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeededRows:
    """One party's part of a sharing as it travels: components 0 and 1 as the seeds that they are drawn under.

    Attributes:
        party: 0..2, whom it is for.
        fixed_point: as in `SharedRows`.
        ids_N16: as in `SharedRows`.
        seeds: 16 bytes for each seeded component that the party holds, in its order: two of party 0, one of the others.
        rest_ND: (N, D) ring elements of component 2, what is left of the embeddings; None at party 0, which has none.

    Raises:
        ShapeError, InvalidInputError: parts that do not fit together.

    Privacy:
        As for `SharedRows`: seeds are random, and component 2 is uniform to whoever lacks one of them.
    """

    party: int
    fixed_point: FixedPoint
    ids_N16: NDArray[np.uint8]
    seeds: tuple[bytes, ...]
    rest_ND: NDArray[Any] | None

    def __post_init__(self) -> None:
        _check_party(self.party)
        held = _HELD[self.party]
        if (self.rest_ND is not None) != (_NUM_SEEDED in held):
            raise InvalidInputError(f"component {_NUM_SEEDED} is given to parties 1 and 2, and to no other")
        if [len(seed) for seed in self.seeds] != [KEY_BYTES for k in held if k < _NUM_SEEDED]:
            raise InvalidInputError(f"seeds are not those of party {self.party}; give {KEY_BYTES} bytes for each")

    def expanded(self) -> SharedRows:
        """What the party holds.

        Raises:
            ShapeError, InvalidInputError: as for `SharedRows`.
            MissingExtraError: `cryptography` is not installed.
        """
        point, num = self.fixed_point, len(self.ids_N16)
        if self.rest_ND is not None and self.rest_ND.shape != (num, point.dim):
            raise ShapeError(f"component 2 has shape {self.rest_ND.shape}; give ({num}, {point.dim})")
        words_NW = np.empty((num, 2 * point.dim), dtype=point.dtype)
        seeds = iter(self.seeds)
        for place, component in enumerate(_HELD[self.party]):
            columns = words_NW[:, place * point.dim : (place + 1) * point.dim]
            if component < _NUM_SEEDED:
                columns[:] = Keystream(next(seeds), 0).words((num, point.dim), point.dtype)
            else:
                columns[:] = self.rest_ND
        return SharedRows(party=self.party, fixed_point=point, ids_N16=self.ids_N16, words_NW=words_NW)

    def __repr__(self) -> str:
        return f"SeededRows(party={self.party}, num={len(self.ids_N16)}, {self.fixed_point}, contents=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedThreshold:
    """What one party holds of a threshold that no party is to know.

    Attributes:
        party: 0..2.
        fixed_point: whose scores it is for.
        sharing: 16 random bytes, the same at all three parties.
        words_2: component `party`, then component `party` + 1.
    """

    party: int
    fixed_point: FixedPoint
    sharing: bytes
    words_2: NDArray[Any]

    def __post_init__(self) -> None:
        _check_party(self.party)
        if self.words_2.shape != (2,) or self.words_2.dtype != self.fixed_point.dtype:
            raise ShapeError(f"a shared threshold has shape {self.words_2.shape}; give two ring elements")

    def __repr__(self) -> str:
        return f"SharedThreshold(party={self.party}, words=<redacted>)"


def share_rows(embeddings_ND: ArrayLike, fixed_point: FixedPoint) -> tuple[SharedRows, SharedRows, SharedRows]:
    """Split embeddings among three parties; each part goes to its party alone.

    Args:
        embeddings_ND: (N, D) of L2 norm 1.
        fixed_point: of dim D.

    Raises:
        ShapeError: not (N, D) with N >= 1.
        RangeError: not finite, or not of norm 1.
        MissingExtraError: `cryptography` is not installed.
    """
    first, second, third = (part.expanded() for part in seeded_rows(embeddings_ND, fixed_point))
    return first, second, third


def seeded_rows(embeddings_ND: ArrayLike, fixed_point: FixedPoint) -> tuple[SeededRows, SeededRows, SeededRows]:
    """Split embeddings among three parties, each part as it travels: a third of the bytes of `share_rows`.

    Raises:
        ShapeError, RangeError, MissingExtraError: as for `share_rows`.
    """
    words_ND = fixed_point.quantise(embeddings_ND)
    seeds = tuple(os.urandom(KEY_BYTES) for _ in range(_NUM_SEEDED))
    rest_ND = words_ND - sum(Keystream(seed, 0).words(words_ND.shape, words_ND.dtype) for seed in seeds)
    ids_N16 = new_reference_ids(len(words_ND))
    first, second, third = (
        SeededRows(
            party=i,
            fixed_point=fixed_point,
            ids_N16=ids_N16,
            seeds=tuple(seeds[k] for k in held if k < _NUM_SEEDED),
            rest_ND=rest_ND if _NUM_SEEDED in held else None,
        )
        for i, held in enumerate(_HELD)
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
            words_2=np.concatenate([components[i], components[(i + 1) % NUM_PARTIES]]),
        )
        for i in range(NUM_PARTIES)
    )
    return first, second, third


def reconstruct_rows(one: SharedRows, other: SharedRows) -> NDArray[np.int64]:
    """(N, D) integers of two parties' shares: what an owner of both can read.

    Raises:
        InvalidInputError: shares of one party, or of different sharings.
    """
    if one.party == other.party:
        raise InvalidInputError(f"both shares are party {one.party}'s; give those of two parties")
    if one.digest() != other.digest():
        raise InvalidInputError("the shares are of different embeddings; give those of one sharing")
    if (one.party + 1) % NUM_PARTIES != other.party:
        one, other = other, one
    dim = one.fixed_point.dim
    total_ND = one.words_NW[:, :dim] + one.words_NW[:, dim:] + other.words_NW[:, dim:]
    return one.fixed_point.signed(total_ND)


def _check_party(party: int) -> None:
    if party not in range(NUM_PARTIES):
        raise InvalidInputError(f"party {party} does not exist; parties are 0, 1 and 2")


def _split(words: NDArray[Any]) -> list[NDArray[Any]]:
    """Three components of the same shape, two of them drawn under a key of the operating system."""
    stream = Keystream(os.urandom(KEY_BYTES), 0)
    drawn = [stream.words(words.shape, words.dtype) for _ in range(NUM_PARTIES - 1)]
    return [*drawn, words - drawn[0] - drawn[1]]
