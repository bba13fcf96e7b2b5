"""Unlinkability: distinguishing two templates of one person under different keys from templates of two people.

Suffixes: N mated comparisons, M non-mated ones, T bins, R resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import RangeError, derive_seed
from ppfr.metrics._bootstrap import multiplicities
from ppfr.metrics._estimate import Estimate, Floats, estimate_from
from ppfr.metrics._inputs import Labels, check_resampling, finite_scores, subject_index

_SHUFFLES = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linkability:
    """D_sys and the parameters on which its value depends.

    Attributes:
        d_sys: in [0, 1]; 0 is fully unlinkable, 1 fully linkable. `n` counts mated comparisons.
        chance: chance level: mean D_sys of the same scores with mated and non-mated labels permuted, which is the value
            of unlinkable templates due to noise in the histograms. A `d_sys` near it shows no linkability.
        d_local_T: D(s) of each bin, in [0, 1].
        edge_T1: (T + 1,) edges of the bins.
        num_non_mated: M.
        omega: prior odds of mated against non-mated.
    """

    d_sys: Estimate
    chance: float
    d_local_T: Floats
    edge_T1: Floats
    num_non_mated: int
    omega: float

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready; with the number and range of bins, without the curve."""
        return {
            "d_sys": self.d_sys.to_dict(),
            "chance": self.chance,
            "num_bins": len(self.d_local_T),
            "range": [float(self.edge_T1[0]), float(self.edge_T1[-1])],
            "num_non_mated": self.num_non_mated,
            "omega": self.omega,
        }


def unlinkability(
    mated: ArrayLike,
    non_mated: ArrayLike,
    *,
    mated_subjects: Labels,
    seed: int,
    num_bins: int | None = None,
    score_range: tuple[float, float] | None = None,
    omega: float = 1.0,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Linkability:
    """D_sys of templates under different keys.

    D(s) = max(0, 2 omega LR(s) / (1 + omega LR(s)) - 1), LR(s) = p(s | mated) / p(s | non-mated), both as histograms
    over the same bins of equal width. D_sys is the mean of D over mated scores. The value depends on the bins, so they
    are part of the result. `chance` states how much of it is noise.

    Args:
        mated: (N,) scores of two templates of one person under different keys.
        non_mated: (M,) scores of templates of two people under different keys.
        mated_subjects: (N,) subject of each mated comparison. The interval resamples subjects; the non-mated scores are
            fixed.
        seed: root seed of resamples and permutations.
        num_bins: T; None for a tenth of the mated comparisons, at least 2 and at most 100, as in the authors' code.
        score_range: range of the bins; None means from the lowest to the highest score.
        omega: prior odds; 1 is the worst case, which is usually reported.
        num_resamples: number of bootstrap resamples.
        level: confidence level.

    Raises:
        ShapeError: there are no scores, or not one subject per score.
        RangeError: scores are not finite or outside `score_range`, there are fewer than 2 bins, or the odds are not
            above 0.
        InvalidInputError: there are fewer than two subjects.

    References:
        M. Gomez-Barrero, J. Galbally, C. Rathgeb, C. Busch, "General framework to evaluate unlinkability in biometric
        template protection systems", IEEE TIFS 13(6), 2018.
    """
    mated_N, non_mated_M = finite_scores(mated, "mated scores"), finite_scores(non_mated, "non-mated scores")
    index_N, num_subjects = subject_index(mated_subjects, len(mated_N), "mated_subjects")
    check_resampling(num_resamples, level, num_subjects)
    if not (omega > 0 and np.isfinite(omega)):
        raise RangeError(f"omega={omega} is invalid; it must be finite and above 0, usually 1")
    edge_T1 = _edges(mated_N, non_mated_M, num_bins, score_range)
    bin_N, bin_M = _bins(mated_N, edge_T1), _bins(non_mated_M, edge_T1)
    num = len(edge_T1) - 1
    count_T = np.bincount(bin_M, minlength=num).astype(np.float64)
    local_T = _local(np.bincount(bin_N, minlength=num).astype(np.float64), count_T, omega)
    rng = np.random.default_rng(derive_seed(seed, "unlinkability"))
    by_subject_ST = np.zeros((num_subjects, num))
    np.add.at(by_subject_ST, (index_N, bin_N), 1.0)
    resampled_R = np.array(
        [
            _system(by_subject_ST.T @ multiplicities(num_subjects, 1, rng=rng)[0].astype(np.float64), count_T, omega)
            for _ in range(num_resamples)
        ]
    )
    value = float(local_T[bin_N].mean())
    return Linkability(
        d_sys=estimate_from(
            value,
            resampled_R,
            n=len(mated_N),
            level=level,
            method=f"bootstrap over {num_subjects} subjects",
            num_independent=None,
        ),
        chance=_chance(np.concatenate([bin_N, bin_M]), len(bin_N), num, omega, rng),
        d_local_T=local_T,
        edge_T1=edge_T1,
        num_non_mated=len(non_mated_M),
        omega=float(omega),
    )


def _edges(
    mated_N: Floats, non_mated_M: Floats, num_bins: int | None, score_range: tuple[float, float] | None
) -> Floats:
    num = int(np.clip(len(mated_N) // 10, 2, 100)) if num_bins is None else num_bins
    if num < 2:
        raise RangeError(f"num_bins={num} is too small; use at least 2")
    lowest = float(min(mated_N.min(), non_mated_M.min()))
    highest = float(max(mated_N.max(), non_mated_M.max()))
    low, high = (lowest, highest) if score_range is None else score_range
    if score_range is not None and not (low < high and low <= lowest and highest <= high):
        raise RangeError(
            f"score_range={score_range} does not include all scores; pass the lowest and highest possible score"
        )
    if low == high:  # all scores are equal: any bins around them will do
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, num + 1)


def _bins(score_N: Floats, edge_T1: Floats) -> NDArray[np.intp]:
    return np.clip(np.searchsorted(edge_T1, score_N, side="right") - 1, 0, len(edge_T1) - 2)


def _local(mated_T: Floats, non_mated_T: Floats, omega: float) -> Floats:
    """D(s) in each bin; 1 if the bin has only mated scores, 0 if it has only non-mated scores or none."""
    odds_mated_T = omega * mated_T / mated_T.sum()
    odds_T = odds_mated_T + non_mated_T / non_mated_T.sum()
    share_T = np.divide(odds_mated_T, odds_T, out=np.zeros_like(odds_T), where=odds_T > 0)
    return np.asarray(np.maximum(0.0, 2 * share_T - 1))


def _system(mated_T: Floats, non_mated_T: Floats, omega: float) -> float:
    return float(_local(mated_T, non_mated_T, omega) @ (mated_T / mated_T.sum()))


def _chance(all_bins: NDArray[np.intp], num_mated: int, num_bins: int, omega: float, rng: np.random.Generator) -> float:
    found = []
    for _ in range(_SHUFFLES):
        shuffled = rng.permutation(all_bins)
        mated_T = np.bincount(shuffled[:num_mated], minlength=num_bins).astype(np.float64)
        found.append(_system(mated_T, np.bincount(shuffled[num_mated:], minlength=num_bins).astype(np.float64), omega))
    return float(np.mean(found))
