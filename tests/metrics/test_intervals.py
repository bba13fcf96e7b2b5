from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import Comparisons, Estimate, eer, fmr, mean_with_interval
from ppfr.metrics._bootstrap import SubjectBootstrap, dyadic_shrink, multiplicities
from ppfr.metrics._estimate import wilson

PHI = NormalDist()


def test_estimate_is_printed_with_interval_and_sample_size():
    e = Estimate(value=0.5, low=0.25, high=0.75, n=1234, method="bootstrap over 9 subjects", caveat="too few")
    assert str(e) == "0.5000 [0.2500, 0.7500] (95 %, n = 1,234, bootstrap over 9 subjects; too few)"
    assert e.as_percent(1) == "50.0 [25.0, 75.0]"
    assert Estimate(**e.to_dict()) == e


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 50), (50, 50)])
def test_wilson_equals_scipy(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.9, method="wilson")
    assert wilson(hits / n, n, level=0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_multiplicities_are_draws_with_replacement():
    drawn = multiplicities(50, 4000, rng=np.random.default_rng(0))
    assert (drawn.sum(axis=1) == 50).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=0.08)
    assert drawn.var(axis=0).mean() == pytest.approx(1 - 1 / 50, abs=0.02)


def test_weights_are_products_between_and_single_within_subjects():
    a, b = np.array([0, 1, 2, 3, 0]), np.array([0, 1, 3, 1, 2])
    kwargs = {"num_subjects": 4, "num_resamples": 50, "seed": 3}
    weights = np.concatenate(list(SubjectBootstrap(a, b, **kwargs).weights()))
    drawn = np.concatenate(list(SubjectBootstrap(np.arange(4), None, **kwargs).weights()))
    expected = np.where(a == b, drawn[:, a], drawn[:, a] * drawn[:, b])
    np.testing.assert_array_equal(weights, expected)
    half = np.concatenate(list(SubjectBootstrap(a, b, shrink=0.5, **kwargs).weights()))
    np.testing.assert_allclose(half, np.where(a == b, expected, 0.5 + expected / 2))


def test_shrink_follows_how_much_subjects_share():
    rng = np.random.default_rng(0)
    a = rng.integers(100, size=20_000)
    b = (a + 1 + rng.integers(99, size=20_000)) % 100
    alone = dyadic_shrink(rng.normal(size=20_000), a, b)
    level = rng.normal(size=100)
    together = dyadic_shrink(level[a] + level[b], a, b)
    assert alone == pytest.approx(np.sqrt(2 / 3), abs=0.05)  # A = 2 B for independent pairs
    assert together > 0.99
    assert dyadic_shrink(np.ones(20_000), a, b) == 1.0


def test_mean_interval_is_the_cluster_standard_error():
    rng = np.random.default_rng(2)
    subjects = np.repeat(np.arange(400), 5)
    values = rng.normal(size=400)[subjects] + 0.3 * rng.normal(size=2000)
    found = mean_with_interval(values, subjects, seed=0, num_resamples=4000)
    by_subject = values.reshape(400, 5).mean(axis=1)
    half = 1.96 * by_subject.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    assert (found.n, found.level) == (2000, 0.95)
    images_alone = mean_with_interval(values, np.arange(2000), seed=0)
    assert images_alone.high - images_alone.low < 0.6 * (found.high - found.low)


def test_a_share_of_one_has_width_and_a_level_is_kept():
    found = mean_with_interval(np.ones(30), np.arange(30) // 2, seed=0, is_share=True)
    assert found.high == 1.0 and found.low == pytest.approx(wilson(1.0, 15, level=0.95)[0])
    values = np.random.default_rng(0).normal(size=200)
    narrow, wide = (mean_with_interval(values, np.arange(200), seed=0, level=level) for level in (0.5, 0.99))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_same_seed_same_interval():
    values, subjects = np.random.default_rng(0).normal(size=60), np.arange(60) // 3
    assert mean_with_interval(values, subjects, seed=1) == mean_with_interval(values, subjects, seed=1)
    assert mean_with_interval(values, subjects, seed=1) != mean_with_interval(values, subjects, seed=2)


def coverage(make, statistic, truth, repeats=100, **design):
    hits = 0
    for seed in range(repeats):
        found = statistic(make(seed=seed, separation=3.0, **design), seed=seed)
        hits += found.low <= truth <= found.high
    return hits / repeats


def test_intervals_cover_where_subjects_share_scores(make_comparisons):
    """Ten genuine comparisons a subject, half of the variance shared: resampling comparisons alone misses by far."""
    design = {"num_subjects": 60, "genuine_each": 10, "num_impostor": 600, "shared": 0.5}
    truth = PHI.cdf(-1.5)

    def over_comparisons(c, seed):
        unknown = Comparisons(scores=c.scores, is_genuine=c.is_genuine)
        return eer(unknown, seed=seed, num_resamples=200)

    over_subjects = coverage(make_comparisons, lambda c, seed: eer(c, seed=seed, num_resamples=200), truth, **design)
    naive = coverage(make_comparisons, over_comparisons, truth, **design)
    assert over_subjects >= 0.88
    assert naive <= 0.8


def test_intervals_cover_independent_comparisons_and_are_not_far_too_wide(make_comparisons):
    design = {"num_subjects": 300, "genuine_each": 1, "num_impostor": 300, "shared": 0.0}
    truth = PHI.cdf(-1.5)
    assert coverage(make_comparisons, lambda c, seed: eer(c, seed=seed, num_resamples=200), truth, **design) >= 0.93
    c = make_comparisons(seed=0, separation=3.0, **design)
    found = fmr(c, 1.5, seed=0, num_resamples=2000)
    low, high = wilson(found.value, 300, level=0.95)
    assert 1.0 < (found.high - found.low) / (high - low) < 1.6


def test_mean_with_interval_rejects_invalid_input():
    with pytest.raises(RangeError, match="1 of 2 values of values"):
        mean_with_interval([1.0, np.nan], [0, 1], seed=0)
    with pytest.raises(ShapeError, match=r"one label per row, \(2,\)"):
        mean_with_interval([1.0, 2.0], [0], seed=0)
    with pytest.raises(InvalidInputError, match=r"only 1 subject.*at least 2"):
        mean_with_interval([1.0, 2.0], ["a", "a"], seed=0)
