"""The asker's side: shares of a question out, shares of its answer in.

Suffixes: B probes, N pairs, M references, D embedding, W words of 64 lanes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ShapeError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._rounds import num_words, unsliced
from ppfr.secure._sharing import SharedRows, SharedThreshold, share_rows

Kind = Literal["verify", "any", "set", "best"]
_LANE_BITS = 6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """One party's part of a question.

    Attributes:
        party: 0..2, whom it is for.
        number: larger than that of any query of the session before; masks are drawn under it.
        kind: "verify" (is probe n accepted against reference n), "any" (does a probe have a match), "set" (which
            references match), "best" (the best match, if any).
        probes: the party's shares of them.
        threshold: integer (public), or the party's share of it.
        references_N: (N,) int64 for "verify", else None; public.

    Raises:
        InvalidInputError: parts that do not belong together.
    """

    party: int
    number: int
    kind: Kind
    probes: SharedRows
    threshold: int | SharedThreshold
    references_N: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidInputError(f"kind={self.kind!r} is not one of {', '.join(get_args(Kind))}")
        if (self.kind == "verify") != (self.references_N is not None):
            raise InvalidInputError("references are given for verify, and for nothing else")
        if self.references_N is not None and self.references_N.shape != (len(self.probes),):
            raise ShapeError(f"references have shape {self.references_N.shape}; give one for each of the probes")
        if isinstance(self.threshold, SharedThreshold) and self.threshold.party != self.party:
            raise InvalidInputError(
                f"the threshold is party {self.threshold.party}'s share; give party {self.party} its own"
            )

    def __repr__(self) -> str:
        return f"Query(party={self.party}, number={self.number}, kind={self.kind!r}, num={len(self.probes)})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """One party's part of an answer: for the asker alone, and nothing without the other two.

    Attributes:
        party: 0..2.
        number: the query's.
        kind: the query's.
        num_values: N for "verify", else M.
        words: uint64 component of the packed bits: (B, W) for "verify" (B = 1) and "set", (B, 1) for "any",
            (1 + J, B, 1) for "best".
    """

    party: int
    number: int
    kind: Kind
    num_values: int
    words: NDArray[np.uint64]

    def __repr__(self) -> str:
        return f"Answer(party={self.party}, number={self.number}, kind={self.kind!r}, words=<redacted>)"


def share_query(
    kind: Kind,
    probes_BD: ArrayLike,
    *,
    fixed_point: FixedPoint,
    threshold: float | Sequence[SharedThreshold],
    number: int,
    references_N: ArrayLike | None = None,
) -> tuple[Query, Query, Query]:
    """Split a question among three parties.

    Args:
        kind: as in `Query`.
        probes_BD: (B, D) of L2 norm 1.
        fixed_point: the gallery's.
        threshold: in [-1, 1], known to the parties, or the three shares of one that is hidden from them.
        number: as in `Query`.
        references_N: for "verify", the index of each probe's reference.

    Raises:
        ShapeError, RangeError, InvalidInputError: as for `share_rows`, `FixedPoint.integer_threshold` and `Query`.
    """
    if isinstance(threshold, int | float):
        thresholds: Sequence[int | SharedThreshold] = [fixed_point.integer_threshold(threshold)] * NUM_PARTIES
    else:
        thresholds = threshold
        if len(thresholds) != NUM_PARTIES:
            raise InvalidInputError(f"{len(thresholds)} shares of a threshold were given; give three")
    references = None if references_N is None else np.asarray(references_N, dtype=np.int64)
    parts = share_rows(probes_BD, fixed_point)
    first, second, third = (
        Query(party=i, number=number, kind=kind, probes=parts[i], threshold=thresholds[i], references_N=references)
        for i in range(NUM_PARTIES)
    )
    return first, second, third


def open_answers(answers: Sequence[Answer]) -> NDArray[Any]:
    """What the three parties' answers say together.

    Returns:
        "verify": (N,) bool. "any": (B,) bool. "set": (B, M) bool. "best": (B,) int64, -1 where none is accepted.

    Raises:
        InvalidInputError: not one answer of each party to one query.
    """
    if sorted(answer.party for answer in answers) != list(range(NUM_PARTIES)):
        raise InvalidInputError("answers of all three parties are needed, one of each")
    first = answers[0]
    alike = {(answer.number, answer.kind, answer.num_values, answer.words.shape) for answer in answers}
    if len(alike) != 1:
        raise InvalidInputError("the answers are to different queries; ask again")
    words = first.words ^ answers[1].words ^ answers[2].words
    if first.kind == "any":
        return np.asarray(words[:, 0] & np.uint64(1)).astype(bool)
    if first.kind == "best":
        return _best(words[:, :, 0].astype(np.int64) & 1, num_words(first.num_values))
    accepted = unsliced(words, first.num_values)
    return np.asarray(accepted[0] if first.kind == "verify" else accepted)


def _best(told_JB: NDArray[np.int64], num_words_of_lanes: int) -> NDArray[np.int64]:
    """Found, then the winner's word and lane -> its index, or -1."""
    found_B, index_JB = told_JB[0], told_JB[1:]
    weight_J1 = 1 << np.arange(len(index_JB))[:, None]
    split = len(index_JB) - _LANE_BITS
    word_B = (index_JB[:split] * weight_J1[:split]).sum(axis=0)
    lane_B = (index_JB[split:] * weight_J1[:_LANE_BITS]).sum(axis=0)
    return np.asarray(np.where(found_B == 1, lane_B * num_words_of_lanes + word_B, -1))
