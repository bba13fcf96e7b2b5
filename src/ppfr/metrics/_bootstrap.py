"""Bootstrap over subjects, since images and comparisons of one person are not independent.

Every subject gets a multiplicity: how often it is drawn when S of S subjects are drawn with replacement. An image
weighs its subject's multiplicity. A comparison within one subject weighs that subject's multiplicity; one between two
subjects weighs the product of theirs.
Suffixes: R resamples, S subjects, N observations.

References:
    A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007: products of multiplicities.
    R. Fogliato, P. Patil, P. Perona, "Confidence intervals for error rates in 1:1 matching tasks", arXiv 2306.01198:
    why comparisons must not be resampled as if independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import derive_seed
from ppfr.metrics._estimate import Estimate, Floats, estimate_from
from ppfr.metrics._inputs import Labels, check_resampling, finite_scores, subject_index

Weights = NDArray[np.float32]
_VALUES_AT_ONCE = 2_000_000  # one block of weights is 8 MB: a few of them stay in cache and memory stays flat


def multiplicities(num_subjects: int, num_rows: int, *, rng: np.random.Generator) -> Weights:
    """(num_rows, S): how often each subject is drawn in each resample; rows sum to S."""
    drawn_RS = rng.integers(num_subjects, size=(num_rows, num_subjects))
    drawn_RS += np.arange(num_rows)[:, None] * num_subjects
    counts = np.bincount(drawn_RS.ravel(), minlength=num_rows * num_subjects)
    return counts.reshape(num_rows, num_subjects).astype(np.float32)


class SubjectBootstrap:
    """Resampled weights of observations that each belong to one subject or to two.

    Args:
        subject_a: (N,) subject index 0..S-1 of each observation.
        subject_b: the second subject of each, or None where there is only one.
        num_subjects: S.
        num_resamples: R.
        seed: root of the draws; the same seed gives the same resamples whatever the statistic.
        shrink: in (0, 1]; how far the weight w of an observation of two subjects may stray from 1: 1 + shrink (w - 1).
            See `dyadic_shrink`.
    """

    def __init__(
        self,
        subject_a: NDArray[np.int64],
        subject_b: NDArray[np.int64] | None,
        *,
        num_subjects: int,
        num_resamples: int,
        seed: int,
        shrink: float = 1.0,
    ) -> None:
        self._subject_a = subject_a
        # Most protocols have few comparisons between subjects that need the product; those within need none.
        self._between = None if subject_b is None else np.flatnonzero(subject_a != subject_b)
        self._subject_b = None if subject_b is None or self._between is None else subject_b[self._between]
        self._shrink = np.float32(shrink)
        self._num_subjects, self._num_resamples, self._seed = num_subjects, num_resamples, seed

    def weights(self) -> Iterator[Weights]:
        """Blocks of (rows, N) weights; R rows in all."""
        rng = np.random.default_rng(derive_seed(self._seed, "bootstrap over subjects"))
        rows = max(1, _VALUES_AT_ONCE // max(len(self._subject_a), self._num_subjects))
        for start in range(0, self._num_resamples, rows):
            drawn_RS = multiplicities(self._num_subjects, min(rows, self._num_resamples - start), rng=rng)
            weight_RN = np.take(drawn_RS, self._subject_a, axis=1)
            if self._between is not None and self._subject_b is not None:
                product = weight_RN[:, self._between] * np.take(drawn_RS, self._subject_b, axis=1)
                weight_RN[:, self._between] = 1 + self._shrink * (product - 1)
            yield weight_RN

    def resample(self, statistic: Callable[[Weights], Floats]) -> Floats:
        """`statistic` maps a (rows, N) block of weights to (rows, ...) values; all R of them are returned."""
        return np.concatenate([statistic(block) for block in self.weights()])


def dyadic_shrink(outcome_N: Floats, subject_a: NDArray[np.int64], subject_b: NDArray[np.int64]) -> float:
    """How far to shrink product weights so that they do not overstate the variance of a mean over pairs of subjects.

    Products of multiplicities have covariance 1 for two pairs that share a subject, as they should, but variance 3
    rather than 1 for a pair with itself: where pairs hardly share subjects (as in LFW), intervals come out up to 1.7
    times too wide. With deviations z from the mean, z_s their sum over the pairs of subject s, A = sum of z_s^2 and
    B = sum of z^2, the product's variance is A + B. The dyadic-robust one is A - B, which in small samples is too
    small as often as not and can be negative; A, which counts each pair's own variance twice, lies between and is
    never negative. The root of A / (A + B) is the factor: intervals stay on the wide side, by less.

    Args:
        outcome_N: (N,) what is averaged over pairs of two subjects.
        subject_a: (N,) index of the first subject.
        subject_b: (N,) index of the second.

    References:
        P. M. Aronow, C. Samii, V. A. Assenova, "Cluster-robust variance estimation for dyadic data", Political
        Analysis 23(4), 2015: A - B. A. C. Cameron, J. B. Gelbach, D. L. Miller, "Robust inference with multiway
        clustering", JBES 29(2), 2011: leaving out the subtracted term where it makes a variance negative.
    """
    deviation_N = outcome_N - outcome_N.mean()
    own = float(np.square(deviation_N).sum())
    both, weights = np.concatenate([subject_a, subject_b]), np.concatenate([deviation_N, deviation_N])
    shared = float(np.square(np.bincount(both, weights=weights)).sum())
    if own == 0:
        return 1.0
    return float(np.sqrt(max(shared / (shared + own), 1 / 3)))


def mean_with_interval(
    values: ArrayLike,
    subjects: Labels,
    *,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
    is_share: bool = False,
) -> Estimate:
    """Mean over images with a bootstrap interval over subjects.

    Args:
        values: (N,) one finite value for each image (SSIM, cosine, an outcome 0 or 1).
        subjects: (N,) the subject of each image.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the interval.
        is_share: the values are outcomes in [0, 1]; then a mean of exactly 0 or 1 still gets an interval of some width.

    Returns:
        The mean; `n` counts images.

    Raises:
        ShapeError: not one subject for each value, or no value.
        RangeError: a value that is not finite.
        InvalidInputError: fewer than two subjects.
    """
    value_N = finite_scores(values, "values")
    index_N, num_subjects = subject_index(subjects, len(value_N), "subjects")
    check_resampling(num_resamples, level, num_subjects)
    # A mean needs each subject's sum and count alone, so N plays no part in the cost of a resample.
    sum_S = np.bincount(index_N, weights=value_N, minlength=num_subjects)
    count_S = np.bincount(index_N, minlength=num_subjects).astype(np.float64)
    bootstrap = SubjectBootstrap(
        np.arange(num_subjects), None, num_subjects=num_subjects, num_resamples=num_resamples, seed=seed
    )
    resampled = bootstrap.resample(lambda weight_RS: (weight_RS @ sum_S) / (weight_RS @ count_S))
    return estimate_from(
        float(value_N.mean()),
        resampled,
        n=len(value_N),
        level=level,
        method=f"bootstrap over {num_subjects} subjects",
        num_independent=num_subjects if is_share else None,
    )
