"""JPEG full-range colour conversion (ITU-T T.871): RGB <-> YCbCr, all values in [0, 255], chroma centred on 128."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ppfr.frequency._checks import check_planes

_KR, _KG, _KB = 0.299, 0.587, 0.114
_TO_YCBCR = (
    (_KR, _KG, _KB),
    (-_KR / (2 * (1 - _KB)), -_KG / (2 * (1 - _KB)), 0.5),
    (0.5, -_KG / (2 * (1 - _KR)), -_KB / (2 * (1 - _KR))),
)
_TO_RGB = (
    (1.0, 0.0, 2 * (1 - _KR)),
    (1.0, -2 * _KB * (1 - _KB) / _KG, -2 * _KR * (1 - _KR) / _KG),
    (1.0, 2 * (1 - _KB), 0.0),
)


@functools.lru_cache(maxsize=32)
def _matrix(inverse: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(_TO_RGB if inverse else _TO_YCBCR, dtype=dtype, device=device)


def centred_ycbcr(image_BCHW: Tensor, *, scale: float) -> Tensor:
    """`scale` times the conversion matrix times RGB: chroma centred on 0, luma not shifted; linear, unvalidated."""
    matrix = _matrix(False, image_BCHW.device, image_BCHW.dtype) * scale
    return torch.matmul(matrix, image_BCHW.flatten(2)).view_as(image_BCHW)


def centred_rgb(planes_BCHW: Tensor) -> Tensor:
    """Inverse of `centred_ycbcr` at scale 1."""
    return torch.matmul(_matrix(True, planes_BCHW.device, planes_BCHW.dtype), planes_BCHW.flatten(2)).view_as(
        planes_BCHW
    )


def luma(image_BCHW: Tensor, *, scale: float = 1.0) -> Tensor:
    """Y = 0.299 R + 0.587 G + 0.114 B, times `scale`.

    Args:
        image_BCHW: RGB, (B, 3, H, W), any range.
        scale: factor on the result; 255 takes an image in [0, 1] to the [0, 255] of the other functions.

    Returns:
        (B, 1, H, W) in `scale` times the range of the image.

    Raises:
        ShapeError: the shape is not (B, 3, H, W).

    >>> luma(torch.ones(1, 3, 1, 1), scale=255.0).item()
    255.0
    """
    check_planes(image_BCHW, what="image", num_channels=3)
    weights = _matrix(False, image_BCHW.device, image_BCHW.dtype)[:1] * scale
    batch, _, height, width = image_BCHW.shape
    return torch.matmul(weights, image_BCHW.flatten(2)).view(batch, 1, height, width)


def rgb_to_ycbcr(image_BCHW: Tensor) -> Tensor:
    """RGB -> YCbCr, JPEG full range; differentiable.

    Args:
        image_BCHW: RGB in [0, 255], (B, 3, H, W), float32 or float64. Scale an image in [0, 1] by 255 first.

    Returns:
        (B, 3, H, W): Y in [0, 255], Cb and Cr in [0.5, 255.5], 128 for grey. Nothing is clamped or rounded, so the
        inverse is exact to rounding error.

    Raises:
        ShapeError: the shape is not (B, 3, H, W).

    References:
        ITU-T T.871 (JFIF), section 7, before rounding.
    """
    check_planes(image_BCHW, what="image", num_channels=3)
    offset = image_BCHW.new_tensor([0.0, 128.0, 128.0]).view(1, 3, 1, 1)
    return centred_ycbcr(image_BCHW, scale=1.0) + offset


def ycbcr_to_rgb(planes_BCHW: Tensor) -> Tensor:
    """YCbCr -> RGB, JPEG full range; the inverse of `rgb_to_ycbcr`, not clamped; differentiable.

    Args:
        planes_BCHW: Y, Cb, Cr as returned by `rgb_to_ycbcr`, (B, 3, H, W).

    Returns:
        RGB, (B, 3, H, W), in [0, 255] for planes that came from such an image.

    Raises:
        ShapeError: the shape is not (B, 3, H, W).
    """
    check_planes(planes_BCHW, what="planes", num_channels=3)
    offset = planes_BCHW.new_tensor([0.0, 128.0, 128.0]).view(1, 3, 1, 1)
    return centred_rgb(planes_BCHW - offset)
