"""How often an inverted template passes as its person. Suffixes: N victims, M references, D embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics._bootstrap import mean_with_interval
from ppfr.metrics._estimate import Estimate
from ppfr.metrics._inputs import Labels
from ppfr.metrics._recovered import unit_rows

_VALUES_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InversionSuccess:
    """Inversion success rate at one threshold, and the control beside it.

    Attributes:
        success: share of victims as whom the recovered embedding passes, against other images of theirs.
        other_subject: share of comparisons of recovered embeddings with other people's references that are accepted:
            where it is far above the threshold's FMR, the recovered embedding is one that anyone would match. None if
            there is one subject only.
        accuracy: mean of `success` and 1 - `other_subject`; None if there is one subject only.
        solved: share of rows in which the solver found a fit.
        threshold: accepted when the cosine is at least this.
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
    """Share of victims as whom recovered embeddings are accepted at the recogniser's own threshold.

    A victim with several references counts with the share of them that accept.

    Without `solved_N` this is what the adversary gets: he may present whatever he has. With it, rows that the solver
    did not solve count as failures, as the benchmark protocol of the field counts; where the solver comes near but
    seldom fits to the last digit, that rate is far too low. Report the first, and the second beside it.

    Args:
        recovered_ND: (N, D) recovered embeddings, of any length but zero.
        subjects: (N,) whose template each was recovered from.
        references_MD: (M, D) embeddings of images other than those that were enrolled.
        reference_subjects: (M,) whose they are; every victim must have one.
        threshold: `threshold_at_far` of the recogniser's plain scores, at an FMR of 1e-3 or 1e-4.
        solved_N: (N,) flags of the solver; None counts every row by what it holds.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples over subjects.
        level: confidence level.

    Raises:
        ShapeError: lengths differ.
        RangeError: values that are not finite, rows of zeros, or a threshold that is not a number.
        InvalidInputError: a victim without a reference, or fewer than two subjects.
    """
    if np.isnan(threshold):
        raise RangeError("the threshold is not a number; take one from threshold_at_far")
    a_ND, b_MD = unit_rows(recovered_ND, "recovered"), unit_rows(references_MD, "references")
    subject_N, subject_M = np.asarray(subjects), np.asarray(reference_subjects)
    solved = np.ones(len(a_ND), dtype=bool) if solved_N is None else np.asarray(solved_N, dtype=bool)
    lengths = (subject_N.shape, subject_M.shape, solved.shape)
    if lengths != ((len(a_ND),), (len(b_MD),), (len(a_ND),)) or a_ND.shape[1] != b_MD.shape[1]:
        raise ShapeError(
            f"recovered {a_ND.shape} with {lengths[0]} subjects and {lengths[2]} flags, references {b_MD.shape} with "
            f"{lengths[1]} subjects: give one of each for every row, and embeddings of one length"
        )
    num_without = int((~np.isin(subject_N, subject_M)).sum())
    if num_without:
        raise InvalidInputError(f"{num_without} of {len(a_ND)} victims have no other image to pass against; add them")
    kin_N, other_N, num_kin_N = _accepted(a_ND, b_MD, subject_N, subject_M, threshold)
    kin_N[~solved], other_N[~solved] = 0, 0
    num_other_N = len(b_MD) - num_kin_N

    def mean(share_N: NDArray[np.float64]) -> Estimate:
        return mean_with_interval(
            share_N, subject_N, seed=seed, num_resamples=num_resamples, level=level, is_share=True
        )

    own_share_N = kin_N / num_kin_N
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
    """How many references of the same and of other subjects accept each row, and how many it has."""
    kin_N, other_N, num_kin_N = (np.zeros(len(a_ND), dtype=np.int64) for _ in range(3))
    rows_at_once = max(1, _VALUES_AT_ONCE // len(b_MD))
    for start in range(0, len(a_ND), rows_at_once):
        rows = slice(start, start + rows_at_once)
        is_accepted = a_ND[rows] @ b_MD.T >= threshold
        is_kin = subject_N[rows, None] == subject_M[None, :]
        kin_N[rows] = np.count_nonzero(is_accepted & is_kin, axis=1)
        other_N[rows] = np.count_nonzero(is_accepted & ~is_kin, axis=1)
        num_kin_N[rows] = np.count_nonzero(is_kin, axis=1)
    return kin_N, other_N, num_kin_N
