"""Paired gaps in identification: nothing between equals, and the difference of the two systems' own figures."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import InvalidInputError, ShapeError
from ppfr.metrics import identification_report, paired_identification_gaps


def scores(separation: float, *, seed: int, num: int = 60, strangers: int = 60) -> np.ndarray:
    score_NM = np.random.default_rng(seed).normal(size=(num + strangers, num))
    score_NM[np.arange(num), np.arange(num)] += separation
    return score_NM


PROBES, GALLERY = np.arange(120), np.arange(60)


def test_a_system_has_no_gap_to_itself() -> None:
    score_NM = scores(3, seed=1)
    gaps = paired_identification_gaps(score_NM, score_NM, PROBES, GALLERY, fpirs=(0.1,), seed=1, num_resamples=50)
    for gap in (gaps.rank_1, gaps.fnir_at_fpir[0.1]):
        assert (gap.value, gap.low, gap.high) == (0, 0, 0) and gap.method.startswith("paired")


def test_gaps_are_differences_of_the_reports() -> None:
    worse, better = scores(2, seed=1), scores(4, seed=2)
    gaps = paired_identification_gaps(worse, better, PROBES, GALLERY, fpirs=(0.1,), seed=1, num_resamples=100)
    reports = [
        identification_report(s, PROBES, GALLERY, fpirs=(0.1,), ranks=(1,), seed=1, num_resamples=20)
        for s in (worse, better)
    ]
    rank = reports[0].rank[1].value - reports[1].rank[1].value
    fnir = reports[0].fnir_at_fpir[0.1].value - reports[1].fnir_at_fpir[0.1].value
    assert gaps.rank_1.value == pytest.approx(rank) and gaps.rank_1.high < 0
    assert gaps.fnir_at_fpir[0.1].value == pytest.approx(fnir) and gaps.fnir_at_fpir[0.1].low > 0
    assert gaps.to_dict()["fnir_at_fpir"]["0.1"]["caveat"].startswith("FPIR 0.1 rests on 6")


def test_other_searches_are_refused() -> None:
    score_NM = scores(3, seed=1)
    with pytest.raises(ShapeError, match="scores of the same searches"):
        paired_identification_gaps(score_NM, score_NM[:-1], PROBES, GALLERY, seed=1)
    with pytest.raises(InvalidInputError, match="without a mate"):
        paired_identification_gaps(score_NM[:60], score_NM[:60], PROBES[:60], GALLERY, seed=1)
