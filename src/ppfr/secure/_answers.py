"""The client's side of the protocol: splits a query into shares and opens the shares of its answer.

Suffixes: B probes, N claims, R references of a claim, M references, D embedding, W words of 64 lanes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, PartyError, ShapeError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._inputs import SharedInputs, share_inputs
from ppfr.secure._rounds import num_words, unsliced
from ppfr.secure._sharing import SharedThreshold

Kind = Literal["verify", "any", "set", "best"]
_LANE_BITS = 6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """One party's share of a query.

    Attributes:
        party: 0..2, the recipient.
        kind: "verify" (is probe n accepted against any reference of claim n), "any" (does a probe have a match), "set"
            (which references match), "best" (the best match, if any).
        probes: the party's shares of the probes.
        threshold: an integer that the parties may know, or the party's share of a hidden one.
        references_NR: (N, R) int64 for "verify", else None; the references of each claim, of which one may be repeated;
            public.

    Raises:
        InvalidInputError: the parts are inconsistent.
        ShapeError: another number of claims than of probes, or claims without references.
    """

    party: int
    kind: Kind
    probes: SharedInputs
    threshold: int | SharedThreshold
    references_NR: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidInputError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}.")
        if (self.kind == "verify") != (self.references_NR is not None):
            raise InvalidInputError("`references_NR` is required for kind 'verify' and not allowed for other kinds.")
        shape = () if self.references_NR is None else self.references_NR.shape
        if self.references_NR is not None and (len(shape) != 2 or shape[0] != len(self.probes) or shape[1] == 0):
            raise ShapeError(f"Expected references of shape ({len(self.probes)}, R), got {shape}.")
        if isinstance(self.threshold, SharedThreshold) and self.threshold.party != self.party:
            raise InvalidInputError(
                f"The threshold is the share of party {self.threshold.party}; pass party {self.party} its own share."
            )

    def __repr__(self) -> str:
        return f"Query(party={self.party}, kind={self.kind!r}, num={len(self.probes)})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """One party's share of an answer, for the client only; it reveals nothing without the other two shares.

    Attributes:
        party: 0..2.
        kind: as in the query.
        num_values: N for "verify", else M.
        words: uint64, the party's component of the packed bits, then its copy of the next party's: (2, 1, W) for
            "verify", (2, B, W) for "set", (2, B, 1) for "any", (2, 1 + J, B, 1) for "best".
    """

    party: int
    kind: Kind
    num_values: int
    words: NDArray[np.uint64]

    def __repr__(self) -> str:
        return f"Answer(party={self.party}, kind={self.kind!r}, words=<redacted>)"


def share_query(
    kind: Kind,
    probes_BD: ArrayLike,
    *,
    fixed_point: FixedPoint,
    threshold: float | Sequence[SharedThreshold],
    references_NR: ArrayLike | None = None,
) -> tuple[Query, Query, Query]:
    """Split a query among three parties.

    Args:
        kind: as in `Query`.
        probes_BD: (B, D) of L2 norm 1.
        fixed_point: that of the gallery.
        threshold: in [-1, 1] and visible to the parties, or the three shares of a hidden one.
        references_NR: only for "verify": the indices of the references of each claim.

    Raises:
        ShapeError, RangeError, InvalidInputError: as for `share_rows`, `FixedPoint.integer_threshold` and `Query`.
    """
    if isinstance(threshold, int | float):
        thresholds: Sequence[int | SharedThreshold] = [fixed_point.integer_threshold(threshold)] * NUM_PARTIES
    else:
        thresholds = threshold
        if len(thresholds) != NUM_PARTIES:
            raise InvalidInputError(f"Expected three shares of a threshold, got {len(thresholds)}.")
    references = None if references_NR is None else np.asarray(references_NR, dtype=np.int64)
    parts = share_inputs(probes_BD, fixed_point)
    first, second, third = (
        Query(party=i, kind=kind, probes=parts[i], threshold=thresholds[i], references_NR=references)
        for i in range(NUM_PARTIES)
    )
    return first, second, third


def open_answers(answers: Sequence[Answer]) -> NDArray[Any]:
    """Combine the answers of the three parties.

    Returns:
        "verify": (N,) bool. "any": (B,) bool. "set": (B, M) bool. "best": (B,) int64, -1 where none is accepted.

    Raises:
        InvalidInputError: not exactly one answer from each party, or answers to different queries.
        PartyError: the two holders of a component returned different ones.
    """
    answers = sorted(answers, key=lambda answer: answer.party)
    if [answer.party for answer in answers] != list(range(NUM_PARTIES)):
        raise InvalidInputError("Expected one answer from each of all three parties.")
    first = answers[0]
    variants = {(answer.kind, answer.num_values, answer.words.shape) for answer in answers}
    if len(variants) != 1:
        raise InvalidInputError("The answers belong to different queries. Send the query again.")
    for answer, other in zip(answers, [*answers[1:], first], strict=True):
        if not np.array_equal(answer.words[1], other.words[0]):
            raise PartyError(
                f"Parties {answer.party} and {other.party} returned different copies of one part of the answer: one of "
                "them deviates from the protocol, or the query was mixed up. The answer was discarded."
            )
    words = first.words[0] ^ answers[1].words[0] ^ answers[2].words[0]
    if first.kind == "any":
        return np.asarray(words[:, 0] & np.uint64(1)).astype(bool)
    if first.kind == "best":
        return _best(words[:, :, 0].astype(np.int64) & 1, num_words(first.num_values))
    accepted = unsliced(words, first.num_values)
    return np.asarray(accepted[0] if first.kind == "verify" else accepted)


def _best(opened_JB: NDArray[np.int64], num_words_of_lanes: int) -> NDArray[np.int64]:
    """Bits of "found", the winner's word and its lane -> the winner's index, or -1."""
    found_B, index_JB = opened_JB[0], opened_JB[1:]
    weight_J1 = 1 << np.arange(len(index_JB))[:, None]
    split = len(index_JB) - _LANE_BITS
    word_B = (index_JB[:split] * weight_J1[:split]).sum(axis=0)
    lane_B = (index_JB[split:] * weight_J1[:_LANE_BITS]).sum(axis=0)
    return np.asarray(np.where(found_B == 1, lane_B * num_words_of_lanes + word_B, -1))
