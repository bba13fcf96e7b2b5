"""Bootstrap over subjects, since images and comparisons of one person are not independent.

Every subject gets a multiplicity: how often it is drawn when S of S subjects are drawn with replacement. An image
has the multiplicity of its subject as weight. A comparison within one subject has that subject's multiplicity as
weight, and one between two subjects the product of their multiplicities.
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
_BLOCK_VALUES = 2_000_000  # one block of weights is 8 MB, so a few blocks stay in cache


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
        seed: root seed; the same seed gives the same resamples for every statistic.
        shrink: factor in (0, 1] by which the weight w of an observation of two subjects is moved towards 1:
            1 + shrink (w - 1). See `dyadic_shrink`.
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
        # Only comparisons between two subjects need the product; most protocols have few of them.
        self._between = None if subject_b is None else np.flatnonzero(subject_a != subject_b)
        self._subject_b = None if subject_b is None or self._between is None else subject_b[self._between]
        self._shrink = np.float32(shrink)
        self._num_subjects, self._num_resamples, self._seed = num_subjects, num_resamples, seed

    def weights(self) -> Iterator[Weights]:
        """Blocks of (rows, N) weights; R rows in all."""
        rng = np.random.default_rng(derive_seed(self._seed, "bootstrap over subjects"))
        rows = max(1, _BLOCK_VALUES // max(len(self._subject_a), self._num_subjects))
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
    """Shrinkage of product weights that limits their overestimate of the variance of a mean over pairs of subjects.

    Products of multiplicities have covariance 1 for two pairs that share a subject, as required, but variance 3 instead
    of 1 for a pair with itself. If pairs seldom share subjects (as in LFW), intervals are up to 1.7 times too wide. Let
    z be the deviations from the mean, z_s their sum over the pairs of subject s, A the sum of z_s^2 and B the sum of
    z^2. The variance of the product weights is A + B. The dyadic-robust variance is A - B, which is often too small in
    small samples and can be negative. A counts the variance of each pair twice, lies between the two and is never
    negative. The factor is the root of A / (A + B), so intervals remain conservative but less so.

    Args:
        outcome_N: (N,) values that are averaged over pairs of two subjects.
        subject_a: (N,) index of the first subject.
        subject_b: (N,) index of the second.

    References:
        P. M. Aronow, C. Samii, V. A. Assenova, "Cluster-robust variance estimation for dyadic data", Political
        Analysis 23(4), 2015: A - B. A. C. Cameron, J. B. Gelbach, D. L. Miller, "Robust inference with multiway
        clustering", JBES 29(2), 2011: omitting the subtracted term if it makes a variance negative.
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
        values: (N,) one finite value per image (SSIM, cosine, an outcome 0 or 1).
        subjects: (N,) the subject of each image.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the interval.
        is_share: the values are outcomes in [0, 1]. A mean of exactly 0 or 1 then has a Wilson interval.

    Returns:
        The mean; `n` counts images.

    Raises:
        ShapeError: there is not one subject per value, or there are no values.
        RangeError: a value is not finite.
        InvalidInputError: there are fewer than two subjects.
    """
    value_N = finite_scores(values, "values")
    index_N, num_subjects = subject_index(subjects, len(value_N), "subjects")
    check_resampling(num_resamples, level, num_subjects)
    # A mean only needs the sum and count of each subject, so the cost of a resample does not depend on N.
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
