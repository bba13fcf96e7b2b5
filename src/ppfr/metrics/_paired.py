"""Paired difference in accuracy of two systems on the same comparisons, which cancels the difficulty of the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppfr.core import InvalidInputError
from ppfr.metrics._bootstrap import SubjectBootstrap, Weights, dyadic_shrink
from ppfr.metrics._estimate import Estimate, Floats, estimate_from
from ppfr.metrics._folds import FoldSplit, checked_folds, ten_fold_accuracy
from ppfr.metrics._inputs import check_resampling, subject_index
from ppfr.metrics._roc import ScoreOrder
from ppfr.metrics._verification import Comparisons


def paired_accuracy_gap(
    system: Comparisons,
    baseline: Comparisons,
    *,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Accuracy over folds of a system minus that of its baseline, with a paired bootstrap interval over subjects.

    Both systems are evaluated on the same resamples. In each resample, the threshold of each fold is chosen again on
    the other folds, separately for each system.

    Args:
        system: scores of the system, with subjects and folds.
        baseline: scores of the baseline on the same comparisons in the same order.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the interval.

    Returns:
        The difference in [-1, 1], negative if the system is worse; `n` counts comparisons.

    Raises:
        InvalidInputError: the comparisons of the two differ, or have no subjects or folds.
    """
    _check_same(system, baseline)
    num = len(np.asarray(system.scores))
    assert system.fold is not None  # just checked
    fold_N, num_folds = checked_folds(system.fold, num)
    both = np.concatenate([np.asarray(system.subject_a), np.asarray(system.subject_b)])
    index, num_subjects = subject_index(both, 2 * num, "subjects")
    subject_a, subject_b = index[:num], index[num:]
    check_resampling(num_resamples, level, num_subjects)
    is_between = subject_a != subject_b
    difference_N = _is_correct(system, fold_N) - _is_correct(baseline, fold_N)
    bootstrap = SubjectBootstrap(
        subject_a,
        subject_b,
        num_subjects=num_subjects,
        num_resamples=num_resamples,
        seed=seed,
        shrink=dyadic_shrink(difference_N[is_between], subject_a[is_between], subject_b[is_between]),
    )
    orders = [ScoreOrder(np.asarray(c.scores), np.asarray(c.is_genuine, dtype=bool)) for c in (system, baseline)]
    splits = [FoldSplit(order, fold_N, num_folds) for order in orders]

    def gap(weight_RN: Weights) -> Floats:
        accuracies = [
            split.evaluate(np.ascontiguousarray(weight_RN[:, order.order_N]))[0]
            for split, order in zip(splits, orders, strict=True)
        ]
        # A fold without weight in a resample is skipped; it then has no weight for either system.
        return np.asarray(np.nanmean(accuracies[0] - accuracies[1], axis=1), dtype=np.float64)

    value = float(gap(np.ones((1, num), dtype=np.float32))[0])
    return estimate_from(
        value,
        bootstrap.resample(gap),
        n=num,
        level=level,
        method=f"paired bootstrap over {num_subjects} subjects",
        num_independent=None,
    )


def _is_correct(comparisons: Comparisons, fold_N: NDArray[np.int64]) -> Floats:
    """(N,) 1.0 where the comparison is decided correctly at the threshold of its fold, else 0.0."""
    folds = ten_fold_accuracy(comparisons.scores, comparisons.is_genuine, fold_N)
    is_accepted = np.asarray(comparisons.scores) >= folds.threshold_F[fold_N]
    return np.asarray(is_accepted == np.asarray(comparisons.is_genuine), dtype=np.float64)


def _check_same(system: Comparisons, baseline: Comparisons) -> None:
    for name, each in (("system", system), ("baseline", baseline)):
        if each.fold is None or each.subject_a is None or each.subject_b is None:
            raise InvalidInputError(
                f"the {name}'s comparisons have no folds or subjects; a paired difference needs both"
            )
    for field in ("is_genuine", "fold", "subject_a", "subject_b"):
        if not np.array_equal(np.asarray(getattr(system, field)), np.asarray(getattr(baseline, field))):
            raise InvalidInputError(
                f"system and baseline differ in {field}; pass scores of the same comparisons in the same order"
            )
