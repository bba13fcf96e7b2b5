"""Does a recovered face still carry the identity: cosine to the original, acceptance at a recogniser's threshold.

Suffixes: N recovered faces, M reference images, D embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics._bootstrap import mean_with_interval
from ppfr.metrics._estimate import Estimate, Floats
from ppfr.metrics._inputs import Labels, finite_scores, subject_index

_VALUES_AT_ONCE = 4_000_000


def unit_rows(embeddings: ArrayLike, what: str) -> Floats:
    array_ND = finite_scores(embeddings, what, num_axes=2)
    length_N1 = np.linalg.norm(array_ND, axis=1, keepdims=True)
    if not (length_N1 > 0).all():
        raise RangeError(f"{what} holds {int((length_N1 == 0).sum())} rows of zeros; an embedding has a direction")
    return np.asarray(array_ND / length_N1)


def identity_cosine(embeddings_a_ND: ArrayLike, embeddings_b_ND: ArrayLike) -> Floats:
    """Cosine between the embeddings of each pair of images, as of an original and what was recovered of it.

    Args:
        embeddings_a_ND: (N, D); normalised here, so any length but zero will do.
        embeddings_b_ND: (N, D).

    Returns:
        (N,) in [-1, 1]; `mean_with_interval` turns them into a rate for a table.

    Raises:
        ShapeError: shapes differ.
        RangeError: values not finite, or rows of zeros.
    """
    a_ND, b_ND = unit_rows(embeddings_a_ND, "embeddings_a"), unit_rows(embeddings_b_ND, "embeddings_b")
    if a_ND.shape != b_ND.shape:
        raise ShapeError(f"embeddings have shapes {a_ND.shape} and {b_ND.shape}; they must be the same")
    return np.asarray(np.clip(np.einsum("nd,nd->n", a_ND, b_ND), -1.0, 1.0))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredAcceptance:
    """Shares of recovered faces that a recogniser accepts.

    Attributes:
        same_image: as the very image that was attacked; an attacker who replays what it stole.
        other_image: as another image of the same subject; an attacker who impersonates. None if no subject has two.
        other_subject: as images of other subjects: the false matches of recovered faces, to be held against the two
            above (a recovered "average face" that anyone would match shows here). None if there is one subject only.
        threshold: accepted when the cosine is at least this.
    """

    same_image: Estimate
    other_image: Estimate | None
    other_subject: Estimate | None
    threshold: float

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


def verification_accuracy_of_recovered(
    recovered_ND: ArrayLike,
    original_ND: ArrayLike,
    subjects: Labels,
    *,
    threshold: float,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> RecoveredAcceptance:
    """How often recovered faces pass a recogniser as the person they were recovered from.

    The attack's success rate is the TAR of recovered against real faces at the threshold that the same recogniser would
    be run at, say `threshold_at_far` of its scores on plain LFW pairs at a FAR of 1e-3.

    Args:
        recovered_ND: (N, D) embeddings of the recovered faces.
        original_ND: (N, D) embeddings of the attacked images, row for row, by the same recogniser.
        subjects: (N,) subject of each row.
        threshold: accepted when the cosine is at least this.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the intervals.

    Returns:
        Shares over rows; where a row has several other images, it counts with its share of them. `n` counts rows.

    Raises:
        ShapeError: shapes differ.
        RangeError: values not finite, rows of zeros, or a threshold that is not a number.
        InvalidInputError: fewer than two subjects.
    """
    if np.isnan(threshold):
        raise RangeError("the threshold is not a number; take one from threshold_at_far")
    a_ND, b_ND = unit_rows(recovered_ND, "recovered"), unit_rows(original_ND, "original")
    if a_ND.shape != b_ND.shape:
        raise ShapeError(f"recovered and original have shapes {a_ND.shape} and {b_ND.shape}; they must be the same")
    index_N, num_subjects = subject_index(subjects, len(a_ND), "subjects")
    if num_subjects < 2:
        raise InvalidInputError("all recovered faces are of one subject; an interval over subjects needs at least 2")
    own_N, kin_N, other_N = _accepted(a_ND, b_ND, index_N, threshold)
    size_N = np.bincount(index_N)[index_N]

    def share(accepted_N: NDArray[np.int64], possible_N: NDArray[np.int64]) -> Estimate | None:
        has_any = possible_N > 0
        if len(np.unique(index_N[has_any])) < 2:
            return None
        return mean_with_interval(
            accepted_N[has_any] / possible_N[has_any],
            index_N[has_any],
            seed=seed,
            num_resamples=num_resamples,
            level=level,
            is_share=True,
        )

    same_image = share(own_N, np.ones_like(own_N))
    assert same_image is not None  # two subjects were just counted
    return RecoveredAcceptance(
        same_image=same_image,
        other_image=share(kin_N, size_N - 1),
        other_subject=share(other_N, len(index_N) - size_N),
        threshold=threshold,
    )


def _accepted(
    a_ND: Floats, b_ND: Floats, index_N: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many originals accept each recovered face: its own image, others of its subject, those of other subjects."""
    num = len(a_ND)
    own_N = (np.einsum("nd,nd->n", a_ND, b_ND) >= threshold).astype(np.int64)
    kin_N, all_N = np.zeros(num, dtype=np.int64), np.zeros(num, dtype=np.int64)
    rows_at_once = max(1, _VALUES_AT_ONCE // num)
    for start in range(0, num, rows_at_once):
        rows = slice(start, start + rows_at_once)
        accepted = a_ND[rows] @ b_ND.T >= threshold
        # The row's own image is judged by `own_N` alone, whichever way the matrix product rounds it.
        accepted[np.arange(len(accepted)), start + np.arange(len(accepted))] = False
        all_N[rows] = np.count_nonzero(accepted, axis=1)
        kin_N[rows] = np.count_nonzero(accepted & (index_N[rows, None] == index_N[None, :]), axis=1)
    return own_N, kin_N, all_N - kin_N
