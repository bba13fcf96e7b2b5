"""Exact empirical error rates at every distinct score, for many weightings of the comparisons at once.

A score is accepted when `score >= threshold`. Suffixes: R resamples, N comparisons, T thresholds, descending, from
"accept none" to "accept all".
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError
from ppfr.metrics._bootstrap import Weights
from ppfr.metrics._estimate import Floats
from ppfr.metrics._inputs import finite_scores


class ScoreOrder:
    """The order of the scores, computed once and used for every weighting.

    Attributes:
        order_N: indices of the scores, highest first.
        threshold_T: infinity, then every distinct score, highest first.
        num_accepted_T: number of scores that each threshold accepts.
        is_genuine_N: genuine flags, in that order.
    """

    def __init__(self, score_N: Floats, is_genuine_N: NDArray[np.bool_]) -> None:
        self.order_N = np.argsort(-score_N, kind="stable")
        ordered = score_N[self.order_N]
        last_of_tie = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        self.threshold_T = np.concatenate([[np.inf], ordered[last_of_tie]])
        self.num_accepted_T = np.concatenate([[0], last_of_tie + 1])
        self.is_genuine_N = is_genuine_N[self.order_N]
        self._genuine = np.flatnonzero(self.is_genuine_N)
        self._impostor = np.flatnonzero(~self.is_genuine_N)
        # Numbers of genuine and of impostor scores that each threshold accepts.
        self._genuine_T = np.searchsorted(self._genuine, self.num_accepted_T)
        self._impostor_T = np.searchsorted(self._impostor, self.num_accepted_T)

    def index_of(self, threshold: ArrayLike) -> NDArray[np.intp]:
        """Index into the T axis of the lowest threshold >= `threshold`, which accepts the same scores."""
        return np.searchsorted(-self.threshold_T, -np.asarray(threshold), side="right") - 1

    def rates(self, weight_RN: Weights) -> tuple[Floats, Floats]:
        """(R, T) TAR and FMR under each row of weights (in the order of the scores).

        The TAR (FMR) of a row without genuine (impostor) weight is NaN.
        """
        return (
            _accepted_share(weight_RN, self._genuine, self._genuine_T),
            _accepted_share(weight_RN, self._impostor, self._impostor_T),
        )


def _accepted_share(weight_RN: Weights, columns: NDArray[np.intp], accepted_T: NDArray[np.intp]) -> Floats:
    summed = np.zeros((len(weight_RN), len(columns) + 1))
    np.cumsum(weight_RN[:, columns], axis=1, out=summed[:, 1:])
    with np.errstate(invalid="ignore"):
        return np.take(summed, accepted_T, axis=1) / summed[:, -1:]


def eer_of(tar_RT: Floats, fmr_RT: Floats) -> Floats:
    """(R,) EER: linear interpolation between the two thresholds around the crossing of FMR and FNMR."""
    gap_RT = fmr_RT - (1 - tar_RT)  # increases from -1 (accept none) to +1 (accept all)
    after = np.argmax(gap_RT >= 0, axis=1)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(gap_RT))
    gap_0, gap_1 = gap_RT[rows, before], gap_RT[rows, after]
    fmr_0, fmr_1 = fmr_RT[rows, before], fmr_RT[rows, after]
    with np.errstate(invalid="ignore"):
        return np.asarray(fmr_0 + gap_0 / (gap_0 - gap_1) * (fmr_1 - fmr_0))


def auc_of(tar_RT: Floats, fmr_RT: Floats) -> Floats:
    """(R,) area under the ROC curve; ties count one half."""
    return np.asarray(np.trapezoid(tar_RT, fmr_RT, axis=1))


def index_at_far(fmr_RT: Floats, far: float) -> NDArray[np.intp]:
    """(R,) index of the lowest threshold whose FMR is at most `far`."""
    # A FAR such as 3/3000 must admit three of 3000, however its last bit was rounded.
    return np.asarray(np.count_nonzero(fmr_RT <= far * (1 + 1e-9), axis=1) - 1)


def tar_at(tar_RT: Floats, fmr_RT: Floats, far: float) -> Floats:
    """(R,) TAR at the lowest threshold whose FMR is at most `far`; NaN if a row has no FMR."""
    tar_R = tar_RT[np.arange(len(tar_RT)), index_at_far(fmr_RT, far)]
    return np.where(np.isnan(fmr_RT[:, 0]), np.nan, tar_R)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roc:
    """The empirical ROC curve at every threshold, strictest first, without intervals (for plots and thresholds).

    Attributes:
        threshold_T: infinity (accepts none), then each distinct score, descending.
        fmr_T: share of impostor comparisons accepted, increasing from 0 to 1.
        tar_T: share of genuine comparisons accepted, increasing from 0 to 1.
        num_genuine: number of genuine comparisons.
        num_impostor: number of impostor comparisons.
    """

    threshold_T: Floats
    fmr_T: Floats
    tar_T: Floats
    num_genuine: int
    num_impostor: int

    @property
    def fnmr_T(self) -> Floats:
        """Share of genuine comparisons rejected."""
        return 1 - self.tar_T

    def eer(self) -> float:
        """Equal error rate."""
        return float(eer_of(self.tar_T[None], self.fmr_T[None])[0])

    def auc(self) -> float:
        """Area under the curve: the probability that a genuine score exceeds an impostor score; ties count one half."""
        return float(auc_of(self.tar_T[None], self.fmr_T[None])[0])

    def tar_at_far(self, far: float) -> float:
        """Share of genuine comparisons accepted at `threshold_at_far(far)`."""
        return float(tar_at(self.tar_T[None], self.fmr_T[None], _checked_far(far))[0])

    def threshold_at_far(self, far: float) -> float:
        """Lowest empirical threshold whose FMR is at most `far`; infinity if every score accepts too many."""
        return float(self.threshold_T[index_at_far(self.fmr_T[None], _checked_far(far))[0]])

    def thinned(self, num_points: int = 200) -> Roc:
        """About `num_points` of the points, spread over both axes and over log FMR, for a plot or a record."""
        if num_points < 4:
            raise InvalidInputError(f"num_points={num_points} is too small for a curve; use at least 4")
        third = np.linspace(0, 1, num_points // 3)
        least = 1 / self.num_impostor
        kept = np.unique(
            np.concatenate(
                [
                    [0, len(self.fmr_T) - 1],
                    np.searchsorted(self.fmr_T, third),
                    np.searchsorted(self.fmr_T, least ** (1 - third) * (1 + 1e-9), side="right") - 1,
                    np.searchsorted(self.tar_T, third),
                ]
            )
        )
        return dataclasses.replace(
            self, threshold_T=self.threshold_T[kept], fmr_T=self.fmr_T[kept], tar_T=self.tar_T[kept]
        )


def _checked_far(far: float) -> float:
    if not 0 <= far <= 1:
        raise RangeError(f"far={far} is not a rate; it must be in [0, 1], such as 1e-3")
    return far


def roc(genuine: ArrayLike, impostor: ArrayLike) -> Roc:
    """The exact empirical ROC curve of two sets of similarity scores.

    >>> curve = roc([0.9, 0.8, 0.4], [0.1, 0.2, 0.5])
    >>> round(curve.eer(), 4), round(curve.auc(), 4), round(curve.tar_at_far(0.0), 4)
    (0.3333, 0.8889, 0.6667)

    Args:
        genuine: scores of genuine comparisons, higher means more similar.
        impostor: scores of impostor comparisons.

    Raises:
        ShapeError: one of them is empty or not one-dimensional.
        RangeError: a score is not finite.
    """
    genuine_N, impostor_N = finite_scores(genuine, "genuine scores"), finite_scores(impostor, "impostor scores")
    score_N = np.concatenate([genuine_N, impostor_N])
    order = ScoreOrder(score_N, np.arange(len(score_N)) < len(genuine_N))
    tar_RT, fmr_RT = order.rates(np.ones((1, len(score_N)), dtype=np.float32))
    return Roc(
        threshold_T=order.threshold_T,
        fmr_T=fmr_RT[0],
        tar_T=tar_RT[0],
        num_genuine=len(genuine_N),
        num_impostor=len(impostor_N),
    )


def threshold_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float) -> float:
    """Lowest empirical threshold whose FMR is at most `far`; see `Roc.threshold_at_far`."""
    return roc(genuine, impostor).threshold_at_far(far)
