"""Matchers as whoever may ask them meets them: those that tell a score in some form, and those that tell yes or no.

Suffixes: N targets, R queries, Q probes, P templates, K template values, A references that the adversary enrolled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppfr.core import OracleAnswers
from ppfr.secure import FixedPoint, ThreePartyMatcher

Floats = NDArray[np.float64]


def _as_they_are(rows: Floats) -> Floats:
    return rows


def _told_whole(scores: Floats, probes_QK: Floats) -> Floats:
    return scores


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTelling:
    """A matcher that tells something of its scores: what an adversary asks, and the copy of it that he runs himself.

    Attributes:
        prepare: rows of norm 1 -> rows whose inner products are the scores.
        tell: ((..., Q) scores, (Q, K) the prepared probes that they are of) -> (..., Q) what is told of them.
    """

    prepare: Callable[[Floats], Floats] = _as_they_are
    tell: Callable[[Floats, Floats], Floats] = _told_whole

    def simulate(self, probes_QK: Floats, templates_PK: Floats) -> Floats:
        """(P, Q) answers of a copy in which these templates are enrolled."""
        probes, templates = self.prepare(probes_QK), self.prepare(templates_PK)
        return self.tell(templates @ probes.T, probes)

    def matcher(self, references_NK: Floats, threshold: float) -> OracleAnswers:
        """The deployed one; scores have no threshold."""
        references = self.prepare(references_NK)

        def answer(probes_RK: Floats, targets_R: NDArray[np.int64]) -> Floats:
            probes = self.prepare(probes_RK)
            return self.tell(np.einsum("rk,rk->r", probes, references[targets_R]), probes)

        return answer


def fixed_point_scores(dim: int, values: Literal["int8", "int16"]) -> ScoreTelling:
    """Scores of embeddings that were rounded for sharing, opened to the asker."""
    point = FixedPoint(dim=dim, values=values)
    return ScoreTelling(prepare=lambda rows: point.signed(point.quantise(rows)) / point.scale)


def noisy_scores(deviation: float, *, seed: int) -> ScoreTelling:
    """Normal noise of this standard deviation on every score; fresh for each query."""
    rng = np.random.default_rng(seed)
    return ScoreTelling(tell=lambda scores, probes: scores + deviation * rng.standard_normal(scores.shape))


def ranks_among(num_known: int, dim: int, *, seed: int) -> ScoreTelling:
    """The target's place in a ranked list, among references that the adversary enrolled; with one, which is nearer."""
    known_AK = np.random.default_rng(seed).standard_normal((num_known, dim))
    known_AK /= np.linalg.norm(known_AK, axis=1, keepdims=True)

    def tell(scores: Floats, probes_QK: Floats) -> Floats:
        place = np.zeros(scores.shape)
        for known_K in known_AK:
            place += scores > probes_QK @ known_K
        return place

    return ScoreTelling(tell=tell)


def random_scores(*, seed: int) -> ScoreTelling:
    """A matcher whose answers have nothing to do with anybody: what an attack must not get anything from."""
    rng = np.random.default_rng(seed)
    return ScoreTelling(tell=lambda scores, probes: 0.1 * rng.standard_normal(scores.shape))


def plain_decisions(references_NK: Floats, threshold: float) -> OracleAnswers:
    """Decisions on float scores."""
    return lambda probes_RK, targets_R: np.einsum("rk,rk->r", probes_RK, references_NK[targets_R]) >= threshold


def ring_decisions(values: Literal["int8", "int16"]) -> Callable[[Floats, float], OracleAnswers]:
    """Decisions of the three parties, from integers in the clear: of probes of any length, as the ring takes them.

    What the parties compute is modulo 2^k, so that a probe that is too long may come out with the wrong sign.
    """

    def reveal(references_NK: Floats, threshold: float) -> OracleAnswers:
        point = FixedPoint(dim=references_NK.shape[1], values=values)
        references, least = point.signed(point.quantise(references_NK)), point.integer_threshold(threshold)

        def answer(probes_RK: Floats, targets_R: NDArray[np.int64]) -> NDArray[np.bool_]:
            probes = np.rint(probes_RK * point.scale).astype(np.int64)
            above_R = np.einsum("rk,rk->r", probes, references[targets_R]) - least
            return np.asarray(point.signed(above_R) >= 0)

        return answer

    return reveal


def party_decisions(values: Literal["int8", "int16"]) -> Callable[[Floats, float], OracleAnswers]:
    """Decisions of the three parties themselves, in this process."""

    def reveal(references_NK: Floats, threshold: float) -> OracleAnswers:
        matcher = ThreePartyMatcher(references_NK, values=values)

        def answer(probes_RK: Floats, targets_R: NDArray[np.int64]) -> NDArray[Any]:
            return matcher.verify(probes_RK, [str(target) for target in targets_R], threshold=threshold)

        return answer

    return reveal


def random_decisions(*, seed: int) -> Callable[[Floats, float], OracleAnswers]:
    """Yes or no by the toss of a coin."""

    def reveal(references_NK: Floats, threshold: float) -> OracleAnswers:
        rng = np.random.default_rng(seed)
        return lambda probes_RK, targets_R: rng.random(len(targets_R)) < 0.5

    return reveal
