from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import unlinkability

QUICK = {"seed": 0, "num_resamples": 40}


def test_identical_scores_are_unlinkable_and_disjoint_ones_linkable():
    scores = np.random.default_rng(0).normal(size=500)
    same = unlinkability(scores, scores, mated_subjects=np.arange(500), **QUICK)
    assert same.d_sys.value == 0 and (same.d_local_T == 0).all()
    apart = unlinkability(scores + 100, scores, mated_subjects=np.arange(500), **QUICK)
    assert apart.d_sys.value == 1 == apart.d_sys.high
    assert apart.d_sys.n == 500 and apart.num_non_mated == 500


def test_constant_scores_link_nothing():
    found = unlinkability(np.ones(50), np.ones(80), mated_subjects=np.arange(50), **QUICK)
    assert found.d_sys.value == 0 == found.chance


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_two_normals_have_the_closed_form(distance):
    """D(s) = tanh(log LR / 2) where positive, averaged over the mated density."""
    rng = np.random.default_rng(1)
    mated, other = rng.normal(distance, 1, 200_000), rng.normal(0, 1, 200_000)
    grid = np.linspace(-8, 10, 200_001)
    local = np.maximum(0, np.tanh((distance * grid - distance**2 / 2) / 2))
    exact = np.trapezoid(local * norm.pdf(grid, distance), grid)
    found = unlinkability(mated, other, mated_subjects=np.arange(200_000) % 50, num_bins=100, seed=0, num_resamples=20)
    assert found.d_sys.value == pytest.approx(exact, abs=0.01)
    assert found.d_sys.low <= found.d_sys.value <= found.d_sys.high


def by_hand(mated, other, num_bins, low, high, omega):
    """Bin by bin, as the definition reads."""
    width = (high - low) / num_bins
    total = 0.0
    for b in range(num_bins):
        inside = [
            sum(low + b * width <= s < low + (b + 1) * width or (b == num_bins - 1 and s == high) for s in scores)
            for scores in (mated, other)
        ]
        if inside[0] == 0:
            continue
        p_mated, p_other = inside[0] / len(mated), inside[1] / len(other)
        local = 1.0 if p_other == 0 else 2 * omega * p_mated / p_other / (1 + omega * p_mated / p_other) - 1
        total += p_mated * max(0.0, local)
    return total


@settings(deadline=None, max_examples=40)
@given(
    mated=st.lists(st.integers(0, 8), min_size=2, max_size=30),
    other=st.lists(st.integers(0, 8), min_size=1, max_size=30),
    omega=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_it_is_the_definition_bin_by_bin(mated, other, omega):
    # Whole numbers over bins of width 1: no score lies where rounding decides the bin.
    found = unlinkability(
        mated,
        other,
        mated_subjects=np.arange(len(mated)),
        num_bins=9,
        score_range=(0, 9),
        omega=omega,
        seed=0,
        num_resamples=20,
    )
    assert found.d_sys.value == pytest.approx(by_hand(mated, other, 9, 0, 9, omega))
    assert 0 <= found.chance <= 1


def test_chance_is_the_value_of_unlinkable_scores():
    """The same distribution twice: D_sys is not 0, but chance is as high."""
    rng = np.random.default_rng(2)
    found = unlinkability(rng.normal(size=300), rng.normal(size=300), mated_subjects=np.arange(300), **QUICK)
    assert found.d_sys.value > 0.05
    assert found.d_sys.value == pytest.approx(found.chance, abs=0.05)


def test_intervals_are_over_subjects():
    """Ten scores of each of 30 people are alike: the interval is that of 30 draws, not of 300."""
    rng = np.random.default_rng(3)
    mated = np.repeat(rng.normal(0.5, 1, 30), 10)
    other = rng.normal(size=3000)
    together = unlinkability(mated, other, mated_subjects=np.repeat(np.arange(30), 10), num_bins=10, seed=0)
    apart = unlinkability(mated, other, mated_subjects=np.arange(300), num_bins=10, seed=0)
    assert together.d_sys.high - together.d_sys.low > 1.7 * (apart.d_sys.high - apart.d_sys.low)


def test_the_result_states_its_bins_and_is_json():
    found = unlinkability(
        np.linspace(0, 1, 120), np.linspace(0, 1, 50), mated_subjects=np.arange(120), score_range=(-1, 1), **QUICK
    )
    stated = json.loads(json.dumps(found.to_dict()))
    assert stated["num_bins"] == 12 and stated["range"] == [-1.0, 1.0] and stated["omega"] == 1.0


def test_unlinkability_rejects_invalid_input():
    scores = np.linspace(0, 1, 10)
    people = np.arange(10)
    with pytest.raises(ShapeError, match="mated_subjects"):
        unlinkability(scores, scores, mated_subjects=people[:3], **QUICK)
    with pytest.raises(RangeError, match="not finite"):
        unlinkability(scores * np.nan, scores, mated_subjects=people, **QUICK)
    with pytest.raises(RangeError, match=r"score_range=.*lowest and highest"):
        unlinkability(scores, scores, mated_subjects=people, score_range=(0, 0.5), **QUICK)
    with pytest.raises(RangeError, match="num_bins=1"):
        unlinkability(scores, scores, mated_subjects=people, num_bins=1, **QUICK)
    with pytest.raises(RangeError, match=r"omega=.*above 0"):
        unlinkability(scores, scores, mated_subjects=people, omega=0, **QUICK)
    with pytest.raises(InvalidInputError, match=r"only 1 subject.*at least 2"):
        unlinkability(scores, scores, mated_subjects=people * 0, **QUICK)
