"""Input checks of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError

Labels = Sequence[Any] | NDArray[Any]


def finite_scores(scores: ArrayLike, what: str, *, num_axes: int = 1) -> NDArray[np.float64]:
    """Convert scores to float64, checking the number of axes and that all values are finite.

    Raises:
        ShapeError: the array has another number of axes, or is empty.
        RangeError: a value is not finite.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != num_axes or array.size == 0:
        raise ShapeError(f"{what} has shape {array.shape}; pass a non-empty array with ndim={num_axes}")
    num_bad = int(array.size - np.isfinite(array).sum())
    if num_bad:
        raise RangeError(f"{num_bad} of {array.size} values of {what} are not finite; remove or fix them")
    return array


def subject_index(subjects: Labels, num: int, what: str) -> tuple[NDArray[np.int64], int]:
    """Convert labels to indices 0..S-1; returns them and S.

    Raises:
        ShapeError: there is not one label per row.
    """
    labels = np.asarray(subjects)
    if labels.shape != (num,):
        raise ShapeError(f"{what} has shape {labels.shape}; pass one label per row, ({num},)")
    unique, index = np.unique(labels, return_inverse=True)
    return index.astype(np.int64), len(unique)


def check_resampling(num_resamples: int, level: float, num_subjects: int) -> None:
    """Check the parameters of a bootstrap interval.

    Raises:
        RangeError: the level is outside (0, 1).
        InvalidInputError: there are fewer than 2 subjects or fewer than 20 resamples.
    """
    if not 0 < level < 1:
        raise RangeError(f"level={level} is not a confidence level; it must be in (0, 1), such as 0.95")
    if num_resamples < 20:
        raise InvalidInputError(
            f"num_resamples={num_resamples} is too small for an interval; use at least 20 (1000 is common)"
        )
    if num_subjects < 2:
        raise InvalidInputError(f"there is only {num_subjects} subject; an interval over subjects needs at least 2")
