"""Recovery of templates from decisions at a fixed threshold (hill climbing on a decision oracle).

Suffixes: N targets, B targets of a block, K template values, P the adversary's own templates, T candidate probes,
L query budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.attacks._oracle_threats import check_own_templates, oracle_threat
from ppfr.core import (
    DecisionOracle,
    MatchOracle,
    OracleAttack,
    OracleResult,
    RangeError,
    ShapeError,
    ThreatModel,
    check_query_budgets,
    derive_seed,
    unit_norms,
)

Floats = NDArray[np.float64]
_BLOCK_SIZE = 16  # targets estimated together: their covariances stay in the cache
_SMALLEST = 1e-12
_INITIAL_VARIANCE_FACTOR = 1.5  # of the own templates' variances, so that a target far from their mean is still covered
_MAX_ALONG_MEAN = 0.98  # component of a probe along the mean: below 1, so that no probe is repeated


@final
class DecisionRecovery(OracleAttack):
    """Search a first acceptance, then send probes for which both decisions are about equally likely.

    **First acceptance.** The adversary presents its own templates. Those come first that most of its other templates
    would match at the threshold. Sums of two templates follow. This takes 1 / FMR probes on average. Until then the
    decisions carry almost no information.

    **Then about one bit per query.** The estimate of a target is a Gaussian over its template. It starts from the mean
    and the covariance of the adversary's own templates. The next probe has an expected score at the threshold and is
    turned towards a direction in which the estimate is uncertain. The decision cuts the remaining uncertainty about in
    half. The Gaussian then takes the moments of the posterior (assumed-density filtering with a probit likelihood).
    Bisection for points on the boundary needs b queries for a linear equation of b bits. The filter gets
    about one bit from each query.

    Args:
        noise: standard deviation of scores due to quantisation, which the adversary knows.
        longest: maximum norm of a probe. Use 1 if the matcher enforces norm 1. If it does not, a probe of norm c acts
            like a probe of norm 1 at the threshold divided by c, and no first acceptance is needed. The same holds if
            the client sets the threshold.
        settled_below: queries to a target stop when the variances of its template's values sum to this or less.

    Raises:
        RangeError: an argument out of range.

    Threat model:
        `oracle_threat(sees=DecisionOracle)`.

    References:
        arXiv 2601.17620: impersonation from binary answers to injected probes. The filter is this project's. Moments of
        a half-space: M. Opper, O. Winther, "A Bayesian approach to on-line learning", 1998.
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
        return oracle_threat(sees=DecisionOracle)

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments, for the record."""
        return {"noise": self._noise, "longest": self._longest, "settled_below": self._settled_below}

    def run(
        self,
        oracle: MatchOracle,
        own_PK: ArrayLike,
        *,
        starts_NK: ArrayLike | None = None,
        query_budgets: Sequence[int],
        seed: int,
    ) -> OracleResult:
        """Recover every target's template; see `OracleAttack.run`.

        If `starts_NK` is given, only these are presented as first probes. Before a target's first acceptance, its
        estimate is the probe that would be presented next. `notes` contains the share of targets that accepted a probe,
        and for these the median numbers of queries up to the first acceptance and after it.
        """
        self.needs.check(oracle, attack=self.name)
        assert isinstance(oracle, DecisionOracle)  # checked
        own_PK = check_own_templates(oracle, own_PK)
        progress = _Progress(check_query_budgets(query_budgets), oracle.num_targets, oracle.dim)
        rng = np.random.default_rng(derive_seed(seed, "decision recovery"))
        all_targets = np.arange(oracle.num_targets)
        if self._longest > 1:
            accepting, starts_BK = all_targets, None
        elif starts_NK is not None:
            accepting, starts_BK = _present_starts(oracle, starts_NK, progress)
        else:
            candidates_TK = _candidates(own_PK, progress.query_budgets[-1] + 1, oracle.threshold, rng)
            accepting, starts_BK = _search(oracle, candidates_TK, progress)
        num_before_N = progress.num_queries_N.copy()
        for first in range(0, len(accepting), _BLOCK_SIZE):
            rows = slice(first, first + _BLOCK_SIZE)
            estimate = _Estimate(own_PK, len(accepting[rows]), threshold=oracle.threshold, noise=self._noise)
            if starts_BK is not None:
                estimate.update(starts_BK[rows], np.ones(len(accepting[rows]), dtype=bool))
                progress.keep(accepting[rows], estimate.templates_BK())
            self._refine(oracle, accepting[rows], estimate, progress, rng)
        num_after_B = (progress.num_queries_N - num_before_N)[accepting]
        return OracleResult(
            query_budgets=progress.query_budgets,
            templates_LNK=progress.templates_LNK,
            num_queries_LN=progress.num_queries_LN,
            notes={
                "share_that_accepted": len(accepting) / len(all_targets),
                "median_queries_to_acceptance": float(np.median(num_before_N[accepting])) if len(accepting) else 0.0,
                "median_queries_after": float(np.median(num_after_B)) if len(accepting) else 0.0,
            },
        )

    def _refine(
        self,
        oracle: DecisionOracle,
        targets_B: NDArray[np.int64],
        estimate: _Estimate,
        progress: _Progress,
        rng: np.random.Generator,
    ) -> None:
        """Query until the templates are settled or the last budget is spent."""
        while len(targets_B):
            probes_BK = estimate.balanced_probes(self._longest, rng)
            estimate.update(probes_BK, oracle.query(probes_BK, targets_B))
            progress.num_queries_N[targets_B] += 1
            is_left = estimate.is_open(self._settled_below)
            is_left &= progress.num_queries_N[targets_B] < progress.query_budgets[-1]
            is_due = ~is_left | np.isin(progress.num_queries_N[targets_B], progress.query_budgets)
            if is_due.any():
                progress.keep(targets_B[is_due], estimate.templates_BK()[is_due])
            if not is_left.all():
                targets_B = targets_B[is_left]
                estimate.narrow(is_left)


def _candidates(own_PK: Floats, num: int, threshold: float, rng: np.random.Generator) -> Floats:
    """(num, K) probes in the order in which they are presented."""
    num_matching_P = np.array([np.count_nonzero(own_PK @ row_K >= threshold) for row_K in own_PK])
    ordered_PK = own_PK[np.argsort(-num_matching_P, kind="stable")]
    first, second = rng.integers(len(own_PK), size=(2, max(0, num - len(own_PK))))
    return np.concatenate([ordered_PK, _unit(own_PK[first] + own_PK[second])])[:num]


def _search(oracle: DecisionOracle, candidates_TK: Floats, progress: _Progress) -> tuple[NDArray[np.int64], Floats]:
    """Present one candidate after the other.

    Returns:
        Targets that accepted one within the last budget, and the candidate that each accepted.
    """
    waiting, accepted_N = np.arange(oracle.num_targets), np.zeros(oracle.num_targets, dtype=np.int64)
    progress.begin(candidates_TK)
    for number, probe_K in enumerate(candidates_TK[: progress.query_budgets[-1]]):
        if not len(waiting):
            break
        is_accepted = oracle.query(np.tile(probe_K, (len(waiting), 1)), waiting)
        accepted_N[waiting[is_accepted]] = number + 1
        progress.num_queries_N[waiting] += 1
        waiting = waiting[~is_accepted]
    accepting = np.flatnonzero(accepted_N)
    return accepting, candidates_TK[accepted_N[accepting] - 1]


def _present_starts(
    oracle: DecisionOracle, starts_NK: ArrayLike, progress: _Progress
) -> tuple[NDArray[np.int64], Floats]:
    """As `_search`, with one given probe per target."""
    starts = np.asarray(starts_NK, dtype=np.float64)
    all_targets = np.arange(oracle.num_targets)
    if starts.shape != (len(all_targets), oracle.dim):
        raise ShapeError(f"starts have shape {starts.shape}; give ({len(all_targets)}, {oracle.dim})")
    unit_norms(starts, "starts")
    is_accepted = oracle.query(starts, all_targets)
    progress.num_queries_N += 1
    progress.keep(all_targets, starts)
    return all_targets[is_accepted], starts[is_accepted]


class _Progress:
    """The estimate of each target's template at each query budget, and the numbers of queries."""

    def __init__(self, query_budgets: list[int], num_targets: int, dim: int) -> None:
        self.query_budgets = query_budgets
        self.num_queries_N = np.zeros(num_targets, dtype=np.int64)
        self.templates_LNK = np.tile(np.eye(1, dim), (len(query_budgets), num_targets, 1))
        self.num_queries_LN = np.tile(np.array(query_budgets)[:, None], num_targets)

    def begin(self, candidates_TK: Floats) -> None:
        """Estimate each target that accepts nothing by the candidate that would be presented next."""
        self.templates_LNK[:] = candidates_TK[self.query_budgets][:, None]

    def keep(self, targets_B: NDArray[np.int64], rows_BK: Floats) -> None:
        """Set estimates for all budgets that the present number of queries is within.

        Later calls replace them at larger budgets.
        """
        for level, budget in enumerate(self.query_budgets):
            reached = self.num_queries_N[targets_B] <= budget
            self.templates_LNK[level, targets_B[reached]] = rows_BK[reached]
            self.num_queries_LN[level, targets_B[reached]] = self.num_queries_N[targets_B[reached]]


class _Estimate:
    """A Gaussian over each target's template.

    Each update is exact: mean and covariance are the moments of the earlier Gaussian given the new decision.
    """

    def __init__(self, own_PK: Floats, num: int, *, threshold: float, noise: float) -> None:
        self._threshold, self._noise = threshold, noise
        self._mean_BK = np.tile(own_PK.mean(axis=0), (num, 1))
        self._covariance_BKK = np.tile(_INITIAL_VARIANCE_FACTOR * np.cov(own_PK.T), (num, 1, 1))

    def templates_BK(self) -> Floats:
        """Means, scaled to norm 1."""
        return _unit(self._mean_BK)

    def is_open(self, settled_below: float) -> NDArray[np.bool_]:
        """(B,): whether the variances sum to more than this."""
        return np.asarray(np.trace(self._covariance_BKK, axis1=1, axis2=2) > settled_below)

    def narrow(self, is_left: NDArray[np.bool_]) -> None:
        """Keep these targets only."""
        self._mean_BK, self._covariance_BKK = self._mean_BK[is_left], self._covariance_BKK[is_left]

    def balanced_probes(self, longest: float, rng: np.random.Generator) -> Floats:
        """(B, K) probes whose expected score is the threshold, turned towards an uncertain direction."""
        length_B1 = np.maximum(np.linalg.norm(self._mean_BK, axis=1, keepdims=True), _SMALLEST)
        mean_BK = self._mean_BK / length_B1
        uncertain_BK = rng.standard_normal(self._mean_BK.shape)
        for _ in range(2):  # steps of the power method; more would always return the same direction
            uncertain_BK = _unit(_times(self._covariance_BKK, uncertain_BK))
            if longest == 1:
                uncertain_BK = _unit(uncertain_BK - _dot(uncertain_BK, mean_BK) * mean_BK)
        if longest > 1:  # any direction: the length moves the threshold to the expected score
            expected_B1 = _dot(uncertain_BK, self._mean_BK)
            length = np.clip(self._threshold / np.maximum(np.abs(expected_B1), _SMALLEST), 1, longest)
            return np.where(expected_B1 < 0, -1.0, 1.0) * length * uncertain_BK
        along_B1 = np.minimum(self._threshold / length_B1, _MAX_ALONG_MEAN)
        result: Floats = along_B1 * mean_BK + np.sqrt(1 - along_B1**2) * uncertain_BK
        return result

    def update(self, probes_BK: Floats, is_accepted_B: NDArray[np.bool_]) -> None:
        """Take the moments of the Gaussian times the likelihood of the decisions."""
        from scipy.special import log_ndtr

        sign_B1 = np.where(is_accepted_B, 1.0, -1.0)[:, None]
        moved_BK = _times(self._covariance_BKK, probes_BK)
        blur_B1 = self._noise**2 * _dot(probes_BK, probes_BK)
        spread_B1 = np.sqrt(np.maximum(_dot(probes_BK, moved_BK), 0) + blur_B1 + _SMALLEST)
        place_B1 = sign_B1 * (_dot(probes_BK, self._mean_BK) - self._threshold) / spread_B1
        # Density over probability of a normal, by logarithms: both underflow where the decision was very unlikely.
        pull_B1 = np.exp(-0.5 * place_B1**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(place_B1))
        self._mean_BK += sign_B1 * pull_B1 / spread_B1 * moved_BK
        shrink_B1 = pull_B1 * (pull_B1 + place_B1) / spread_B1**2
        self._covariance_BKK -= (shrink_B1 * moved_BK)[:, :, None] * moved_BK[:, None, :]


def _dot(a_BK: Floats, b_BK: Floats) -> Floats:
    result: Floats = np.einsum("bk,bk->b", a_BK, b_BK)[:, None]
    return result


def _times(matrix_BKK: Floats, rows_BK: Floats) -> Floats:
    return np.asarray((matrix_BKK @ rows_BK[:, :, None])[:, :, 0])


def _unit(rows_BK: Floats) -> Floats:
    result: Floats = rows_BK / np.maximum(np.linalg.norm(rows_BK, axis=1, keepdims=True), _SMALLEST)
    return result
