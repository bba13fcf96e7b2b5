"""Colour conversion against OpenCV and closed forms; FFT filters against a direct sum over the spectrum."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import RangeError, ShapeError
from ppfr.frequency import fft_filter, luma, rgb_to_ycbcr, ycbcr_to_rgb


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ycbcr_is_the_one_of_jpeg() -> None:
    image = (noise(1, 3, 32, 40) * 255).round()
    ours = rgb_to_ycbcr(image)[0].numpy().transpose(1, 2, 0)
    theirs = cv2.cvtColor(image[0].numpy().transpose(1, 2, 0).astype(np.uint8), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    assert np.abs(ours - theirs).max() <= 1.01  # OpenCV rounds to integers, with coefficients of its own precision
    torch.testing.assert_close(luma(image), rgb_to_ycbcr(image)[:, :1])


def test_grey_and_primaries() -> None:
    colours = torch.tensor([[255.0, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]).view(4, 3, 1, 1)
    wanted = torch.tensor([[255.0, 128, 128], [0, 128, 128], [76.245, 84.972, 255.5], [29.07, 255.5, 107.265]])
    torch.testing.assert_close(rgb_to_ycbcr(colours)[..., 0, 0], wanted, rtol=0, atol=2e-3)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_colour_round_trip(seed: int) -> None:
    image = noise(2, 3, 5, 7, seed=seed) * 255
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(image)), image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 9)])
def test_filters_equal_the_full_complex_spectrum_and_add_up(size: tuple[int, int]) -> None:
    image = noise(2, 3, *size)
    height, width = size
    vertical = (np.arange(height) + height // 2) % height - height // 2
    horizontal = (np.arange(width) + width // 2) % width - width // 2
    gain = np.exp(-(vertical[:, None] ** 2 + horizontal[None] ** 2) / (2 * 2.5**2))
    wanted = np.fft.ifft2(np.fft.fft2(image.numpy()) * gain).real
    low = fft_filter(image, kind="low", radius_px=2.5)
    np.testing.assert_allclose(low, wanted, atol=1e-12)
    torch.testing.assert_close(low + fft_filter(image, kind="high", radius_px=2.5), image)
    assert low.min() >= image.min() - 1e-3 and low.max() <= image.max() + 1e-3


def test_filters_are_differentiable() -> None:
    assert torch.autograd.gradcheck(
        lambda x: fft_filter(x, kind="high", radius_px=1.5), noise(1, 1, 5, 6).requires_grad_()
    )


def test_front_end_rejects_invalid_images() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(RangeError, match="'high' or 'low'"):
        fft_filter(image, kind="band", radius_px=1.0)  # type: ignore[arg-type]
    for radius in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RangeError, match="radius_px"):
            fft_filter(image, kind="low", radius_px=radius)
    for function in (rgb_to_ycbcr, ycbcr_to_rgb, luma):
        with pytest.raises(ShapeError, match="expected 3"):
            function(image[:, :1])
