"""The paired gap: against counting by hand, against the unpaired spread, and its coverage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ppfr.core import InvalidInputError
from ppfr.metrics import Comparisons, paired_accuracy_gap, ten_fold_accuracy, verification_report


def _pairs(rng: np.random.Generator, *, num_folds: int = 10, per_fold: int = 60) -> dict[str, np.ndarray]:
    num = num_folds * per_fold
    is_genuine = np.arange(num) % 2 == 0
    subject_a = np.arange(num) // 2
    subject_b = np.where(is_genuine, subject_a, (subject_a + 1 + rng.integers(0, 50, num)) % num)
    subject_b = np.where(~is_genuine & (subject_b == subject_a), (subject_a + 1) % num, subject_b)
    return {
        "is_genuine": is_genuine,
        "subject_a": subject_a,
        "subject_b": subject_b,
        "fold": np.arange(num) // per_fold,
    }


def _scored(pairs: dict[str, np.ndarray], scores: np.ndarray) -> Comparisons:
    return Comparisons(scores=scores, **pairs)


def test_gap_is_the_difference_of_the_two_accuracies_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(1)
    pairs = _pairs(rng)
    difficulty = rng.normal(size=len(pairs["fold"]))
    base = np.where(pairs["is_genuine"], 1.2, -1.2) + difficulty
    system = base + rng.normal(scale=0.15, size=len(base))
    gap = paired_accuracy_gap(_scored(pairs, system), _scored(pairs, base), seed=3)
    each = [ten_fold_accuracy(s, pairs["is_genuine"], pairs["fold"]).mean for s in (system, base)]
    assert gap.value == pytest.approx(each[0] - each[1], abs=1e-12)
    assert gap.low <= gap.value <= gap.high
    assert gap.n == len(base)
    alone = verification_report(_scored(pairs, system), seed=3).accuracy
    assert alone is not None
    unpaired_width = np.sqrt(2) * (alone.high - alone.low)
    assert gap.high - gap.low < 0.6 * unpaired_width


def test_a_system_against_itself_has_no_gap() -> None:
    rng = np.random.default_rng(2)
    pairs = _pairs(rng)
    scores = rng.normal(size=len(pairs["fold"])) + pairs["is_genuine"]
    gap = paired_accuracy_gap(_scored(pairs, scores), _scored(pairs, scores), seed=1)
    assert (gap.low, gap.value, gap.high) == (0, 0, 0)


def test_interval_covers_the_true_gap_at_the_nominal_rate() -> None:
    # Scores are independent of subjects here, so the true gap is that of two Gaussian detectors at their thresholds.
    rng = np.random.default_rng(5)
    gaps, held = [], []
    for _ in range(120):
        pairs = _pairs(rng, per_fold=30)
        sign = np.where(pairs["is_genuine"], 1.0, -1.0)
        noise = rng.normal(size=len(sign))
        gaps.append((_scored(pairs, 0.8 * sign + noise), _scored(pairs, 1.0 * sign + noise)))
    estimates = [paired_accuracy_gap(a, b, seed=9, num_resamples=300) for a, b in gaps]
    truth = np.mean([e.value for e in estimates])
    held = [e.low <= truth <= e.high for e in estimates]
    assert 0.88 <= np.mean(held) <= 1.0


def test_paired_gap_rejects_other_comparisons_and_missing_folds() -> None:
    rng = np.random.default_rng(3)
    pairs = _pairs(rng)
    one = _scored(pairs, rng.normal(size=len(pairs["fold"])))
    reversed_folds = dataclasses.replace(one, fold=pairs["fold"][::-1].copy())
    with pytest.raises(InvalidInputError, match="differ in fold"):
        paired_accuracy_gap(one, reversed_folds, seed=1)
    with pytest.raises(InvalidInputError, match="baseline's comparisons have no folds"):
        paired_accuracy_gap(one, dataclasses.replace(one, fold=None), seed=1)
