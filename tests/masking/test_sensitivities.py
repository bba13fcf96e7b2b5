"""Sensitivities: the ranges that they are measured from, what lies outside, and rejected input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.data import ArrayImageSet
from ppfr.masking import Hfcf, LaplaceBudget, NoisyFrontEnd, Sensitivities
from ppfr.masking._noise import ImageNoise
from support.noisy_masking import RANGES, REFERENCE, TINY, as_images, budget, pixels, rng


def test_ranges_are_the_extremes_of_the_reference() -> None:
    found = TINY.coefficients(as_images(REFERENCE)).numpy()
    np.testing.assert_array_equal(RANGES.low, found.min(0))
    np.testing.assert_array_equal(RANGES.high, found.max(0))
    images = ArrayImageSet(REFERENCE, [str(i) for i in range(40)], name="reference", signatures=None)
    assert Sensitivities.measure(images, TINY).sha256 == RANGES.sha256


def test_what_lies_outside_is_clipped_so_that_the_guarantee_holds_for_any_face() -> None:
    huge = budget(1e9, learns=False)  # noise of a billionth
    wild = 100 * (torch.rand(4, *TINY.out_shape, generator=rng(1)) - 0.5)
    wanted = wild.clamp(torch.tensor(RANGES.low), torch.tensor(RANGES.high))
    assert (wanted != wild).any()
    torch.testing.assert_close(huge.add_noise(wild.clone(), ImageNoise(4, rng=rng())), wanted, rtol=0, atol=1e-4)
    with_gradient = budget(1e9).add_noise(wild.clone(), ImageNoise(4, rng=rng()))
    torch.testing.assert_close(with_gradient.detach(), wanted, rtol=0, atol=1e-4)


def test_a_coefficient_in_which_all_faces_agree_says_nothing_and_has_no_noise() -> None:
    flat = np.full((3, 16, 16, 3), 77, np.uint8)
    made = LaplaceBudget(TINY, eps_mean=1.0, sensitivities=Sensitivities.measure(flat, TINY))
    masked = made.add_noise(TINY.coefficients(as_images(REFERENCE)), ImageNoise(40, rng=rng()))
    assert (masked == masked[:1]).all()


def test_sensitivities_of_another_front_end_or_data_set_are_rejected() -> None:
    other_front_end = NoisyFrontEnd(front_end="block", stride=8, num_channels=10, fuses=True, in_shape=(3, 16, 16))
    names = {
        RANGES.sha256,
        Sensitivities.measure(REFERENCE[:39], TINY).sha256,
        Sensitivities.measure(REFERENCE[::-1], TINY).sha256,
        Sensitivities.measure(REFERENCE, other_front_end).sha256,
    }
    assert len(names) == 4
    another_set = Sensitivities.measure(pixels(40, seed=2), TINY)
    with pytest.raises(InvalidInputError, match="Those of another data set have other ranges"):
        LaplaceBudget(TINY, eps_mean=1.0, sensitivities=another_set, sensitivities_sha256=RANGES.sha256)
    with pytest.raises(InvalidInputError, match=r"another front end \(fuses=False, expected True"):
        LaplaceBudget(other_front_end, eps_mean=1.0, sensitivities=RANGES)
    again = Sensitivities.from_arrays(RANGES.arrays())
    assert again.sha256 == RANGES.sha256 and (again.low == RANGES.low).all() and again.front_end == RANGES.front_end
    for twin in (pickle.loads(pickle.dumps(RANGES)), copy.deepcopy(RANGES)):
        assert twin.sha256 == RANGES.sha256
    with pytest.raises(ValueError, match="read-only"):
        RANGES.low[0, 0, 0] = 1.0


def test_built_in_ranges_are_named_before_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(front_end: NoisyFrontEnd) -> Sensitivities:
        measured.append(front_end)
        return Sensitivities.measure(pixels(3, size=32), front_end)

    monkeypatch.setattr("ppfr.masking._laplace_budget.built_in_sensitivities", measure)
    masker = Hfcf(front_end="block", stride=8, num_channels=3, in_shape=(3, 32, 32))
    config = masker.public_config()
    assert len(config["sensitivities_sha256"]) == 64 and masker.spec.out_shape == (5, 4, 4) and not measured
    masker.mask(torch.rand(2, 3, 32, 32), rng=rng())
    masker.mask(torch.rand(2, 3, 32, 32), rng=rng())
    assert len(measured) == 1
    with pytest.raises(InvalidInputError, match="even side"):
        Hfcf(front_end="block", stride=8, num_channels=3, in_shape=(3, 32, 48))


def test_the_built_in_name_is_that_of_what_is_measured() -> None:
    masker = Hfcf(front_end="block", stride=8, num_channels=3, in_shape=(3, 32, 32))
    found = masker.budget.sensitivities
    assert found is not None and found.sha256 == masker.public_config()["sensitivities_sha256"]
    assert (found.range_KPQ > 0).all()


@pytest.mark.parametrize(
    ("low", "high", "error", "words"),
    [
        (np.zeros((1, 2)), np.ones((1, 2)), ShapeError, r"\(K, P, Q\)"),
        (np.zeros((1, 2, 2)), np.ones((1, 2, 3)), ShapeError, "same"),
        (np.ones((1, 2, 2)), np.zeros((1, 2, 2)), RangeError, "low <= high"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), np.inf), RangeError, "finite"),
    ],
)
def test_sensitivities_reject_inconsistent_arrays(
    low: np.ndarray, high: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Sensitivities(low=low, high=high, front_end="{}")


def test_identification_rejects_inconsistent_input() -> None:
    with pytest.raises(ShapeError, match="no images"):
        Sensitivities.measure(REFERENCE[:0], TINY)
    with pytest.raises(ShapeError, match="another in_shape"):
        Sensitivities.measure(pixels(2, size=24), TINY)
    with pytest.raises(ShapeError, match="float64"):
        Sensitivities.measure(REFERENCE / 255, TINY)
    with pytest.raises(InvalidInputError, match="front_end of the sensitivities"):
        Sensitivities.from_arrays({**RANGES.arrays(), "front_end": np.frombuffer(b"{", np.uint8)})
    with pytest.raises(RangeError, match="'block', 'upsampled'"):
        NoisyFrontEnd(front_end="dct")  # type: ignore[arg-type]
    with pytest.raises(RangeError):
        NoisyFrontEnd(num_channels=64)
