"""Identity preserved in recovered faces: cosine to the original, and acceptance at the threshold of a recogniser.

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

_BLOCK_VALUES = 4_000_000


def normalised_rows(embeddings: ArrayLike, what: str) -> Floats:
    array_ND = finite_scores(embeddings, what, num_axes=2)
    length_N1 = np.linalg.norm(array_ND, axis=1, keepdims=True)
    if not (length_N1 > 0).all():
        raise RangeError(
            f"{int((length_N1 == 0).sum())} rows of {what} are zero; an embedding needs a direction: remove them"
        )
    return np.asarray(array_ND / length_N1)


def identity_cosine(embeddings_a_ND: ArrayLike, embeddings_b_ND: ArrayLike) -> Floats:
    """Cosine between the embeddings of each pair of images, such as an original and the image recovered from it.

    Args:
        embeddings_a_ND: (N, D); any length except zero, because rows are normalised here.
        embeddings_b_ND: (N, D).

    Returns:
        (N,) in [-1, 1]; use `mean_with_interval` for a mean with interval.

    Raises:
        ShapeError: the shapes differ.
        RangeError: values are not finite, or rows are zero.
    """
    a_ND, b_ND = normalised_rows(embeddings_a_ND, "embeddings_a"), normalised_rows(embeddings_b_ND, "embeddings_b")
    if a_ND.shape != b_ND.shape:
        raise ShapeError(f"embeddings have shapes {a_ND.shape} and {b_ND.shape}; they must be equal")
    return np.asarray(np.clip(np.einsum("nd,nd->n", a_ND, b_ND), -1.0, 1.0))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredAcceptance:
    """Shares of recovered faces that a recogniser accepts.

    Attributes:
        same_image: against the attacked image itself, as in a replay of the stolen image.
        other_image: against another image of the same subject, as in impersonation. None if no subject has two images.
        other_subject: against images of other subjects. These false matches of recovered faces put the two shares above
            in relation, for instance if a recovered "average face" matches many people. None if there is only one
            subject.
        threshold: a comparison is accepted if the cosine is at least this value.
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
    """Share of recovered faces that a recogniser accepts as the person from whose image they were recovered.

    The success rate of the attack is the TAR of recovered against real faces at the operating threshold of the same
    recogniser, for example `threshold_at_far` of its scores on unprotected LFW pairs at a FAR of 1e-3.

    Args:
        recovered_ND: (N, D) embeddings of the recovered faces.
        original_ND: (N, D) embeddings of the attacked images, row for row, by the same recogniser.
        subjects: (N,) subject of each row.
        threshold: a comparison is accepted if the cosine is at least this value.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the intervals.

    Returns:
        Shares over rows. A row with several other images counts with the share of accepted ones. `n` counts rows.

    Raises:
        ShapeError: the shapes differ.
        RangeError: values are not finite, rows are zero, or the threshold is not a number.
        InvalidInputError: there are fewer than two subjects.
    """
    if np.isnan(threshold):
        raise RangeError("the threshold is NaN; use the result of threshold_at_far")
    a_ND, b_ND = normalised_rows(recovered_ND, "recovered"), normalised_rows(original_ND, "original")
    if a_ND.shape != b_ND.shape:
        raise ShapeError(f"recovered and original have shapes {a_ND.shape} and {b_ND.shape}; they must be equal")
    index_N, num_subjects = subject_index(subjects, len(a_ND), "subjects")
    if num_subjects < 2:
        raise InvalidInputError("all recovered faces belong to one subject; an interval over subjects needs at least 2")
    same_image_N, same_subject_N, other_N = _accepted(a_ND, b_ND, index_N, threshold)
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

    same_image = share(same_image_N, np.ones_like(same_image_N))
    assert same_image is not None  # two subjects were just counted
    return RecoveredAcceptance(
        same_image=same_image,
        other_image=share(same_subject_N, size_N - 1),
        other_subject=share(other_N, len(index_N) - size_N),
        threshold=threshold,
    )


def _accepted(
    a_ND: Floats, b_ND: Floats, index_N: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Per row: accepted comparisons with its own image, other images of its subject, and images of other subjects."""
    num = len(a_ND)
    same_image_N = (np.einsum("nd,nd->n", a_ND, b_ND) >= threshold).astype(np.int64)
    same_subject_N, all_N = np.zeros(num, dtype=np.int64), np.zeros(num, dtype=np.int64)
    rows_at_once = max(1, _BLOCK_VALUES // num)
    for start in range(0, num, rows_at_once):
        rows = slice(start, start + rows_at_once)
        accepted = a_ND[rows] @ b_ND.T >= threshold
        # The row's own image counts in `same_image_N` only, however the matrix product is rounded.
        accepted[np.arange(len(accepted)), start + np.arange(len(accepted))] = False
        all_N[rows] = np.count_nonzero(accepted, axis=1)
        same_subject_N[rows] = np.count_nonzero(accepted & (index_N[rows, None] == index_N[None, :]), axis=1)
    return same_image_N, same_subject_N, all_N - same_subject_N
