"""Plain block DCT with any block size and stride, as one strided convolution, and its least-squares inverse."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ppfr.core import RangeError, ShapeError
from ppfr.frequency._checks import check_channels, check_planes
from ppfr.frequency._dct import dct_matrix


def block_dct(planes_BCHW: Tensor, *, block: int = 8, stride: int = 8, channels: Sequence[int] | None = None) -> Tensor:
    """Orthonormal 2-D DCT-II of `block` x `block` windows at distance `stride`; differentiable.

    The planes are padded by reflection with (block - stride)//2 pixels above and left and the rest of block - stride
    below and right (one more when block - stride is odd), so that the grid has exactly H//stride x W//stride blocks:
    14x14 for 112 at stride 8, 28x28 at stride 4.

    Args:
        planes_BCHW: (B, C, H, W) of any range, float32 or float64; H and W multiples of `stride`.
        block: side of a block, at least 1.
        stride: step between blocks, 1..block.
        channels: frequency channels c = block*u + v to compute (u vertical, v horizontal), in this order; None for
            all. Omitted channels cost nothing.

    Returns:
        (B, C*K, H//stride, W//stride), K = len(channels): channel `colour*K + k` is the k-th selected frequency of
        plane `colour`. For planes in [-128, 127] and 8x8 blocks the values lie in [-1024, 1016].

    Raises:
        ShapeError: the shape is not (B, C, H, W), or sides are not multiples of the stride or too small to reflect.
        RangeError: block, stride or channels are outside their allowed range.
    """
    _check_geometry(block, stride)
    check_planes(planes_BCHW, what="planes", multiple_of=stride, min_size=stride)
    chosen = check_channels(channels, num=block * block)
    batch, colours, height, width = planes_BCHW.shape
    before, after = _margins(block, stride)
    if max(before, after) >= min(height, width):
        raise ShapeError(
            f"planes are {height}x{width}, too small to be padded by {after} pixels for block {block} at stride "
            f"{stride}; use a larger image, or a stride closer to the block"
        )
    planes_N1HW = planes_BCHW.reshape(batch * colours, 1, height, width)
    if after:
        planes_N1HW = F.pad(planes_N1HW, (before, after, before, after), mode="reflect")
    filters = _filters(block, chosen, planes_BCHW.device, planes_BCHW.dtype)
    coefficients = F.conv2d(planes_N1HW, filters, stride=stride)
    return coefficients.view(batch, colours * len(chosen), height // stride, width // stride)


def inverse_block_dct(
    coefficients_BKPQ: Tensor, *, block: int = 8, stride: int = 8, channels: Sequence[int] | None = None
) -> Tensor:
    """Planes from block DCT coefficients: exact for coefficients of `block_dct` with all channels; differentiable.

    Each block is inverted, and pixels that several blocks cover (overlap, reflected margin) are averaged with equal
    weight. That is the least-squares solution, since every row of the forward operator is orthonormal.

    Args:
        coefficients_BKPQ: (B, C*K, P, Q) in the layout of `block_dct`.
        block: side of a block, as given to `block_dct`.
        stride: step between blocks, as given to `block_dct`.
        channels: the frequency channels of the coefficients, as given to `block_dct`; missing ones are zero.

    Returns:
        (B, C, P*stride, Q*stride).

    Raises:
        ShapeError: the number of channels is not a multiple of K, or the grid is too small for the padding.
        RangeError: block, stride or channels are outside their allowed range.
    """
    _check_geometry(block, stride)
    check_planes(coefficients_BKPQ, what="coefficients")
    chosen = check_channels(channels, num=block * block)
    batch, num, rows, columns = coefficients_BKPQ.shape
    if num % len(chosen) or num == 0:
        raise ShapeError(
            f"coefficients have {num} channels, which is not a multiple of the {len(chosen)} frequency channels; "
            "pass the same `channels` as to block_dct"
        )
    before, after = _margins(block, stride)
    height, width = rows * stride, columns * stride
    if max(before, after) >= min(height, width):
        raise ShapeError(
            f"a {rows}x{columns} grid of stride {stride} is too small for block {block}; use a larger grid"
        )
    blocks_NKPQ = coefficients_BKPQ.reshape(batch * num // len(chosen), len(chosen), rows, columns)
    filters = _filters(block, chosen, blocks_NKPQ.device, blocks_NKPQ.dtype)
    padded = F.conv_transpose2d(blocks_NKPQ, filters, stride=stride)
    if after:
        counts = _coverage(block, stride, (height, width), padded.device, padded.dtype)
        padded = _unreflect(_unreflect(padded, before, after, 2), before, after, 3) / counts
    return padded.view(batch, num // len(chosen), height, width)


def _check_geometry(block: int, stride: int) -> None:
    if block < 1 or not 1 <= stride <= block:
        raise RangeError(
            f"block {block} with stride {stride}: the block must be at least 1 and the stride in 1..block, "
            "so that blocks cover all pixels"
        )


def _margins(block: int, stride: int) -> tuple[int, int]:
    before = (block - stride) // 2
    return before, block - stride - before


@functools.lru_cache(maxsize=64)
def _filters(block: int, channels: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        matrix = dct_matrix(block)
        bases = torch.einsum("ui,vj->uvij", matrix, matrix).reshape(block * block, 1, block, block)
        return bases[list(channels)].to(device=device, dtype=dtype)


@functools.lru_cache(maxsize=16)
def _coverage(block: int, stride: int, size_HW: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Number of blocks of `block_dct` that read each pixel, including reflections: (1, 1, H, W)."""
    with torch.inference_mode(False), torch.no_grad():
        counts = []
        before, after = _margins(block, stride)
        for size in size_HW:
            starts = torch.ones(1, 1, size // stride, dtype=torch.float64)
            covered = F.conv_transpose1d(starts, torch.ones(1, 1, block, dtype=torch.float64), stride=stride)
            counts.append(_unreflect(covered, before, after, 2).view(-1))
        return (counts[0][:, None] * counts[1][None, :]).to(device=device, dtype=dtype)[None, None]


def _unreflect(padded: Tensor, before: int, after: int, dim: int) -> Tensor:
    """Adjoint of reflection padding along `dim`: add the margins to the pixels from which they were copied."""
    size = padded.shape[dim] - before - after
    inner = padded.narrow(dim, before, size)
    parts = [
        inner.narrow(dim, 0, 1),
        inner.narrow(dim, 1, before) + padded.narrow(dim, 0, before).flip(dim),
        inner.narrow(dim, 1 + before, size - 1 - before),
    ]
    low = torch.cat(parts, dim)
    parts = [
        low.narrow(dim, 0, size - 1 - after),
        low.narrow(dim, size - 1 - after, after) + padded.narrow(dim, before + size, after).flip(dim),
        low.narrow(dim, size - 1, 1),
    ]
    return torch.cat(parts, dim)
