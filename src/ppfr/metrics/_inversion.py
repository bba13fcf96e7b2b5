"""Success rate of template inversion. Suffixes: N target templates, M references, D embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics._bootstrap import mean_with_interval
from ppfr.metrics._cosine import normalised_rows
from ppfr.metrics._estimate import Estimate
from ppfr.metrics._inputs import Labels

_BLOCK_VALUES = 4_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InversionSuccess:
    """Inversion success rate at one threshold, with its control.

    Attributes:
        success: share of target subjects for whom the recovered embedding is accepted against their other images.
        other_subject: share of comparisons of recovered embeddings with references of other people that are accepted.
            If it is far above the FMR of the threshold, the recovered embedding would match many people. None if there
            is only one subject.
        accuracy: mean of `success` and 1 - `other_subject`; None if there is only one subject.
        solved: share of rows for which the solver found a solution.
        threshold: a comparison is accepted if the cosine is at least this value.
    """

    success: Estimate
    other_subject: Estimate | None
    accuracy: Estimate | None
    solved: float
    threshold: float

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


def inversion_success(
    recovered_ND: ArrayLike,
    subjects: Labels,
    references_MD: ArrayLike,
    reference_subjects: Labels,
    *,
    threshold: float,
    solved_N: ArrayLike | None = None,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> InversionSuccess:
    """Share of target subjects for whom recovered embeddings are accepted at the threshold of the recogniser.

    A target subject with several references counts with the share of accepted comparisons.

    Without `solved_N` this is the success rate of the adversary, who may present any embedding. With `solved_N`, rows
    without a solution count as failures, as in the benchmark protocol of the field. If the solver often comes close but
    seldom reaches an exact solution, that rate is far too low. Report the first rate, and the second in addition.

    Args:
        recovered_ND: (N, D) recovered embeddings of any length except zero.
        subjects: (N,) subject of the template from which each was recovered.
        references_MD: (M, D) embeddings of images that were not enrolled.
        reference_subjects: (M,) subject of each reference; every target subject must have one.
        threshold: `threshold_at_far` of the recogniser's unprotected scores, at an FMR of 1e-3 or 1e-4.
        solved_N: (N,) flags of the solver; None counts every row by its recovered embedding.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples over subjects.
        level: confidence level.

    Raises:
        ShapeError: lengths differ.
        RangeError: values are not finite, rows are zero, or the threshold is not a number.
        InvalidInputError: a target subject has no reference, or there are fewer than two subjects.
    """
    if np.isnan(threshold):
        raise RangeError("the threshold is NaN; use the result of threshold_at_far")
    a_ND, b_MD = normalised_rows(recovered_ND, "recovered"), normalised_rows(references_MD, "references")
    subject_N, subject_M = np.asarray(subjects), np.asarray(reference_subjects)
    solved = np.ones(len(a_ND), dtype=bool) if solved_N is None else np.asarray(solved_N, dtype=bool)
    lengths = (subject_N.shape, subject_M.shape, solved.shape)
    if lengths != ((len(a_ND),), (len(b_MD),), (len(a_ND),)) or a_ND.shape[1] != b_MD.shape[1]:
        raise ShapeError(
            f"recovered {a_ND.shape} with {lengths[0]} subjects and {lengths[2]} flags, references {b_MD.shape} with "
            f"{lengths[1]} subjects: pass one per row, and embeddings of equal length"
        )
    num_without = int((~np.isin(subject_N, subject_M)).sum())
    if num_without:
        raise InvalidInputError(
            f"{num_without} of {len(a_ND)} target templates have no reference of their subject; add references"
        )
    same_N, other_N, num_same_N = _accepted(a_ND, b_MD, subject_N, subject_M, threshold)
    same_N[~solved], other_N[~solved] = 0, 0
    num_other_N = len(b_MD) - num_same_N

    def mean(share_N: NDArray[np.float64]) -> Estimate:
        return mean_with_interval(
            share_N, subject_N, seed=seed, num_resamples=num_resamples, level=level, is_share=True
        )

    own_share_N = same_N / num_same_N
    other_share_N = other_N / num_other_N if (num_other_N > 0).all() else None
    return InversionSuccess(
        success=mean(own_share_N),
        other_subject=None if other_share_N is None else mean(other_share_N),
        accuracy=None if other_share_N is None else mean((own_share_N + 1 - other_share_N) / 2),
        solved=float(solved.mean()),
        threshold=float(threshold),
    )


def _accepted(
    a_ND: NDArray[np.float64],
    b_MD: NDArray[np.float64],
    subject_N: NDArray[Any],
    subject_M: NDArray[Any],
    threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Per row: accepted references of the same subject and of other subjects, and references of the same subject."""
    same_N, other_N, num_same_N = (np.zeros(len(a_ND), dtype=np.int64) for _ in range(3))
    rows_at_once = max(1, _BLOCK_VALUES // len(b_MD))
    for start in range(0, len(a_ND), rows_at_once):
        rows = slice(start, start + rows_at_once)
        is_accepted = a_ND[rows] @ b_MD.T >= threshold
        is_same = subject_N[rows, None] == subject_M[None, :]
        same_N[rows] = np.count_nonzero(is_accepted & is_same, axis=1)
        other_N[rows] = np.count_nonzero(is_accepted & ~is_same, axis=1)
        num_same_N[rows] = np.count_nonzero(is_same, axis=1)
    return same_N, other_N, num_same_N
