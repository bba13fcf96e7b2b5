"""Verification protocols: pairs of images with labels and folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppfr.core import ProblemsError
from ppfr.data._image_sets import StoredImageSet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairProtocol:
    """N comparisons for 1:1 verification with cross-validation folds.

    Attributes:
        name: short name for records, as in "lfw".
        images: the image set that the pairs index; it may contain unused images.
        first: (N,) int64, index of the first image of each pair.
        second: (N,) int64, index of the second image of each pair.
        is_genuine: (N,) bool, whether both show one person.
        fold: (N,) int64, 0..num_folds-1; rates on a fold use thresholds from the other folds.
    """

    name: str
    images: StoredImageSet
    first: np.ndarray
    second: np.ndarray
    is_genuine: np.ndarray
    fold: np.ndarray

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ProblemsError(f"pair protocol {self.name!r} is not consistent", problems)
        for field in ("first", "second", "is_genuine", "fold"):
            array = getattr(self, field)
            array.flags.writeable = False

    def _problems(self) -> list[str]:
        arrays = {"first": self.first, "second": self.second, "is_genuine": self.is_genuine, "fold": self.fold}
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) != 1 or self.first.ndim != 1 or self.first.size == 0:
            return [f"all arrays must be (N,) with one N >= 1; got {shapes}"]
        kinds = {"first": np.integer, "second": np.integer, "is_genuine": np.bool_, "fold": np.integer}
        problems = [
            f"{name} must be of type {kinds[name].__name__}, not {array.dtype}"
            for name, array in arrays.items()
            if not np.issubdtype(array.dtype, kinds[name])
        ]
        for name in ("first", "second"):
            outside = int(np.sum((arrays[name] < 0) | (arrays[name] >= len(self.images))))
            if outside:
                problems.append(f"{outside} pairs have a {name} image outside 0..{len(self.images) - 1}")
        if problems:
            return problems
        subjects = np.asarray(self.images.subject_ids)
        agrees = (subjects[self.first] == subjects[self.second]) == self.is_genuine
        if not agrees.all():
            rows = np.flatnonzero(~agrees)
            problems.append(
                f"{rows.size} pairs have labels that contradict their subjects (the first is pair {rows[0]})"
            )
        if self.fold.min() < 0:
            problems.append("folds must be 0 or more")
        return problems

    def __len__(self) -> int:
        return len(self.first)

    @property
    def num_folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def used(self) -> np.ndarray:
        """Sorted indices of the images that occur in a pair; embedding these is enough."""
        return np.unique(np.concatenate([self.first, self.second]))

    def used_images(self) -> StoredImageSet:
        """The images that occur in a pair."""
        return self.images.subset(self.used().tolist(), name=self.name)

    def subjects(self) -> frozenset[str]:
        """The people who occur in a pair. A training set for this protocol must contain none of them."""
        return frozenset(self.used_images().subject_ids)
