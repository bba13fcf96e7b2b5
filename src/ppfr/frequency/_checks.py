"""Input checks of the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ppfr.core import RangeError, ShapeError

_DTYPES = (torch.float32, torch.float64)


def check_planes(
    planes_BCHW: Tensor, *, what: str, multiple_of: int = 1, num_channels: int | None = None, min_size: int = 1
) -> None:
    """Check for a floating-point (B, C, H, W) tensor with C channels and H, W multiples of `multiple_of`."""
    if planes_BCHW.ndim != 4:
        raise ShapeError(
            f"{what} has shape {tuple(planes_BCHW.shape)}; it must be (B, C, H, W); add the batch axis with x[None]"
        )
    if planes_BCHW.dtype not in _DTYPES:
        raise RangeError(
            f"{what} has dtype {planes_BCHW.dtype}; it must be float32 or float64; "
            "for a uint8 image use x.float() / 255, for half precision x.float()"
        )
    _, channels, height, width = planes_BCHW.shape
    if num_channels is not None and channels != num_channels:
        raise ShapeError(
            f"{what} has {channels} channels, expected {num_channels}; "
            "the channel axis is 1: for a channels-last image use x.permute(0, 3, 1, 2)"
        )
    if height % multiple_of or width % multiple_of:
        raise ShapeError(
            f"{what} is {height}x{width}; both sides must be multiples of {multiple_of}; crop, pad or resize it"
        )
    if min(height, width) < min_size:
        raise ShapeError(f"{what} is {height}x{width}; both sides must be at least {min_size}; use a larger image")


def check_unit_range(image_BCHW: Tensor, *, what: str) -> None:
    """Check that all values are finite and in [0, 1]."""
    if image_BCHW.numel() == 0:
        return
    low, high = (float(value) for value in torch.aminmax(image_BCHW.detach()))
    if math.isnan(low) or math.isnan(high):
        raise RangeError(f"{what} contains values that are not finite; find their source, or use torch.nan_to_num")
    if low < 0.0 or high > 1.0:
        # The magnitude hints at the cause, and reveals nothing about the image.
        kind = "looks like [0, 255]: divide by 255" if high > 2.0 else "clamp it to [0, 1], or scale it from [-1, 1]"
        raise RangeError(f"{what} has values outside [0, 1]; {kind}")


def check_channels(channels: Sequence[int] | None, *, num: int) -> tuple[int, ...]:
    """Frequency channel indices c = block*u + v as a tuple; None means all, in row-major order."""
    if channels is None:
        return tuple(range(num))
    chosen = tuple(int(channel) for channel in channels)
    if not chosen:
        raise RangeError(f"channels is empty; pass at least one index in 0..{num - 1}, or None for all")
    outside = [channel for channel in chosen if not 0 <= channel < num]
    if outside:
        raise RangeError(f"channels contains {outside}; indices are c = block*u + v in 0..{num - 1}")
    if len(set(chosen)) != len(chosen):
        raise RangeError("channels contains an index twice; pass each frequency channel once")
    return chosen
