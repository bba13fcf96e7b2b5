"""Verification protocols: pairs of images with labels and folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppfr.core import InvalidInputError, ProblemsError, derive_seed
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

    def sample(self, num_pairs: int, *, seed: int) -> PairProtocol:
        """Fewer pairs, equally many genuine and impostor ones of each fold, and only the images that they use.

        For quick trials. The name stays the same; the numbers of pairs and images in a record show the difference.

        Args:
            num_pairs: at most this many pairs. Each fold contributes the same number, at least one of each kind.
            seed: seeds the choice.

        Raises:
            InvalidInputError: fewer pairs than two per fold.
        """
        each = num_pairs // (2 * self.num_folds)
        if each < 1:
            raise InvalidInputError(
                f"Expected at least {2 * self.num_folds} for `num_pairs`, two for each of the {self.num_folds} folds, "
                f"got {num_pairs}."
            )
        rng = np.random.default_rng(derive_seed(seed, "sample of pairs"))
        strata = [
            np.flatnonzero((self.fold == fold) & (self.is_genuine == kind))
            for fold in range(self.num_folds)
            for kind in (True, False)
        ]
        chosen = np.sort(np.concatenate([rng.permutation(rows)[:each] for rows in strata]))
        used, numbers = np.unique(np.stack([self.first[chosen], self.second[chosen]]), return_inverse=True)
        first, second = numbers.reshape(2, -1)
        return PairProtocol(
            name=self.name,
            images=self.images.subset(used.tolist(), name=self.images.name),
            first=first,
            second=second,
            is_genuine=self.is_genuine[chosen],
            fold=self.fold[chosen],
        )

    def subjects(self) -> frozenset[str]:
        """The people who occur in a pair. A training set for this protocol must contain none of them."""
        return frozenset(self.used_images().subject_ids)


def divided_into_folds(is_genuine: np.ndarray, *, num_folds: int = 10) -> np.ndarray:
    """(N,) int64 folds of pairs without folds of their own: consecutive blocks, of genuine and of impostor pairs apart.

    Every fold so has both kinds. There are fewer folds if there are fewer pairs of either kind.
    """
    fold = np.zeros(len(is_genuine), np.int64)
    kinds = [np.flatnonzero(is_genuine == kind) for kind in (True, False)]
    num_folds = max(1, min(num_folds, *(len(kind) for kind in kinds)))
    for kind in kinds:
        for number, rows in enumerate(np.array_split(kind, num_folds)):
            fold[rows] = number
    return fold
