"""Accuracy over folds: the threshold of each fold is chosen on the other folds only.

Suffixes: R resamples, N comparisons ordered by score, T thresholds.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ShapeError
from ppfr.metrics._bootstrap import Weights
from ppfr.metrics._estimate import Floats
from ppfr.metrics._inputs import Labels, finite_scores, subject_index
from ppfr.metrics._roc import ScoreOrder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldAccuracy:
    """Accuracy of each fold at the threshold chosen on the others.

    Attributes:
        mean: mean over folds.
        std: standard deviation over folds with divisor F, as papers print after the plus-minus sign.
        standard_error: standard deviation with divisor F - 1, divided by the root of F, as defined on LFW's web page.
        accuracy_F: accuracy of each fold.
        threshold_F: threshold of each fold.
        n: number of comparisons.
    """

    mean: float
    std: float
    standard_error: float
    accuracy_F: Floats
    threshold_F: Floats
    n: int


class FoldSplit:
    """The folds of ordered scores."""

    def __init__(self, order: ScoreOrder, fold_N: NDArray[np.int64], num_folds: int) -> None:
        self._order = order
        ordered_fold_N = fold_N[order.order_N]
        self._members = [np.flatnonzero(ordered_fold_N == f) for f in range(num_folds)]
        self._gain_N = np.where(order.is_genuine_N, 1, -1).astype(np.float32)

    def evaluate(self, weight_RN: Weights) -> tuple[Floats, Floats]:
        """(R, F) accuracy and threshold of each fold under each row of weights (in the order of the scores).

        Accepting one more genuine comparison adds its weight, and one more impostor subtracts it. The best running sum
        over the other folds gives the best threshold; ties are resolved by the strictest. The threshold is the midpoint
        of the lowest accepted and the highest rejected score of the other folds, which gives the same decisions there.
        """
        gain_RN = weight_RN * self._gain_N
        results = [self._one_fold(weight_RN, gain_RN, members) for members in self._members]
        return np.stack([a for a, _ in results], axis=1), np.stack([t for _, t in results], axis=1)

    def _one_fold(self, weight_RN: Weights, gain_RN: Weights, members: NDArray[np.intp]) -> tuple[Floats, Floats]:
        order = self._order
        training_RN = weight_RN.copy()
        training_RN[:, members] = 0
        running = np.zeros((len(weight_RN), weight_RN.shape[1] + 1))
        np.cumsum(training_RN * self._gain_N, axis=1, out=running[:, 1:])
        if len(order.num_accepted_T) != running.shape[1]:  # ties are accepted together
            running = np.take(running, order.num_accepted_T, axis=1)
        threshold_R = self._midpoint(training_RN, np.argmax(running, axis=1))
        # The fold itself: which of its members lie at or above the threshold.
        num_accepted_R = order.num_accepted_T[order.index_of(threshold_R)]
        is_accepted = members[None, :] < num_accepted_R[:, None]
        own_gain = np.where(is_accepted, gain_RN[:, members], 0).sum(axis=1, dtype=np.float64)
        own_weight = weight_RN[:, members].astype(np.float64)
        num_impostor = own_weight[:, ~order.is_genuine_N[members]].sum(axis=1)
        with np.errstate(invalid="ignore"):
            return (own_gain + num_impostor) / own_weight.sum(axis=1), threshold_R

    def _midpoint(self, training_RN: Weights, chosen_R: NDArray[np.intp]) -> Floats:
        accepted_R, thresholds = self._order.num_accepted_T[chosen_R], self._order.threshold_T
        ordered_scores = np.repeat(thresholds[1:], np.diff(self._order.num_accepted_T))
        next_R = accepted_R.copy()  # position of the highest rejected score that belongs to the other folds
        rows = np.arange(len(next_R))
        while True:
            inside = next_R < len(ordered_scores)
            skip = inside & (training_RN[rows, np.minimum(next_R, len(ordered_scores) - 1)] == 0)
            if not skip.any():
                break
            next_R[skip] += 1
        lowest_accepted = thresholds[chosen_R]
        highest_rejected = ordered_scores[np.minimum(next_R, len(ordered_scores) - 1)]
        middle = 0.5 * lowest_accepted + 0.5 * highest_rejected
        # The midpoint of neighbouring floats may be rounded to the rejected score, which must stay rejected.
        return np.where(inside & (middle > highest_rejected), middle, lowest_accepted)


def checked_folds(fold: Labels, num: int) -> tuple[NDArray[np.int64], int]:
    """Fold index of each comparison and the number of folds.

    Raises:
        ShapeError: there is not one fold per comparison.
        InvalidInputError: there are fewer than two folds.
    """
    index_N, num_folds = subject_index(fold, num, "fold")
    if num_folds < 2:
        raise InvalidInputError(f"there is {num_folds} fold; accuracy over folds needs at least 2")
    return index_N, num_folds


def ten_fold_accuracy(scores: ArrayLike, is_genuine: ArrayLike, fold: Labels) -> FoldAccuracy:
    """Mean accuracy over folds, each at the threshold that is best on the other folds (LFW's protocol).

    Every distinct score is tried as threshold, not a grid. Ties are resolved by the strictest threshold.

    Args:
        scores: (N,) similarity scores.
        is_genuine: (N,) truth of each comparison.
        fold: (N,) fold of each comparison; LFW has ten; at least two are needed.

    Returns:
        Mean, spread and thresholds. `verification_report` adds an interval over subjects.

    Raises:
        ShapeError: lengths differ.
        RangeError: a score is not finite.
        InvalidInputError: there are fewer than two folds, or no genuine or no impostor comparison outside some fold.

    References:
        G. B. Huang et al., "Labeled Faces in the Wild", 2007, View 2. Deviation: the papers' scripts try a grid of
        distances with step 0.01 and take the first of the best thresholds.
    """
    score_N = finite_scores(scores, "scores")
    genuine_N = np.asarray(is_genuine, dtype=bool)
    if genuine_N.shape != score_N.shape:
        raise ShapeError(f"is_genuine has shape {genuine_N.shape}, scores {score_N.shape}; they must be the same")
    fold_N, num_folds = checked_folds(fold, len(score_N))
    for f in range(num_folds):
        others = genuine_N[fold_N != f]
        if others.all() or not others.any():
            raise InvalidInputError(
                f"outside fold {f} there is no genuine or no impostor comparison; assign both kinds to every fold"
            )
    split = FoldSplit(ScoreOrder(score_N, genuine_N), fold_N, num_folds)
    accuracy_RF, threshold_RF = split.evaluate(np.ones((1, len(score_N)), dtype=np.float32))
    accuracy_F = accuracy_RF[0]
    return FoldAccuracy(
        mean=float(accuracy_F.mean()),
        std=float(accuracy_F.std()),
        standard_error=float(accuracy_F.std(ddof=1) / np.sqrt(num_folds)),
        accuracy_F=accuracy_F,
        threshold_F=threshold_RF[0],
        n=len(score_N),
    )
