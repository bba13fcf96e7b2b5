from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import inversion_success

REFERENCES = np.eye(6)[[0, 0, 1, 1, 2, 2]]
SUBJECTS = np.array([0, 0, 1, 1, 2, 2])


def test_rates_by_hand():
    """Target 0 is recovered, target 1 resembles subject 2, target 2 is accepted against one of two references."""
    references = REFERENCES.copy()
    references[5] = np.eye(6)[5]
    recovered = np.eye(6)[[0, 2, 2]] * [[1.0], [0.1], [20.0]]
    found = inversion_success(recovered, [0, 1, 2], references, SUBJECTS, threshold=0.9, seed=0, num_resamples=50)
    assert found.success.value == pytest.approx((1 + 0 + 0.5) / 3) and found.success.n == 3
    assert found.other_subject.value == pytest.approx((0 + 1 / 4 + 0) / 3)
    assert found.accuracy.value == pytest.approx((found.success.value + 1 - found.other_subject.value) / 2)
    assert found.solved == 1 and json.dumps(found.to_dict())


def test_unsolved_rows_count_as_failures():
    recovered = np.eye(6)[[0, 1, 2]]
    options = {"threshold": 0.9, "seed": 0, "num_resamples": 50}
    every = inversion_success(recovered, [0, 1, 2], REFERENCES, SUBJECTS, **options)
    some = inversion_success(recovered, [0, 1, 2], REFERENCES, SUBJECTS, solved_N=[True, False, True], **options)
    assert every.success.value == 1 and every.success.low < 1, "one outcome alone still has an interval"
    assert some.success.value == pytest.approx(2 / 3) and some.solved == pytest.approx(2 / 3)


def test_shares_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    subjects = np.concatenate([np.repeat(np.arange(20), 3), [20, 21]])
    references = rng.normal(size=(22, 64))[subjects] + 0.4 * rng.normal(size=(62, 64))
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    recovered = references + 0.12 * rng.normal(size=references.shape)
    recovered /= np.linalg.norm(recovered, axis=1, keepdims=True)
    found = inversion_success(recovered, subjects, references, subjects, threshold=0.6, seed=0, num_resamples=50)
    own, others = [], []
    for face, subject in zip(recovered, subjects, strict=True):
        accepted = references @ face >= 0.6
        own.append(accepted[subjects == subject].mean())
        others.append(accepted[subjects != subject].mean())
    assert found.success.value == pytest.approx(np.mean(own)) and found.success.n == 62
    assert found.other_subject.value == pytest.approx(np.mean(others))


def test_average_faces_have_a_high_false_match_rate():
    rng = np.random.default_rng(0)
    mean = np.ones(6)
    references = mean + 0.1 * rng.normal(size=(40, 6))
    recovered = mean + 0.1 * rng.normal(size=(20, 6))
    found = inversion_success(
        recovered, np.arange(20), references, np.arange(40) % 20, threshold=0.9, seed=0, num_resamples=50
    )
    assert found.success.value == 1 and found.other_subject.value == 1


def test_inversion_success_rejects_invalid_input():
    options = {"threshold": 0.5, "seed": 0}
    with pytest.raises(InvalidInputError, match=r"1 of 2 target templates .*add references"):
        inversion_success(np.eye(6)[:2], [0, 9], REFERENCES, SUBJECTS, **options)
    with pytest.raises(ShapeError, match="one per row"):
        inversion_success(np.eye(6)[:2], [0], REFERENCES, SUBJECTS, **options)
    with pytest.raises(ShapeError, match="one per row"):
        inversion_success(np.eye(6)[:2], [0, 1], REFERENCES, SUBJECTS, solved_N=[True], **options)
    with pytest.raises(RangeError, match="rows of recovered are zero"):
        inversion_success(np.zeros((2, 6)), [0, 1], REFERENCES, SUBJECTS, **options)
    with pytest.raises(RangeError, match=r"NaN.*threshold_at_far"):
        inversion_success(np.eye(6)[:2], [0, 1], REFERENCES, SUBJECTS, threshold=float("nan"), seed=0)
    with pytest.raises(InvalidInputError, match=r"only 1 subject.*at least 2"):
        inversion_success(np.eye(6)[:2], [0, 0], REFERENCES, SUBJECTS, **options)
