"""Identification (1:N) and re-identification from a score matrix: closed-set rank-k and CMC, open-set TPIR at a FPIR.

Suffixes: N probes (rows), M gallery entries (columns), G gallery subjects, R resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics._bootstrap import SubjectBootstrap, Weights, mean_with_interval
from ppfr.metrics._estimate import Estimate, Floats, estimate_from
from ppfr.metrics._inputs import Labels, check_resampling, subject_index
from ppfr.metrics._roc import ScoreOrder, tar_at
from ppfr.metrics._verification import far_caveat

_BLOCK_VALUES = 4_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searches:
    """The result of searching the gallery for each probe.

    Attributes:
        subject_N: subject index of each probe.
        has_mate_N: whether the probe's subject is in the gallery.
        mate_score_N: best score of the mate's references; minus infinity without a mate.
        top_score_N: best score of all references.
        num_above_N: number of gallery subjects that score above the mate.
        num_tied_N: number of other gallery subjects with the mate's score.
        num_gallery: G.
    """

    subject_N: NDArray[np.int64]
    num_subjects: int
    has_mate_N: NDArray[np.bool_]
    mate_score_N: Floats
    top_score_N: Floats
    num_above_N: NDArray[np.int64]
    num_tied_N: NDArray[np.int64]
    num_gallery: int

    def hit_share(self, rank: int) -> Floats:
        """(N,) probability that the mate is among the first `rank` if ties are broken at random."""
        places = rank - self.num_above_N
        return np.clip(places / (self.num_tied_N + 1), 0.0, 1.0)


def search(score_matrix: ArrayLike, probe_subjects: Labels, gallery_subjects: Labels) -> Searches:
    """Search the gallery for every probe, with or without mate; arguments and errors as in `open_set_tpir`."""
    score_NM = np.asarray(score_matrix)
    if score_NM.ndim != 2 or score_NM.size == 0:
        raise ShapeError(f"score_matrix has shape {score_NM.shape}; pass a non-empty (N probes, M gallery entries)")
    num_probes, num_gallery = score_NM.shape
    subject_index(probe_subjects, num_probes, "probe_subjects")
    subject_index(gallery_subjects, num_gallery, "gallery_subjects")
    both = np.concatenate([np.asarray(probe_subjects), np.asarray(gallery_subjects)])
    index, _ = subject_index(both, num_probes + num_gallery, "subjects")
    probe_N, gallery_M = index[:num_probes], index[num_probes:]
    by_subject = np.argsort(gallery_M, kind="stable")
    gallery_G, start_G = np.unique(gallery_M[by_subject], return_index=True)
    column_N = np.minimum(np.searchsorted(gallery_G, probe_N), len(gallery_G) - 1)
    has_mate_N = gallery_G[column_N] == probe_N
    mate_N, top_N = np.full(num_probes, -np.inf), np.empty(num_probes)
    above_N, tied_N = np.zeros(num_probes, dtype=np.int64), np.zeros(num_probes, dtype=np.int64)
    rows_at_once = max(1, _BLOCK_VALUES // num_gallery)
    for start in range(0, num_probes, rows_at_once):
        rows = slice(start, min(start + rows_at_once, num_probes))
        block = score_NM[rows]
        if not np.isfinite(block).all():
            raise RangeError("score_matrix contains values that are not finite; remove or fix them")
        # The score of a subject is that of its best reference.
        best_NG = np.maximum.reduceat(block[:, by_subject], start_G, axis=1)
        mate = best_NG[np.arange(len(best_NG)), column_N[rows]]
        above_N[rows] = np.count_nonzero(best_NG > mate[:, None], axis=1)
        tied_N[rows] = np.count_nonzero(best_NG == mate[:, None], axis=1) - 1
        mate_N[rows] = np.where(has_mate_N[rows], mate, -np.inf)
        top_N[rows] = best_NG.max(axis=1)
    probe_index, num_subjects = subject_index(probe_N, num_probes, "probe_subjects")
    return Searches(
        subject_N=probe_index,
        num_subjects=num_subjects,
        has_mate_N=has_mate_N,
        mate_score_N=mate_N,
        top_score_N=top_N,
        num_above_N=above_N,
        num_tied_N=tied_N,
        num_gallery=len(gallery_G),
    )


def _closed_set(score_matrix: ArrayLike, probe_subjects: Labels, gallery_subjects: Labels) -> Searches:
    searches = search(score_matrix, probe_subjects, gallery_subjects)
    num_without = int((~searches.has_mate_N).sum())
    if num_without:
        raise InvalidInputError(
            f"{num_without} of {len(searches.has_mate_N)} probes have no mate in the gallery; "
            "remove them from a closed-set search, or use open_set_tpir"
        )
    return searches


def cmc(score_matrix: ArrayLike, probe_subjects: Labels, gallery_subjects: Labels) -> Floats:
    """Cumulative match characteristic without intervals: entry k - 1 is the rank-k rate, k = 1..G.

    Arguments and errors as in `rank_k`.
    """
    searches = _closed_set(score_matrix, probe_subjects, gallery_subjects)
    return np.array([searches.hit_share(k).mean() for k in range(1, searches.num_gallery + 1)])


def rank_k(
    score_matrix: ArrayLike,
    probe_subjects: Labels,
    gallery_subjects: Labels,
    *,
    ranks: Sequence[int] = (1, 5),
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> dict[int, Estimate]:
    """Closed-set identification: share of probes whose subject is among the best k; also re-identification rates.

    The score of a gallery subject is that of its best reference. Ties are counted in expectation as if broken at
    random, so constant scores give exactly the chance level k / G. The interval resamples probe subjects. The gallery
    is fixed, because the rate depends on its size.

    Args:
        score_matrix: (N, M) similarities, rows probes, columns gallery entries.
        probe_subjects: (N,) subject of each probe.
        gallery_subjects: (M,) subject of each gallery entry.
        ranks: values of k, each in 1..G.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the intervals.

    Returns:
        An estimate per k; `n` counts probes.

    Raises:
        ShapeError: lengths differ.
        RangeError: scores are not finite, or a rank is outside 1..G.
        InvalidInputError: a probe has no mate in the gallery, or there are fewer than two probe subjects.
    """
    searches = _closed_set(score_matrix, probe_subjects, gallery_subjects)
    for rank in ranks:
        if not 1 <= rank <= searches.num_gallery:
            raise RangeError(f"rank {rank} is not in 1..{searches.num_gallery}, the number of gallery subjects")
    return {
        rank: mean_with_interval(
            searches.hit_share(rank),
            searches.subject_N,
            seed=seed,
            num_resamples=num_resamples,
            level=level,
            is_share=True,
        )
        for rank in ranks
    }


def chance_rate(rank: int, num_gallery_subjects: int) -> float:
    """Chance level of the rank-k rate in a gallery of G subjects: k / G.

    >>> chance_rate(5, 100)
    0.05
    """
    if not 1 <= rank <= num_gallery_subjects:
        raise RangeError(f"rank {rank} is not in 1..{num_gallery_subjects}, the number of gallery subjects")
    return rank / num_gallery_subjects


def open_set_tpir(
    score_matrix: ArrayLike,
    probe_subjects: Labels,
    gallery_subjects: Labels,
    *,
    fpirs: Sequence[float] = (1e-1, 1e-2),
    rank: int = 1,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> dict[float, Estimate]:
    """Open-set identification: TPIR at each FPIR (FNIR is 1 - TPIR).

    The search of a probe without a mate is a false positive if any gallery score reaches the threshold. The search of a
    probe with a mate is a true positive if the mate is among the best `rank` and reaches the threshold. The threshold
    is the lowest empirical threshold whose FPIR is at most the requested one, chosen again in each resample.

    Args:
        score_matrix: (N, M) similarities, rows probes, columns gallery entries.
        probe_subjects: (N,) subject of each probe, some of them in the gallery and some not.
        gallery_subjects: (M,) subject of each gallery entry.
        fpirs: false positive identification rates at which TPIR is reported.
        rank: number of candidates that a search returns. A mate tied at the last place does not count as found.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of the intervals.

    Returns:
        An estimate per FPIR. `n` counts searches with a mate. `caveat` states if searches without a mate are too few.

    Raises:
        ShapeError: lengths differ.
        RangeError: scores are not finite, a rank is outside 1..G, or an FPIR is outside (0, 1].
        InvalidInputError: there are no probes with a mate, or none without.
    """
    searches = search(score_matrix, probe_subjects, gallery_subjects)
    has_mate_N = searches.has_mate_N
    num_mated, num_unmated = int(has_mate_N.sum()), int((~has_mate_N).sum())
    if num_mated == 0 or num_unmated == 0:
        missing = "with" if num_mated == 0 else "without"
        raise InvalidInputError(
            f"no probe is {missing} a mate in the gallery; an open-set rate needs probes with and without mates"
        )
    if not 1 <= rank <= searches.num_gallery:
        raise RangeError(f"rank {rank} is not in 1..{searches.num_gallery}, the number of gallery subjects")
    check_resampling(num_resamples, level, searches.num_subjects)
    order = open_set_order(searches, rank)
    bootstrap = SubjectBootstrap(
        searches.subject_N[order.order_N],
        None,
        num_subjects=searches.num_subjects,
        num_resamples=num_resamples,
        seed=seed,
    )
    caveats = [far_caveat(far, num_unmated, name="FPIR", what="searches without a mate") for far in fpirs]
    is_choice_T = ~np.isneginf(order.threshold_T)  # no threshold accepts a mate that was not found

    def all_of(weight_RN: Weights) -> Floats:
        tpir_RT, fpir_RT = order.rates(weight_RN)
        return np.stack([tar_at(tpir_RT[:, is_choice_T], fpir_RT[:, is_choice_T], far) for far in fpirs], axis=1)

    values_F = all_of(np.ones((1, len(has_mate_N)), dtype=np.float32))[0]
    resampled_RF = bootstrap.resample(all_of)
    found = [
        estimate_from(
            float(value),
            resampled_R,
            n=num_mated,
            level=level,
            method=f"bootstrap over {searches.num_subjects} subjects",
            num_independent=len(np.unique(searches.subject_N[has_mate_N])),
            caveat=caveat,
        )
        for value, resampled_R, caveat in zip(values_F, resampled_RF.T, caveats, strict=True)
    ]
    return dict(zip(fpirs, found, strict=True))


def open_set_order(searches: Searches, rank: int) -> ScoreOrder:
    """Searches as comparisons: the mate's score, minus infinity if not found, and the top score of unmated probes."""
    is_found_N = searches.num_above_N + searches.num_tied_N < rank
    mate_N = np.where(is_found_N, searches.mate_score_N, -np.inf)
    return ScoreOrder(np.where(searches.has_mate_N, mate_N, searches.top_score_N), searches.has_mate_N)
