"""The strongest colour of each frequency: against a loop, and the fused path against the one that holds all three."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.frequency import bdct_upsampled, bdct_upsampled_strongest, strongest_colour
from reference.hybrid_frequency_colour import strongest_colour as loop


def image(*size: int, num: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(num, 3, *size, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(
    colours=st.integers(1, 4),
    num=st.integers(1, 5),
    rows=st.integers(1, 6),
    seed=st.integers(0, 1000),
    is_coarse=st.booleans(),
)
def test_strongest_colour_equals_the_slow_reference_with_ties(
    colours: int, num: int, rows: int, seed: int, is_coarse: bool
) -> None:
    values = np.random.default_rng(seed).normal(size=(2, colours * num, rows, 4)).astype(np.float32)
    if is_coarse:
        values = values.round()  # half of all places tie
    wanted = loop(values, colours)
    given_ = torch.from_numpy(values)
    assert torch.equal(strongest_colour(given_, num_colours=colours), torch.from_numpy(wanted))
    with_gradient = strongest_colour(given_.requires_grad_(), num_colours=colours)
    assert torch.equal(with_gradient.detach(), torch.from_numpy(wanted))


def test_the_gradient_goes_to_the_plane_that_was_taken() -> None:
    values = torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(strongest_colour(values).sum(), values)
    assert gradient.flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("size", [(112, 112), (8, 16), (2, 3), (33, 20)])
@pytest.mark.parametrize("channels", [None, (5, 1, 63, 8), (0,)])
def test_fused_path_equals_strongest_colour_of_all_coefficients(
    size: tuple[int, int], channels: tuple[int, ...] | None
) -> None:
    held = bdct_upsampled(image(*size), channels=channels)
    fused = bdct_upsampled_strongest(image(*size), channels=channels)
    assert fused.shape == (2, held.shape[1] // 3, *size)
    # Up to ties within rounding, where either colour may be taken.
    magnitudes = held.view(2, 3, -1, *size).abs().amax(1)
    torch.testing.assert_close(fused.abs(), magnitudes, rtol=0, atol=5e-4)
    differs = (fused - strongest_colour(held)).abs() > 5e-4
    second = held.view(2, 3, -1, *size).abs().sort(1).values[:, 1]
    assert ((magnitudes - second)[differs] < 5e-4).all() and differs.float().mean() < 1e-3


def test_scale_out_and_single_images() -> None:
    whole = bdct_upsampled_strongest(image(16, 16, num=3), channels=(1, 8, 9))
    spare = torch.full((3, 5, 16, 16), 7.0)
    written = bdct_upsampled_strongest(image(16, 16, num=3), channels=(1, 8, 9), scale=1 / 1024, out=spare[:, 1:4])
    torch.testing.assert_close(written * 1024, whole, rtol=1e-6, atol=1e-3)
    assert written.data_ptr() == spare[:, 1:4].data_ptr() and (spare[:, [0, 4]] == 7).all()
    singles = [bdct_upsampled_strongest(one[None], channels=(1, 8, 9)) for one in image(16, 16, num=3)]
    assert torch.equal(torch.cat(singles), whole)
    assert bdct_upsampled_strongest(image(16, 16, num=0)).shape == (0, 64, 16, 16)


def test_several_threads_write_the_same() -> None:
    one = bdct_upsampled_strongest(image(24, 24, num=7))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(bdct_upsampled_strongest(image(24, 24, num=7)), one)
    finally:
        torch.set_num_threads(before)


def test_gradients_and_double_precision_use_all_coefficients() -> None:
    double = image(12, 10).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bdct_upsampled_strongest(x, channels=(1, 9), checks_range=False), double)


def test_front_end_rejects_invalid_images() -> None:
    with pytest.raises(RangeError, match=r"outside \[0, 1\]"):
        bdct_upsampled_strongest(image(8, 8) * 255)
    with pytest.raises(ShapeError, match="expected 3"):
        bdct_upsampled_strongest(image(8, 8)[:, :2])
    with pytest.raises(ShapeError, match="each image contiguous"):
        bdct_upsampled_strongest(image(8, 8), out=torch.empty(2, 64, 8, 9))
    with pytest.raises(InvalidInputError, match="gradient"):
        bdct_upsampled_strongest(image(8, 8).requires_grad_(), out=torch.empty(2, 64, 8, 8))
    with pytest.raises(ShapeError, match="not a multiple of num_colours=3"):
        strongest_colour(torch.zeros(1, 4, 2, 2))
