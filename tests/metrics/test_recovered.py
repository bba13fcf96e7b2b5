from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import identity_cosine, verification_accuracy_of_recovered


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def victims():
    rng = np.random.default_rng(0)
    subjects = np.concatenate([np.repeat(np.arange(20), 3), [20, 21]])  # the last two have one image
    centre = rng.normal(size=(22, 64))
    return unit(centre[subjects] + 0.4 * rng.normal(size=(62, 64))), subjects


def test_cosine_is_of_directions():
    a, b = np.random.default_rng(0).normal(size=(2, 9, 5))
    found = identity_cosine(a, 7 * b)
    np.testing.assert_allclose(found, [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)])
    assert identity_cosine(a, a) == pytest.approx(np.ones(9)) and (identity_cosine(a, a) <= 1).all()


def test_shares_are_those_of_a_loop(victims):
    original, subjects = victims
    recovered = unit(original + 0.12 * np.random.default_rng(1).normal(size=original.shape))
    found = verification_accuracy_of_recovered(recovered, original, subjects, threshold=0.6, seed=0, num_resamples=50)
    own, kin, others = [], [], []
    for i, face in enumerate(recovered):
        passed = original @ face >= 0.6
        same = subjects == subjects[i]
        own.append(passed[i])
        others.append(passed[~same].mean())
        same[i] = False
        if same.any():
            kin.append(passed[same].mean())
    assert found.same_image.value == pytest.approx(np.mean(own)) and found.same_image.n == 62
    assert found.other_image.value == pytest.approx(np.mean(kin)) and found.other_image.n == 60
    assert found.other_subject.value == pytest.approx(np.mean(others))
    assert 0 < found.other_image.value < found.same_image.value < 1
    assert json.loads(json.dumps(found.to_dict()))["threshold"] == 0.6


def test_controls_win_and_fail(victims):
    original, subjects = victims
    perfect = verification_accuracy_of_recovered(original, original, subjects, threshold=0.7, seed=0)
    assert perfect.same_image.value == 1.0 and perfect.same_image.low < 1.0
    assert perfect.other_subject.value < 0.02
    average = np.repeat(original.mean(axis=0, keepdims=True), 62, axis=0)
    nothing = verification_accuracy_of_recovered(average, original, subjects, threshold=0.1, seed=0)
    # A face that anyone matches passes as its victim, and as all the others: the third share tells.
    assert nothing.other_subject.value == pytest.approx(nothing.same_image.value, abs=0.05)
    assert nothing.same_image.value > 0.3


def test_other_image_is_none_without_a_second_image(victims):
    original, _ = victims
    found = verification_accuracy_of_recovered(original, original, np.arange(62), threshold=0.5, seed=0)
    assert found.other_image is None


def test_recovered_acceptance_rejects_invalid_input(victims):
    original, subjects = victims
    with pytest.raises(ShapeError, match="must be equal"):
        identity_cosine(original, original[:3])
    with pytest.raises(RangeError, match=r"1 rows of .* are zero"):
        identity_cosine(original[:2], np.array([original[0], 0 * original[1]]))
    with pytest.raises(RangeError, match="not finite"):
        identity_cosine(original, original * np.nan)
    with pytest.raises(InvalidInputError, match=r"recovered faces belong to one subject.*at least 2"):
        verification_accuracy_of_recovered(original, original, np.zeros(62), threshold=0.5, seed=0)
    with pytest.raises(RangeError, match=r"NaN.*threshold_at_far"):
        verification_accuracy_of_recovered(original, original, subjects, threshold=float("nan"), seed=0)
