"""Identification of the people in a mixture of images. Nobody in a mixture is special, so no single one is "the" mate.

Suffixes: N mixtures, M gallery subjects.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import RangeError, ShapeError

_SAME_SHARE = 1e-6
"""Shares that differ by less count as equal: they are sums of float32 weights."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixtureHits:
    """Hits in each mixture, in expectation over the order of tied scores, and what a random order would hit.

    Attributes:
        anybody_N: whether the best gallery subject is any of the people in the mixture.
        heaviest_N: whether it is the one with the largest share; if several have it, any of them.
        found_N: with k people in the mixture, share of them among the k best gallery subjects.
        chance_anybody: mean of k / M.
        chance_heaviest: 1 / M, or more where several people have the largest share.
        chance_found: mean of k / M.
    """

    anybody_N: NDArray[np.float64]
    heaviest_N: NDArray[np.float64]
    found_N: NDArray[np.float64]
    chance_anybody: float
    chance_heaviest: float
    chance_found: float


def mixture_hits(score_matrix: ArrayLike, share_matrix: ArrayLike) -> MixtureHits:
    """Which people of each mixture a search finds.

    Args:
        score_matrix: (N, M) similarities of the mixtures to the gallery subjects, one column for each subject.
        share_matrix: (N, M) share of each gallery subject in each mixture, 0 for those who are not in it.

    Raises:
        ShapeError: not two equal matrices.
        RangeError: a value is not finite, a share is negative, or a mixture contains nobody of the gallery.

    Examples:
        >>> hits = mixture_hits([[0.9, 0.1, 0.5, 0.2]], [[0.4, 0.0, 0.6, 0.0]])
        >>> float(hits.anybody_N[0]), float(hits.heaviest_N[0]), float(hits.found_N[0]), hits.chance_anybody
        (1.0, 0.0, 1.0, 0.5)
    """
    score_NM, share_NM = np.asarray(score_matrix, dtype=np.float64), np.asarray(share_matrix, dtype=np.float64)
    if score_NM.ndim != 2 or score_NM.size == 0 or score_NM.shape != share_NM.shape:
        raise ShapeError(
            f"score_matrix has shape {score_NM.shape} and share_matrix {share_NM.shape}; give two equal (N, M)"
        )
    if not (np.isfinite(score_NM).all() and np.isfinite(share_NM).all()):
        raise RangeError("score_matrix or share_matrix contains values that are not finite; remove or fix them")
    if share_NM.min() < 0 or share_NM.max(axis=1).min() <= 0:
        raise RangeError("share_matrix has a negative share or a mixture without anybody; give each mixture its people")
    is_in_NM = share_NM > 0
    is_heaviest_NM = share_NM >= share_NM.max(axis=1, keepdims=True) - _SAME_SHARE
    num_in_N, num_gallery = is_in_NM.sum(axis=1), score_NM.shape[1]
    one_N = np.ones_like(num_in_N)
    return MixtureHits(
        anybody_N=_expected_hits(score_NM, is_in_NM, one_N),
        heaviest_N=_expected_hits(score_NM, is_heaviest_NM, one_N),
        found_N=_expected_hits(score_NM, is_in_NM, num_in_N) / num_in_N,
        chance_anybody=float(num_in_N.mean() / num_gallery),
        chance_heaviest=float(is_heaviest_NM.sum(axis=1).mean() / num_gallery),
        chance_found=float(num_in_N.mean() / num_gallery),
    )


def _expected_hits(
    score_NM: NDArray[np.float64], is_wanted_NM: NDArray[np.bool_], num_best_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N,) expected number of wanted columns among the best, with ties in random order."""
    descending_NM = -np.sort(-score_NM, axis=1)
    last_N1 = np.take_along_axis(descending_NM, num_best_N[:, None] - 1, axis=1)
    is_above_NM, is_tied_NM = score_NM > last_N1, score_NM == last_N1
    num_left_N = num_best_N - is_above_NM.sum(axis=1)
    share_of_tied_N = (is_tied_NM & is_wanted_NM).sum(axis=1) / is_tied_NM.sum(axis=1)
    return np.asarray((is_above_NM & is_wanted_NM).sum(axis=1) + num_left_N * share_of_tied_N)
