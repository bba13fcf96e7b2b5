from __future__ import annotations

import json
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import (
    Comparisons,
    auc,
    eer,
    fmr,
    fnmr,
    roc,
    tar_at_far,
    ten_fold_accuracy,
    threshold_at_far,
    verification_report,
)
from reference import error_rates

PHI = NormalDist()
few_values = st.sampled_from([-1.0, -0.25, 0.0, 0.1, 0.5, 0.75, 1.0])  # so that ties are common
score_lists = npst.arrays(np.float64, st.integers(1, 30), elements=few_values)


def joined(genuine, impostor):
    return np.concatenate([genuine, impostor]), np.arange(len(genuine) + len(impostor)) < len(genuine)


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1.5, 1, 700).round(2), rng.normal(0, 1, 900).round(2)
    return genuine, impostor


def test_roc_equals_scikit_learn(scored):
    curve = roc(*scored)
    scores, is_genuine = joined(*scored)
    fpr, tpr, thresholds = roc_curve(is_genuine, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.fmr_T, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.tar_T, tpr, atol=1e-12)
    np.testing.assert_array_equal(curve.threshold_T, thresholds)
    assert curve.auc() == pytest.approx(roc_auc_score(is_genuine, scores), abs=1e-12)
    crossing = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    assert curve.eer() == pytest.approx(crossing, abs=2e-3)


@settings(deadline=None, max_examples=60)
@given(genuine=score_lists, impostor=score_lists)
def test_rates_equal_the_slow_reference_with_ties(genuine, impostor):
    curve = roc(genuine, impostor)
    scores, is_genuine = joined(genuine, impostor)
    for threshold, tar, rate in zip(curve.threshold_T, curve.tar_T, curve.fmr_T, strict=True):
        assert (tar, rate) == pytest.approx(error_rates.rates_at(threshold, scores, is_genuine))
    assert curve.auc() == pytest.approx(error_rates.auc(scores, is_genuine))
    for far in (0.0, 0.1, 0.5, 1.0):
        assert curve.tar_at_far(far) == pytest.approx(error_rates.tar_at_far(far, scores, is_genuine))


@settings(deadline=None, max_examples=40)
@given(genuine=score_lists, impostor=score_lists, seed=st.integers(0, 99))
def test_curve_properties(genuine, impostor, seed):
    curve = roc(genuine, impostor)
    assert (np.diff(curve.fmr_T) >= 0).all() and (np.diff(curve.fnmr_T) <= 0).all()
    assert (curve.fmr_T[0], curve.tar_T[0], curve.fmr_T[-1], curve.tar_T[-1]) == (0, 0, 1, 1)
    assert 0 <= curve.eer() <= 1
    mirrored = roc(-impostor, -genuine)
    assert mirrored.eer() == pytest.approx(curve.eer(), abs=1e-12)
    assert mirrored.auc() == pytest.approx(curve.auc(), abs=1e-12)
    rng = np.random.default_rng(seed)
    shuffled = roc(rng.permutation(genuine), rng.permutation(impostor))
    np.testing.assert_array_equal(shuffled.tar_T, curve.tar_T)
    monotone = roc(np.exp(genuine), np.exp(impostor))
    assert monotone.eer() == curve.eer()


def test_closed_form_rates(make_comparisons):
    d = 2.0
    c = make_comparisons(separation=d, num_subjects=30_000, genuine_each=2, num_impostor=60_000, shared=0.0, seed=3)
    curve = c.roc()
    assert curve.eer() == pytest.approx(PHI.cdf(-d / 2), abs=0.004)
    assert curve.auc() == pytest.approx(PHI.cdf(d / np.sqrt(2)), abs=0.003)
    assert curve.tar_at_far(1e-2) == pytest.approx(1 - PHI.cdf(PHI.inv_cdf(0.99) - d), abs=0.02)
    assert curve.threshold_at_far(1e-2) == pytest.approx(PHI.inv_cdf(0.99), abs=0.05)


def test_threshold_at_far_bounds_the_false_accept_rate(scored):
    genuine, impostor = scored
    for far in (1e-3, 1e-2, 0.1):
        threshold = threshold_at_far(genuine, impostor, far)
        assert np.mean(impostor >= threshold) <= far
        lower = np.max(np.concatenate(scored)[np.concatenate(scored) < threshold])
        assert np.mean(impostor >= lower) > far
    assert threshold_at_far([0.1, 0.2], [0.9, 0.9], 0.1) == np.inf


def test_far_that_is_a_whole_number_of_errors_admits_them():
    impostor = np.arange(3000) / 3000
    assert roc([0.9995], impostor).tar_at_far(1e-3) == roc([0.9995], impostor).tar_at_far(2 / 3000) == 1.0
    for num in range(1, 200):
        assert np.sum(impostor >= threshold_at_far([2.0], impostor, num / 3000)) == num


def test_random_scores_are_chance():
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(2, 6000, 64))
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    scores = (embeddings[0] * embeddings[1]).sum(axis=1)
    is_genuine, fold = np.arange(6000) % 2 == 0, np.arange(6000) // 600
    curve = roc(scores[is_genuine], scores[~is_genuine])
    assert curve.auc() == pytest.approx(0.5, abs=0.03)
    assert curve.eer() == pytest.approx(0.5, abs=0.03)
    assert ten_fold_accuracy(scores, is_genuine, fold).mean == pytest.approx(0.5, abs=0.025)


def test_identical_and_orthogonal_pairs_are_all_right():
    scores = np.where(np.arange(200) % 2 == 0, 1.0 - 1e-7 * np.arange(200), 1e-7 * np.arange(200))
    found = ten_fold_accuracy(scores, np.arange(200) % 2 == 0, np.arange(200) // 20)
    assert (found.mean, found.std, found.standard_error) == (1.0, 0.0, 0.0)


def test_constant_scores_are_chance_not_an_error():
    is_genuine = np.arange(100) % 2 == 0
    subjects = np.arange(100)
    c = Comparisons(
        scores=np.ones(100),
        is_genuine=is_genuine,
        subject_a=subjects,
        subject_b=np.where(is_genuine, subjects, (subjects + 1) % 100),
        fold=np.arange(100) // 10,
    )
    report = verification_report(c, seed=0, fars=(0.1,), num_resamples=50)
    assert (report.eer.value, report.auc.value, report.tar_at_far[0.1].value) == (0.5, 0.5, 0.0)
    assert report.accuracy.value == 0.5


@settings(deadline=None, max_examples=40)
@given(data=st.data(), num_folds=st.integers(2, 5))
def test_fold_accuracy_equals_the_slow_reference(data, num_folds):
    num = 12 * num_folds
    scores = data.draw(npst.arrays(np.float64, num, elements=few_values))
    is_genuine = np.arange(num) % 2 == 0
    fold = np.arange(num) // 12
    found = ten_fold_accuracy(scores, is_genuine, fold)
    expected = error_rates.fold_accuracies(scores.tolist(), is_genuine.tolist(), fold.tolist())
    np.testing.assert_allclose(found.accuracy_F, [a for a, _ in expected])
    np.testing.assert_allclose(found.threshold_F, [t for _, t in expected])
    spread = np.std([a for a, _ in expected])
    assert found.std == pytest.approx(spread)
    assert found.standard_error == pytest.approx(spread / np.sqrt(num_folds - 1))


def test_a_folds_threshold_does_not_see_the_fold():
    rng = np.random.default_rng(1)
    num = 400
    is_genuine, fold = np.arange(num) % 2 == 0, np.arange(num) // 40
    scores = rng.normal(size=num) + is_genuine
    before = ten_fold_accuracy(scores, is_genuine, fold)
    for f in range(10):
        changed, relabelled = scores.copy(), is_genuine.copy()
        changed[fold == f] = rng.normal(size=40) * 5
        relabelled[fold == f] ^= True
        after = ten_fold_accuracy(changed, relabelled, fold)
        assert after.threshold_F[f] == before.threshold_F[f]
        assert (np.delete(after.threshold_F, f) != np.delete(before.threshold_F, f)).any()


def test_resampled_rates_are_those_of_subjects_drawn_by_hand():
    """One resample, its weights spelled out as repeated comparisons, against the weighted curve."""
    from ppfr.metrics._roc import ScoreOrder, auc_of, eer_of, tar_at

    rng = np.random.default_rng(7)
    scores, is_genuine = rng.normal(size=120).round(1), np.arange(120) % 3 == 0
    weights = rng.integers(0, 4, size=(3, 120)).astype(np.float32)
    order = ScoreOrder(scores, is_genuine)
    tar_RT, fmr_RT = order.rates(weights[:, order.order_N])
    for row, weight in enumerate(weights.astype(int)):
        repeated, truth = np.repeat(scores, weight), np.repeat(is_genuine, weight)
        curve = roc(repeated[truth], repeated[~truth])
        assert eer_of(tar_RT, fmr_RT)[row] == pytest.approx(curve.eer(), abs=1e-9)
        assert auc_of(tar_RT, fmr_RT)[row] == pytest.approx(curve.auc(), abs=1e-9)
        assert tar_at(tar_RT, fmr_RT, 0.1)[row] == pytest.approx(curve.tar_at_far(0.1), abs=1e-9)


def test_rates_at_a_threshold(make_comparisons):
    c = make_comparisons(separation=2.0, num_subjects=80, genuine_each=3, num_impostor=300, shared=0.2, seed=0)
    for threshold in (-1.0, float(c.scores[5]), 1.0, np.inf, -np.inf):
        tar, rate = error_rates.rates_at(threshold, c.scores, c.is_genuine)
        match, non_match = (f(c, threshold, seed=0, num_resamples=50) for f in (fmr, fnmr))
        assert match.value == pytest.approx(rate) and non_match.value == pytest.approx(1 - tar)
        assert (match.n, non_match.n) == (300, 240)
        assert match.low <= match.value <= match.high
    assert fmr(c, np.inf, seed=0).high > 0.01  # no error seen is not no error


def test_report_agrees_with_the_single_functions_and_is_json(make_comparisons):
    c = make_comparisons(separation=3.0, num_subjects=200, genuine_each=2, num_impostor=400, shared=0.2, seed=0)
    report = verification_report(c, seed=4, num_resamples=60)
    assert report.eer == eer(c, seed=4, num_resamples=60)
    assert report.auc == auc(c, seed=4, num_resamples=60)
    assert report.tar_at_far == tar_at_far(c, seed=4, num_resamples=60)
    assert report != verification_report(c, seed=5, num_resamples=60)
    assert report.accuracy.value == pytest.approx(ten_fold_accuracy(c.scores, c.is_genuine, c.fold).mean, abs=1e-12)
    kept = json.loads(json.dumps(report.to_dict()))
    assert kept["tar_at_far"]["0.001"]["caveat"].startswith("400 impostor comparisons cannot show FAR 0.001")
    assert "rule of 30" in kept["tar_at_far"]["0.01"]["caveat"]
    assert kept["accuracy"]["n"] == 800 and "bootstrap over 200 subjects" in kept["accuracy"]["method"]


def test_permutation_of_comparisons_changes_no_value(make_comparisons):
    c = make_comparisons(separation=2.0, num_subjects=50, genuine_each=2, num_impostor=100, shared=0.2, seed=0)
    p = np.random.default_rng(0).permutation(200)
    moved = Comparisons(
        scores=c.scores[p],
        is_genuine=c.is_genuine[p],
        subject_a=c.subject_a[p],
        subject_b=c.subject_b[p],
        fold=c.fold[p],
    )
    a, b = (verification_report(x, seed=0, num_resamples=50) for x in (c, moved))
    assert a.eer == b.eer and a.auc.value == pytest.approx(b.auc.value)
    assert a.accuracy.value == b.accuracy.value


def test_thinned_curve_keeps_ends_and_low_rates(scored):
    curve = roc(*scored)
    thin = curve.thinned(60)
    assert len(thin.fmr_T) < 80 < len(curve.fmr_T)
    assert (thin.fmr_T[0], thin.fmr_T[-1]) == (0, 1)
    assert set(zip(thin.fmr_T, thin.tar_T, strict=True)) <= set(zip(curve.fmr_T, curve.tar_T, strict=True))
    assert np.max(np.abs(np.interp(curve.fmr_T, thin.fmr_T, thin.tar_T) - curve.tar_T)) < 0.08


GOOD = {"scores": [0.9, 0.8, 0.1, 0.2], "is_genuine": [True, True, False, False]}
WHO = {"subject_a": list("abac"), "subject_b": list("abba")}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"scores": [0.9, float("nan"), 0.1, float("inf")]},
            RangeError,
            "2 of 4 values of scores",
        ),
        ({"scores": [0.9, 0.8, 0.1]}, ShapeError, "is_genuine has shape"),
        ({"scores": [[0.9, 0.8, 0.1, 0.2]]}, ShapeError, "ndim=1"),
        ({"is_genuine": [False] * 4}, InvalidInputError, "no genuine comparison among 4"),
        ({"is_genuine": [True] * 4}, InvalidInputError, "no impostor comparison among 4"),
        ({"subject_a": list("abac")}, InvalidInputError, "pass both or neither"),
        ({**WHO, "subject_b": list("abb")}, ShapeError, r"one label per row, \(4,\)"),
        ({**WHO, "subject_b": list("aaba")}, InvalidInputError, "1 comparisons are genuine between two subjects"),
        ({"fold": [0, 0, 0, 0]}, InvalidInputError, "there is 1 fold"),
        ({"fold": [0, 1]}, ShapeError, r"one label per row, \(4,\)"),
    ],
)
def test_comparisons_reject_inconsistent_input(change, error, text):
    with pytest.raises(error, match=text):
        Comparisons(**{**GOOD, **change})


def test_rates_reject_invalid_arguments():
    c = Comparisons(**GOOD, **WHO)
    with pytest.raises(ShapeError, match="genuine scores has shape"):
        roc([], [0.1])
    with pytest.raises(RangeError, match=r"FAR 0 is not a rate; .*\(0, 1\]"):
        tar_at_far(c, fars=(0,), seed=0)
    with pytest.raises(RangeError, match=r"in \[0, 1\]"):
        roc([0.5], [0.1]).tar_at_far(2.0)
    with pytest.raises(RangeError, match="threshold is NaN"):
        fmr(c, float("nan"), seed=0)
    with pytest.raises(RangeError, match="level=95"):
        eer(c, seed=0, level=95)
    with pytest.raises(InvalidInputError, match="at least 20"):
        eer(c, seed=0, num_resamples=1)
    with pytest.raises(InvalidInputError, match=r"outside fold 0 .*both kinds to every fold"):
        ten_fold_accuracy(**GOOD, fold=[0, 0, 1, 1])
    assert "0.9" not in repr(c) and "'a'" not in repr(c)
