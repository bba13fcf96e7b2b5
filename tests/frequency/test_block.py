"""Plain block DCT against SciPy and a loop, its inverse, zig-zag order and channel sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from ppfr.core import RangeError, ShapeError
from ppfr.frequency import block_dct, inverse_block_dct, lowest_channels, zigzag

GEOMETRIES = st.integers(1, 9).flatmap(lambda block: st.tuples(st.just(block), st.integers(1, block)))


def loop_block_dct(planes: np.ndarray, block: int, stride: int) -> np.ndarray:
    batch, colours, height, width = planes.shape
    before = (block - stride) // 2
    after = block - stride - before
    padded = np.pad(planes, ((0, 0), (0, 0), (before, after), (before, after)), mode="reflect")
    out = np.empty((batch, colours, block * block, height // stride, width // stride))
    for p in range(height // stride):
        for q in range(width // stride):
            window = padded[:, :, p * stride : p * stride + block, q * stride : q * stride + block]
            out[..., p, q] = dctn(window, axes=(2, 3), norm="ortho").reshape(batch, colours, -1)
    return out.reshape(batch, -1, height // stride, width // stride)


@settings(deadline=None, max_examples=30)
@given(geometry=GEOMETRIES, rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_equals_scipy_window_by_window_and_inverts_exactly(
    geometry: tuple[int, int], rows: int, columns: int, seed: int
) -> None:
    block, stride = geometry
    num = max(1, -(-block // stride))  # enough blocks that the margin can be reflected
    height, width = stride * (rows + num), stride * (columns + num)
    generator = torch.Generator().manual_seed(seed)
    planes = torch.rand(2, 2, height, width, generator=generator, dtype=torch.float64)
    coefficients = block_dct(planes, block=block, stride=stride)
    np.testing.assert_allclose(coefficients, loop_block_dct(planes.numpy(), block, stride), atol=1e-12)
    torch.testing.assert_close(inverse_block_dct(coefficients, block=block, stride=stride), planes)


@settings(deadline=None, max_examples=15)
@given(geometry=st.sampled_from([(8, 4), (5, 2), (4, 4), (7, 4), (3, 1)]), seed=st.integers(0, 99))
def test_inverse_is_the_least_squares_solution(geometry: tuple[int, int], seed: int) -> None:
    """The residual of arbitrary coefficients is orthogonal to everything that block_dct can produce."""
    block, stride = geometry
    generator = torch.Generator().manual_seed(seed)
    planes = torch.zeros(1, 1, 3 * stride + block // stride * stride, 4 * stride + block // stride * stride)
    like = block_dct(planes.double(), block=block, stride=stride)
    arbitrary = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    solution = inverse_block_dct(arbitrary, block=block, stride=stride).requires_grad_()
    residual = (block_dct(solution, block=block, stride=stride) - arbitrary).square().sum()
    (gradient,) = torch.autograd.grad(residual, solution)
    assert gradient.abs().max() < 1e-10


def test_grids_of_a_crop() -> None:
    plane = torch.zeros(2, 1, 112, 112)
    assert block_dct(plane).shape == (2, 64, 14, 14)
    assert block_dct(plane, stride=4).shape == (2, 64, 28, 28)
    assert block_dct(plane.expand(-1, 3, -1, -1), stride=4, channels=(1, 8)).shape == (2, 6, 28, 28)


def test_chosen_channels_and_their_zero_filled_inverse() -> None:
    planes = torch.rand(1, 2, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    everything = block_dct(planes, stride=4)
    chosen = block_dct(planes, stride=4, channels=(9, 0, 63))
    torch.testing.assert_close(chosen, everything.view(1, 2, 64, 4, 6)[:, :, [9, 0, 63]].flatten(1, 2))
    filled = torch.zeros_like(everything).view(1, 2, 64, 4, 6)
    filled[:, :, [9, 0, 63]] = chosen.view(1, 2, 3, 4, 6)
    torch.testing.assert_close(
        inverse_block_dct(chosen, stride=4, channels=(9, 0, 63)), inverse_block_dct(filled.flatten(1, 2), stride=4)
    )


def test_gradients_of_both_directions() -> None:
    planes = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: block_dct(x, block=5, stride=2, channels=(0, 7)), planes)
    coefficients = block_dct(planes.detach(), block=4, stride=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: inverse_block_dct(c, block=4, stride=2), coefficients)


def test_zigzag_is_the_order_of_jpeg() -> None:
    walk, u, v, up = [], 0, 0, True
    for _ in range(64):  # the walk as the standard draws it, u down and v across
        walk.append(8 * u + v)
        if up and (v == 7 or u == 0):
            u, v, up = (u + 1, v, False) if v == 7 else (u, v + 1, False)
        elif not up and (u == 7 or v == 0):
            u, v, up = (u, v + 1, True) if u == 7 else (u + 1, v, True)
        else:
            u, v = (u - 1, v + 1) if up else (u + 1, v - 1)
    assert zigzag() == tuple(walk)
    assert lowest_channels(4) == (0, 1, 8, 16)
    assert lowest_channels(36, keeps_dc=False) == zigzag()[1:37]


def test_an_empty_batch_stays_empty() -> None:
    coefficients = block_dct(torch.zeros(0, 3, 16, 16), stride=4)
    assert coefficients.shape == (0, 192, 4, 4)
    assert inverse_block_dct(coefficients, stride=4).shape == (0, 3, 16, 16)


def test_front_end_rejects_invalid_images() -> None:
    plane = torch.zeros(1, 1, 16, 16)
    for block, stride in ((4, 8), (0, 1), (8, 0)):
        with pytest.raises(RangeError, match="stride"):
            block_dct(plane, block=block, stride=stride)
        with pytest.raises(RangeError, match="stride"):
            inverse_block_dct(plane, block=block, stride=stride)
    with pytest.raises(ShapeError, match="multiples of 6"):
        block_dct(plane, stride=6)
    with pytest.raises(ShapeError, match="too small"):
        block_dct(torch.zeros(1, 1, 2, 2), stride=1)
    with pytest.raises(ShapeError, match="too small"):
        inverse_block_dct(torch.zeros(1, 64, 2, 2), stride=1)
    with pytest.raises(ShapeError, match="pass the same `channels`"):
        inverse_block_dct(torch.zeros(1, 5, 2, 2))
    with pytest.raises(RangeError, match=r"1\.\.63"):
        lowest_channels(64, keeps_dc=False)
    with pytest.raises(RangeError, match="at least 1"):
        zigzag(0)
