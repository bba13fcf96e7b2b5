"""Oracles that a client can query: matchers that return scores in some form, and matchers that return decisions.

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


def _unchanged_rows(rows: Floats) -> Floats:
    return rows


def _exact_scores(scores: Floats, probes_QK: Floats) -> Floats:
    return scores


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRelease:
    """A matcher that returns its scores in some form, and the copy of it that the adversary simulates.

    Attributes:
        prepare: rows of norm 1 -> rows whose inner products are the scores.
        release: ((..., Q) scores, (Q, K) their prepared probes) -> (..., Q) values that the matcher returns.
    """

    prepare: Callable[[Floats], Floats] = _unchanged_rows
    release: Callable[[Floats, Floats], Floats] = _exact_scores

    def simulate(self, probes_QK: Floats, templates_PK: Floats) -> Floats:
        """(P, Q) values returned by a copy in which these templates are enrolled."""
        probes, templates = self.prepare(probes_QK), self.prepare(templates_PK)
        return self.release(templates @ probes.T, probes)

    def matcher(self, references_NK: Floats, threshold: float) -> OracleAnswers:
        """The deployed matcher. `threshold` is ignored, since the matcher returns scores."""
        references = self.prepare(references_NK)

        def query(probes_RK: Floats, targets_R: NDArray[np.int64]) -> Floats:
            probes = self.prepare(probes_RK)
            return self.release(np.einsum("rk,rk->r", probes, references[targets_R]), probes)

        return query


def fixed_point_scores(dim: int, values: Literal["int8", "int16"]) -> ScoreRelease:
    """Scores of embeddings that were rounded for secret sharing, revealed to the client."""
    point = FixedPoint(dim=dim, values=values)
    return ScoreRelease(prepare=lambda rows: point.signed(point.quantise(rows)) / point.scale)


def noisy_scores(deviation: float, *, seed: int) -> ScoreRelease:
    """Scores with normal noise of this standard deviation, drawn for each query."""
    rng = np.random.default_rng(seed)
    return ScoreRelease(release=lambda scores, probes: scores + deviation * rng.standard_normal(scores.shape))


def ranks_among(num_known: int, dim: int, *, seed: int) -> ScoreRelease:
    """Rank of the target among references that the adversary enrolled; with one reference, which is nearer."""
    known_AK = np.random.default_rng(seed).standard_normal((num_known, dim))
    known_AK /= np.linalg.norm(known_AK, axis=1, keepdims=True)

    def release(scores: Floats, probes_QK: Floats) -> Floats:
        rank = np.zeros(scores.shape)
        for known_K in known_AK:
            rank += scores > probes_QK @ known_K
        return rank

    return ScoreRelease(release=release)


def random_scores(*, seed: int) -> ScoreRelease:
    """Random scores that do not depend on templates: a negative control, on which attacks must be at chance level."""
    rng = np.random.default_rng(seed)
    return ScoreRelease(release=lambda scores, probes: 0.1 * rng.standard_normal(scores.shape))


def plain_decisions(references_NK: Floats, threshold: float) -> OracleAnswers:
    """Decisions on float scores."""
    return lambda probes_RK, targets_R: np.einsum("rk,rk->r", probes_RK, references_NK[targets_R]) >= threshold


def ring_decisions(values: Literal["int8", "int16"]) -> Callable[[Floats, float], OracleAnswers]:
    """Decisions of the three parties, computed from integers in the clear, for probes of any norm.

    The parties compute modulo 2^k, so the result for a probe with a large norm may have the wrong sign.
    """

    def reveal(references_NK: Floats, threshold: float) -> OracleAnswers:
        point = FixedPoint(dim=references_NK.shape[1], values=values)
        references, min_score = point.signed(point.quantise(references_NK)), point.integer_threshold(threshold)

        def query(probes_RK: Floats, targets_R: NDArray[np.int64]) -> NDArray[np.bool_]:
            probes = np.rint(probes_RK * point.scale).astype(np.int64)
            above_R = np.einsum("rk,rk->r", probes, references[targets_R]) - min_score
            return np.asarray(point.signed(above_R) >= 0)

        return query

    return reveal


def party_decisions(values: Literal["int8", "int16"]) -> Callable[[Floats, float], OracleAnswers]:
    """Decisions of the three parties, which run in this process."""

    def reveal(references_NK: Floats, threshold: float) -> OracleAnswers:
        matcher = ThreePartyMatcher(references_NK, values=values)

        def query(probes_RK: Floats, targets_R: NDArray[np.int64]) -> NDArray[Any]:
            return matcher.verify(probes_RK, [str(target) for target in targets_R], threshold=threshold)

        return query

    return reveal


def random_decisions(*, seed: int) -> Callable[[Floats, float], OracleAnswers]:
    """Random decisions: a negative control."""

    def reveal(references_NK: Floats, threshold: float) -> OracleAnswers:
        rng = np.random.default_rng(seed)
        return lambda probes_RK, targets_R: rng.random(len(targets_R)) < 0.5

    return reveal
