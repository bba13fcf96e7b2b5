"""Report of a 1:N search with distractors: FNIR at FPIR, rank-k and CMC. Suffixes: N probes, M references."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ppfr.core import RangeError, ShapeError
from ppfr.metrics._estimate import Estimate, Floats
from ppfr.metrics._identification import cmc, open_set_tpir, rank_k
from ppfr.metrics._inputs import Labels


def open_set_fnir(
    score_matrix: ArrayLike,
    probe_subjects: Labels,
    gallery_subjects: Labels,
    *,
    fpirs: Sequence[float] = (1e-2, 1e-3),
    rank: int = 1,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> dict[float, Estimate]:
    """FNIR at each FPIR: 1 - `open_set_tpir`, with the same arguments, errors and caveats."""
    tpir = open_set_tpir(
        score_matrix,
        probe_subjects,
        gallery_subjects,
        fpirs=fpirs,
        rank=rank,
        seed=seed,
        num_resamples=num_resamples,
        level=level,
    )
    return {
        fpir: dataclasses.replace(found, value=1 - found.value, low=1 - found.high, high=1 - found.low)
        for fpir, found in tpir.items()
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IdentificationReport:
    """A 1:N search, closed-set and open-set.

    Attributes:
        fnir_at_fpir: false negative identification rate at each false positive rate; `n` counts searches with a mate.
        rank: closed-set rank-k rates over the probes with a mate.
        cmc_K: closed-set rate at ranks 1..K, K at most 100.
        num_references: M.
        num_mated: searches with a mate in the gallery.
        num_unmated: searches without one (distractors).
    """

    fnir_at_fpir: Mapping[float, Estimate]
    rank: Mapping[int, Estimate]
    cmc_K: Floats
    num_references: int
    num_mated: int
    num_unmated: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; FPIRs and ranks become keys like "0.001" and "1"."""
        return {
            "fnir_at_fpir": {f"{fpir:g}": found.to_dict() for fpir, found in self.fnir_at_fpir.items()},
            "rank": {str(k): found.to_dict() for k, found in self.rank.items()},
            "cmc": [float(value) for value in self.cmc_K],
            "num_references": self.num_references,
            "num_mated": self.num_mated,
            "num_unmated": self.num_unmated,
        }


def identification_report(
    score_matrix: ArrayLike,
    probe_subjects: Labels,
    gallery_subjects: Labels,
    *,
    fpirs: Sequence[float] = (1e-2, 1e-3),
    ranks: Sequence[int] = (1, 5),
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> IdentificationReport:
    """FNIR at each FPIR, rank-k and CMC of one search.

    Args:
        score_matrix: (N, M) similarities, rows probes, columns gallery entries.
        probe_subjects: (N,) subject of each probe, some of them in the gallery and some not.
        gallery_subjects: (M,) subject of each gallery entry.
        fpirs: false positive identification rates.
        ranks: closed-set ranks.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples over probe subjects.
        level: confidence level.

    Raises:
        ShapeError: lengths differ.
        RangeError: scores are not finite, a rank is outside 1..G, or an FPIR is outside (0, 1].
        InvalidInputError: there are no probes with a mate, or none without.
    """
    score_NM = np.asarray(score_matrix)
    subject_N, subject_M = np.asarray(probe_subjects), np.asarray(gallery_subjects)
    if score_NM.shape != (*subject_N.shape, *subject_M.shape):
        raise ShapeError(
            f"scores are {score_NM.shape}, probe subjects {subject_N.shape}, gallery subjects {subject_M.shape}; "
            "pass one subject per row and per column"
        )
    if any(k < 1 for k in ranks):
        raise RangeError(f"ranks is {tuple(ranks)}; every rank must be at least 1")
    has_mate_N = np.isin(subject_N, subject_M)
    fnir = open_set_fnir(
        score_NM, subject_N, subject_M, fpirs=fpirs, seed=seed, num_resamples=num_resamples, level=level
    )
    mated_NM, mated_subject_N = score_NM[has_mate_N], subject_N[has_mate_N]
    return IdentificationReport(
        fnir_at_fpir=fnir,
        rank=rank_k(
            mated_NM, mated_subject_N, subject_M, ranks=ranks, seed=seed, num_resamples=num_resamples, level=level
        ),
        cmc_K=cmc(mated_NM, mated_subject_N, subject_M)[:100],
        num_references=len(subject_M),
        num_mated=int(has_mate_N.sum()),
        num_unmated=int((~has_mate_N).sum()),
    )
