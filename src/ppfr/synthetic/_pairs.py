"""Verification pairs over synthetic faces or any set with several images per person."""

from __future__ import annotations

import numpy as np

from ppfr.core import RangeError, derive_seed
from ppfr.data import PairProtocol, StoredImageSet


def synthetic_pairs(images: StoredImageSet, *, num_pairs: int, num_folds: int, seed: int) -> PairProtocol:
    """Draw a verification protocol like that of LFW: half of the pairs genuine, and folds without common people.

    Args:
        images: any set with several images per person, such as `SyntheticFaces`.
        num_pairs: N, a multiple of 2 * num_folds; each fold has as many genuine as impostor comparisons.
        num_folds: number of folds, at least 2.
        seed: root seed.

    Returns:
        A protocol over `images`; no comparison occurs twice.

    Raises:
        RangeError: `num_pairs` is not a multiple of 2 * num_folds, or the people of a fold do not give enough different
            comparisons.
    """
    if num_folds < 2:
        raise RangeError(
            f"num_folds={num_folds} is too small; it must be at least 2, because thresholds come from the other folds"
        )
    if num_pairs < 1 or num_pairs % (2 * num_folds):
        raise RangeError(f"num_pairs={num_pairs} is not a positive multiple of 2 * num_folds = {2 * num_folds}")
    rng = np.random.default_rng(derive_seed(seed, "synthetic-pairs"))
    names, labels = np.unique(np.asarray(images.subject_ids), return_inverse=True)
    if len(names) < 2 * num_folds:
        raise RangeError(
            f"{len(names)} people are too few for num_folds={num_folds} with at least 2 people each; use fewer folds"
        )
    each = num_pairs // (2 * num_folds)
    rows = []
    for fold, people in enumerate(np.array_split(rng.permutation(len(names)), num_folds)):
        members = [np.flatnonzero(labels == person) for person in people]
        genuine = _genuine(members, each, rng)
        impostor = _impostor(members, each, rng)
        rows += [(first, second, True, fold) for first, second in genuine]
        rows += [(first, second, False, fold) for first, second in impostor]
    first, second, is_genuine, fold_column = (np.array(column) for column in zip(*rows, strict=True))
    return PairProtocol(
        name=f"{images.name}-pairs", images=images, first=first, second=second, is_genuine=is_genuine, fold=fold_column
    )


def _genuine(members: list[np.ndarray], wanted: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`wanted` different pairs of two images of one person."""
    every = [
        (int(images[a]), int(images[b]))
        for images in members
        for a in range(len(images))
        for b in range(a + 1, len(images))
    ]
    if len(every) < wanted:
        raise RangeError(
            f"a fold needs {wanted} genuine comparisons, but its {len(members)} people give {len(every)};"
            " use fewer pairs, more people or more images of each"
        )
    return [every[index] for index in rng.choice(len(every), wanted, replace=False)]


def _impostor(members: list[np.ndarray], wanted: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`wanted` different pairs of images of two people, every pair of people equally likely at each draw."""
    sizes = np.array([len(images) for images in members])
    possible = int((sizes.sum() ** 2 - (sizes**2).sum()) // 2)
    if possible < 2 * wanted:
        raise RangeError(
            f"a fold needs {wanted} impostor comparisons, but its {len(members)} people give {possible}, fewer than"
            " twice that; use fewer pairs, more people or more images of each"
        )
    chosen: dict[tuple[int, int], None] = {}
    while len(chosen) < wanted:
        one, other = sorted(rng.choice(len(members), 2, replace=False))
        pair = int(rng.choice(members[one])), int(rng.choice(members[other]))
        chosen[min(pair), max(pair)] = None
    return list(chosen)
