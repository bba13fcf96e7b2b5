"""Paired differences of two systems in identification: the same searches, the same resamples of subjects.

Suffixes: N probes, M references, R resamples, F false positive rates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ppfr.core import InvalidInputError, ShapeError
from ppfr.metrics._bootstrap import SubjectBootstrap, Weights, mean_with_interval
from ppfr.metrics._estimate import Estimate, Floats, estimate_from
from ppfr.metrics._identification import open_set_order, search
from ppfr.metrics._inputs import Labels, check_resampling
from ppfr.metrics._roc import tar_at
from ppfr.metrics._verification import far_caveat


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IdentificationGaps:
    """System minus baseline, over the same searches.

    Attributes:
        rank_1: difference of the closed-set rank-1 rate; negative if the system is worse.
        fnir_at_fpir: difference of FNIR at each FPIR; positive if the system is worse.
    """

    rank_1: Estimate
    fnir_at_fpir: Mapping[float, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; FPIRs become keys like "0.001"."""
        return {
            "rank_1": self.rank_1.to_dict(),
            "fnir_at_fpir": {f"{fpir:g}": found.to_dict() for fpir, found in self.fnir_at_fpir.items()},
        }


def paired_identification_gaps(
    system_NM: ArrayLike,
    baseline_NM: ArrayLike,
    probe_subjects: Labels,
    gallery_subjects: Labels,
    *,
    fpirs: Sequence[float] = (1e-2, 1e-3),
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> IdentificationGaps:
    """Rank-1 and FNIR at FPIR of two systems on the same searches, with paired intervals over probe subjects.

    Each system has its own thresholds, chosen again in each resample. The resamples are the same for both.

    Args:
        system_NM: (N, M) scores of the system, rows probes.
        baseline_NM: (N, M) scores of the baseline, in the same order.
        probe_subjects: (N,) as for `open_set_tpir`.
        gallery_subjects: (M,) as for `open_set_tpir`.
        fpirs: false positive identification rates.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level.

    Raises:
        ShapeError: the scores differ in shape, or the subjects in length.
        RangeError: scores are not finite, or an FPIR is outside (0, 1].
        InvalidInputError: there are no probes with a mate, or none without.
    """
    if np.shape(system_NM) != np.shape(baseline_NM):
        raise ShapeError(
            f"scores of shapes {np.shape(system_NM)} and {np.shape(baseline_NM)}; pass scores of the same searches"
        )
    both = [search(scores, probe_subjects, gallery_subjects) for scores in (system_NM, baseline_NM)]
    first, has_mate_N = both[0], both[0].has_mate_N
    if has_mate_N.all() or not has_mate_N.any():
        missing = "without" if has_mate_N.all() else "with"
        raise InvalidInputError(
            f"no probe is {missing} a mate in the gallery; an open-set rate needs probes with and without mates"
        )
    check_resampling(num_resamples, level, first.num_subjects)
    orders = [open_set_order(searches, 1) for searches in both]
    choices = [~np.isneginf(order.threshold_T) for order in orders]

    def fnir_gaps(weight_RN: Weights) -> Floats:
        tpir_2RF = []
        for order, is_choice_T in zip(orders, choices, strict=True):
            tpir_RT, fpir_RT = order.rates(np.ascontiguousarray(weight_RN[:, order.order_N]))
            tpir_2RF.append(
                np.stack([tar_at(tpir_RT[:, is_choice_T], fpir_RT[:, is_choice_T], fpir) for fpir in fpirs], axis=1)
            )
        return np.asarray(tpir_2RF[1] - tpir_2RF[0])

    bootstrap = SubjectBootstrap(
        first.subject_N, None, num_subjects=first.num_subjects, num_resamples=num_resamples, seed=seed
    )
    num_unmated = int((~has_mate_N).sum())
    caveats = [far_caveat(fpir, num_unmated, name="FPIR", what="searches without a mate") for fpir in fpirs]
    values_F, resampled_RF = (
        fnir_gaps(np.ones((1, len(has_mate_N)), dtype=np.float32))[0],
        bootstrap.resample(fnir_gaps),
    )
    hits = [searches.hit_share(1)[has_mate_N] for searches in both]
    rank_1 = mean_with_interval(
        hits[0] - hits[1], first.subject_N[has_mate_N], seed=seed, num_resamples=num_resamples, level=level
    )
    return IdentificationGaps(
        rank_1=dataclasses.replace(rank_1, method=f"paired {rank_1.method}"),
        fnir_at_fpir={
            fpir: estimate_from(
                float(value),
                resampled_R,
                n=int(has_mate_N.sum()),
                level=level,
                method=f"paired bootstrap over {first.num_subjects} subjects",
                num_independent=None,
                caveat=caveat,
            )
            for fpir, value, resampled_R, caveat in zip(fpirs, values_F, resampled_RF.T, caveats, strict=True)
        },
    )
