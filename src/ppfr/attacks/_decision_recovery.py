"""Templates from yes and no alone, at a fixed threshold.

Suffixes: N targets, B targets of a block, K template values, P the adversary's own templates, L budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.attacks._query_threats import check_queries, queries_threat, unit_templates
from ppfr.core import (
    MatchInterface,
    QueryAttack,
    QueryResult,
    RangeError,
    ShapeError,
    ThreatModel,
    check_budgets,
    derive_seed,
)

Floats = NDArray[np.float64]
_BLOCK = 16  # beliefs worked on side by side: their covariances stay in cache
_SMALLEST = 1e-12
_WIDER = 1.5  # the first Gaussian's variances over those of the own templates: a target that lies far out is not lost
_MOST_ALONG = 0.98  # of a probe lies along the mean, so that no probe is asked twice


@final
class DecisionRecovery(QueryAttack):
    """Look for a first acceptance among one's own faces, then ask where one expects yes and no to be equally likely.

    **First acceptance.** Own templates are presented, those first that are accepted as most others of one's own, then
    sums of two of them. It takes 1 / FMR probes on average, and until then every answer says next to nothing.

    **Then one bit a query.** What is known of a target is kept as a Gaussian, begun with mean and covariance of the own
    templates. The next probe lies where its mean says that the score is the threshold, turned towards a direction in
    which the template is least known; the answer halves what is left, and the Gaussian is moved to the moments of the
    half (assumed-density filtering; the likelihood of a decision is a probit). Bisection for points on the boundary,
    each a linear equation for the template, spends b queries on one equation to b bits; this spends each query where
    it tells most.

    Args:
        noise: standard deviation of scores through quantisation, as the adversary knows it.
        longest: greatest length of a probe. 1 where the matcher sees to it that probes have norm 1. Where it does not,
            a probe of length c is a probe of norm 1 at the threshold / c, so that no first acceptance is needed; the
            same holds where the asker sets the threshold.
        settled_below: a target is left alone once the variances of its template's values sum to this.

    Raises:
        RangeError: an argument outside what is stated.

    Threat model:
        `queries_threat(sees="decisions")`.

    References:
        arXiv 2601.17620: impersonation from binary answers to injected probes. The filter is ours; moments of a
        half-space: M. Opper, O. Winther, "A Bayesian approach to on-line learning", 1998.
    """

    def __init__(self, *, noise: float = 0.0, longest: float = 1.0, settled_below: float = 1e-3) -> None:
        if not (noise >= 0 and longest >= 1 and settled_below > 0):
            raise RangeError(
                f"noise={noise}, longest={longest}, settled_below={settled_below}; "
                "allowed is noise >= 0, longest >= 1, settled_below > 0"
            )
        self._noise, self._longest, self._settled_below = float(noise), float(longest), float(settled_below)

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "decision-recovery"

    @property
    def needs(self) -> ThreatModel:
        """Decisions on chosen probes."""
        return queries_threat(sees="decisions")

    def public_config(self) -> Mapping[str, Any]:
        """Its dials, for the record."""
        return {"noise": self._noise, "longest": self._longest, "settled_below": self._settled_below}

    def run(
        self,
        interface: MatchInterface,
        own_PK: ArrayLike,
        *,
        starts_NK: ArrayLike | None = None,
        budgets: Sequence[int],
        seed: int,
    ) -> QueryResult:
        """Recover every target's template; see `QueryAttack.run`.

        With `starts_NK` these are presented and nothing else is tried. Before a target's first acceptance it is taken
        to be the next probe that would be presented. `notes` holds the share of targets that accepted a probe, and the
        median number of queries of these up to there and from there on.
        """
        own_PK = check_queries(interface, own_PK, self.needs, attack=self.name)
        course = _Course(check_budgets(budgets), interface.num_targets, interface.dim)
        rng = np.random.default_rng(derive_seed(seed, "decision recovery"))
        everybody = np.arange(interface.num_targets)
        if self._longest > 1:
            begun, starts_BK = everybody, None
        elif starts_NK is not None:
            begun, starts_BK = _presented(interface, starts_NK, course)
        else:
            tried_TK = _tried(own_PK, course.budgets[-1] + 1, interface.threshold, rng)
            begun, starts_BK = _searched(interface, tried_TK, course)
        num_before_N = course.num_asked_N.copy()
        for first in range(0, len(begun), _BLOCK):
            rows = slice(first, first + _BLOCK)
            belief = _Belief(own_PK, len(begun[rows]), threshold=interface.threshold, noise=self._noise)
            if starts_BK is not None:
                belief.learn(starts_BK[rows], np.ones(len(begun[rows]), dtype=bool))
                course.keep(begun[rows], belief.guess_BK())
            self._close_in(interface, begun[rows], belief, course, rng)
        num_after_B = (course.num_asked_N - num_before_N)[begun]
        return QueryResult(
            budgets=course.budgets,
            templates_LNK=course.found_LNK,
            num_asked_LN=course.used_LN,
            notes={
                "share_that_accepted": len(begun) / len(everybody),
                "median_queries_to_acceptance": float(np.median(num_before_N[begun])) if len(begun) else 0.0,
                "median_queries_after": float(np.median(num_after_B)) if len(begun) else 0.0,
            },
        )

    def _close_in(
        self,
        interface: MatchInterface,
        targets_B: NDArray[np.int64],
        belief: _Belief,
        course: _Course,
        rng: np.random.Generator,
    ) -> None:
        """Ask until templates are settled or the last budget is spent."""
        while len(targets_B):
            probes_BK = belief.even_probes(self._longest, rng)
            belief.learn(probes_BK, interface.ask(probes_BK, targets_B))
            course.num_asked_N[targets_B] += 1
            is_left = belief.is_open(self._settled_below) & (course.num_asked_N[targets_B] < course.budgets[-1])
            is_due = ~is_left | np.isin(course.num_asked_N[targets_B], course.budgets)
            if is_due.any():
                course.keep(targets_B[is_due], belief.guess_BK()[is_due])
            if not is_left.all():
                targets_B = targets_B[is_left]
                belief.narrow(is_left)


def _tried(own_PK: Floats, num: int, threshold: float, rng: np.random.Generator) -> Floats:
    """(num, K) probes in the order in which they are presented."""
    num_alike_P = np.array([np.count_nonzero(own_PK @ row_K >= threshold) for row_K in own_PK])
    ordered_PK = own_PK[np.argsort(-num_alike_P, kind="stable")]
    first, second = rng.integers(len(own_PK), size=(2, max(0, num - len(own_PK))))
    return np.concatenate([ordered_PK, _unit(own_PK[first] + own_PK[second])])[:num]


def _searched(interface: MatchInterface, tried_TK: Floats, course: _Course) -> tuple[NDArray[np.int64], Floats]:
    """Present one probe after the other: who accepted one within the last budget, and which."""
    waiting, found_N = np.arange(interface.num_targets), np.zeros(interface.num_targets, dtype=np.int64)
    course.begin(tried_TK)
    for number, probe_K in enumerate(tried_TK[: course.budgets[-1]]):
        if not len(waiting):
            break
        is_accepted = interface.ask(np.tile(probe_K, (len(waiting), 1)), waiting)
        found_N[waiting[is_accepted]] = number + 1
        course.num_asked_N[waiting] += 1
        waiting = waiting[~is_accepted]
    begun = np.flatnonzero(found_N)
    return begun, tried_TK[found_N[begun] - 1]


def _presented(interface: MatchInterface, starts_NK: ArrayLike, course: _Course) -> tuple[NDArray[np.int64], Floats]:
    """The same where there is one probe for each."""
    starts = np.asarray(starts_NK, dtype=np.float64)
    everybody = np.arange(interface.num_targets)
    if starts.shape != (len(everybody), interface.dim):
        raise ShapeError(f"starts have shape {starts.shape}; give ({len(everybody)}, {interface.dim})")
    unit_templates(starts, what="starts")
    is_accepted = np.asarray(interface.ask(starts, everybody), dtype=bool)
    course.num_asked_N += 1
    course.keep(everybody, starts)
    return everybody[is_accepted], starts[is_accepted]


class _Course:
    """What each target is taken to be, by budget, and how often it was asked."""

    def __init__(self, budgets: list[int], num_targets: int, dim: int) -> None:
        self.budgets = budgets
        self.num_asked_N = np.zeros(num_targets, dtype=np.int64)
        self.found_LNK = np.tile(np.eye(1, dim), (len(budgets), num_targets, 1))
        self.used_LN = np.tile(np.array(budgets)[:, None], num_targets)

    def begin(self, tried_TK: Floats) -> None:
        """Whoever accepts nothing is taken to be the probe that would come next."""
        self.found_LNK[:] = tried_TK[self.budgets][:, None]

    def keep(self, targets_B: NDArray[np.int64], rows_BK: Floats) -> None:
        """What these are taken to be from the present number of queries on; later calls overrule it for larger ones."""
        for level, budget in enumerate(self.budgets):
            reached = self.num_asked_N[targets_B] <= budget
            self.found_LNK[level, targets_B[reached]] = rows_BK[reached]
            self.used_LN[level, targets_B[reached]] = self.num_asked_N[targets_B[reached]]


class _Belief:
    """A Gaussian over each target's template; both moments are exact for the last answer, given those before."""

    def __init__(self, own_PK: Floats, num: int, *, threshold: float, noise: float) -> None:
        self._threshold, self._noise = threshold, noise
        self._mean_BK = np.tile(own_PK.mean(axis=0), (num, 1))
        self._covariance_BKK = np.tile(_WIDER * np.cov(own_PK.T), (num, 1, 1))

    def guess_BK(self) -> Floats:
        """Means, of norm 1."""
        return _unit(self._mean_BK)

    def is_open(self, settled_below: float) -> NDArray[np.bool_]:
        """(B,) the variances sum to more than this."""
        return np.asarray(np.trace(self._covariance_BKK, axis1=1, axis2=2) > settled_below)

    def narrow(self, is_left: NDArray[np.bool_]) -> None:
        """Go on with these targets."""
        self._mean_BK, self._covariance_BKK = self._mean_BK[is_left], self._covariance_BKK[is_left]

    def even_probes(self, longest: float, rng: np.random.Generator) -> Floats:
        """(B, K) probes whose expected score is the threshold, turned to where the template is least known."""
        length_B1 = np.maximum(np.linalg.norm(self._mean_BK, axis=1, keepdims=True), _SMALLEST)
        mean_BK = self._mean_BK / length_B1
        unsure_BK = rng.standard_normal(self._mean_BK.shape)
        for _ in range(2):  # steps of the power method; more would go back to the same direction again and again
            unsure_BK = _unit(_times(self._covariance_BKK, unsure_BK))
            if longest == 1:
                unsure_BK = _unit(unsure_BK - _dot(unsure_BK, mean_BK) * mean_BK)
        if longest > 1:  # any direction will do: its length moves the threshold to where the mean lies
            expected_B1 = _dot(unsure_BK, self._mean_BK)
            length = np.clip(self._threshold / np.maximum(np.abs(expected_B1), _SMALLEST), 1, longest)
            return np.where(expected_B1 < 0, -1.0, 1.0) * length * unsure_BK
        along_B1 = np.minimum(self._threshold / length_B1, _MOST_ALONG)
        return along_B1 * mean_BK + np.sqrt(1 - along_B1**2) * unsure_BK

    def learn(self, probes_BK: Floats, is_accepted_B: NDArray[np.bool_]) -> None:
        """Moments of the Gaussian times the probability of the answer."""
        from scipy.special import log_ndtr

        sign_B1 = np.where(is_accepted_B, 1.0, -1.0)[:, None]
        moved_BK = _times(self._covariance_BKK, probes_BK)
        blur_B1 = self._noise**2 * _dot(probes_BK, probes_BK)
        spread_B1 = np.sqrt(np.maximum(_dot(probes_BK, moved_BK), 0) + blur_B1 + _SMALLEST)
        place_B1 = sign_B1 * (_dot(probes_BK, self._mean_BK) - self._threshold) / spread_B1
        # density over probability of a normal, by logarithms: both vanish where an answer was not expected at all
        pull_B1 = np.exp(-0.5 * place_B1**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(place_B1))
        self._mean_BK += sign_B1 * pull_B1 / spread_B1 * moved_BK
        shrink_B1 = pull_B1 * (pull_B1 + place_B1) / spread_B1**2
        self._covariance_BKK -= (shrink_B1 * moved_BK)[:, :, None] * moved_BK[:, None, :]


def _dot(a_BK: Floats, b_BK: Floats) -> Floats:
    return np.einsum("bk,bk->b", a_BK, b_BK)[:, None]


def _times(matrix_BKK: Floats, rows_BK: Floats) -> Floats:
    return np.asarray((matrix_BKK @ rows_BK[:, :, None])[:, :, 0])


def _unit(rows_BK: Floats) -> Floats:
    return rows_BK / np.maximum(np.linalg.norm(rows_BK, axis=1, keepdims=True), _SMALLEST)
