"""What the functions of this package accept, and the messages for what they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError

Labels = Sequence[Any] | NDArray[Any]


def finite_scores(scores: ArrayLike, what: str, *, num_axes: int = 1) -> NDArray[np.float64]:
    """Scores as float64 of the stated number of axes, all finite.

    Raises:
        ShapeError: another number of axes, or nothing in it.
        RangeError: a value that is not finite.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != num_axes or array.size == 0:
        raise ShapeError(f"{what} has shape {array.shape}; give a non-empty array of {num_axes} axis/axes")
    num_bad = int(array.size - np.isfinite(array).sum())
    if num_bad:
        raise RangeError(f"{what} holds {num_bad} of {array.size} values that are not finite; all must be")
    return array


def subject_index(subjects: Labels, num: int, what: str) -> tuple[NDArray[np.int64], int]:
    """Each label as an index 0..S-1, and S.

    Raises:
        ShapeError: not one label for each row.
    """
    labels = np.asarray(subjects)
    if labels.shape != (num,):
        raise ShapeError(f"{what} has shape {labels.shape}; give one label for each of the {num} rows")
    unique, index = np.unique(labels, return_inverse=True)
    return index.astype(np.int64), len(unique)


def check_resampling(num_resamples: int, level: float, num_subjects: int) -> None:
    """Refuse an interval that cannot be made.

    Raises:
        InvalidInputError: fewer than 2 subjects, fewer than 20 resamples, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise RangeError(f"level={level} is not a confidence level; give one in (0, 1), as in 0.95")
    if num_resamples < 20:
        raise InvalidInputError(
            f"num_resamples={num_resamples} gives no usable interval; give at least 20 (1000 is usual)"
        )
    if num_subjects < 2:
        raise InvalidInputError(f"an interval over subjects needs at least 2 subjects; there are {num_subjects}")
