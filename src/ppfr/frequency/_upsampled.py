"""The x8-upsampled block DCT front end of the published methods, without computing the 8H x 8W image.

One block of the upsampled image covers one pixel, and linear interpolation reads that pixel and its neighbours only, so
upsampling and DCT are one separable operator with three taps per side (`_banded`). In the inverse, the fine pixel that
downsampling reads for (h, w) always lies in block (h, w), so inverse DCT and downsampling are one weighted sum over the
channels of one place (`_pointwise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.frequency._banded import BLOCK, BandedDct
from ppfr.frequency._checks import check_channels, check_planes, check_unit_range
from ppfr.frequency._colour import centred_rgb, centred_ycbcr, luma
from ppfr.frequency._linear import apply_linear
from ppfr.frequency._pointwise import PointwiseInverse

Colours = Literal["ycbcr", "y"]


def bdct_upsampled(
    image_BCHW: Tensor,
    *,
    colours: Colours = "ycbcr",
    channels: Sequence[int] | None = None,
    out: Tensor | None = None,
    checks_range: bool = True,
) -> Tensor:
    """Frequency channels of the image upsampled eightfold: the front end of DCTDP, DuetFace, PartialFace, MinusFace.

    Equals: bilinear upsampling x8 with align_corners=True, times 255, RGB -> YCbCr (JPEG full range), minus 128,
    orthonormal DCT-II of every 8x8 block, coefficient (u, v) of all blocks gathered in channel 8u + v, colour-major.
    Agrees with that to better than 1e-2 in float32. Affine in the image; differentiable any number of times, with a
    collapsed backward.

    Args:
        image_BCHW: RGB in [0, 1], (B, 3, H, W), float32 or float64, H and W at least 2.
        colours: "ycbcr" for Y, Cb and Cr; "y" for luma only, which skips the others.
        channels: frequency channels c = 8u + v of each colour plane (u vertical, v horizontal), in this order; None for
            all 64. Omitted channels cost almost nothing.
        out: output tensor, for loops without gradient. For large batches, allocating memory takes longer than the
            arithmetic.
        checks_range: whether to reject values outside [0, 1]. Use False for differences of images and other tensors
            with a larger range.

    Returns:
        (B, C*K, H, W), K = len(channels), C = 3 or 1; values in [-1024, 1016] up to a rounding error.

    Raises:
        ShapeError: the shape is not (B, 3, H, W), or `out` has another shape.
        RangeError: values are outside [0, 1] or not finite, or an option or channel is invalid.
        InvalidInputError: `out` was given although a gradient is needed.

    References:
        The TFace "images_to_batch" front end, as used in the DCTDP, DuetFace, PartialFace and MinusFace papers.
    """
    check_planes(image_BCHW, what="image", num_channels=3, min_size=2)
    chosen = check_channels(channels, num=BLOCK * BLOCK)
    _check_colours(colours)
    if checks_range:
        check_unit_range(image_BCHW, what="image")
    batch, _, height, width = image_BCHW.shape
    planes = luma(image_BCHW, scale=255.0) if colours == "y" else centred_ycbcr(image_BCHW, scale=255.0)
    planes = torch.cat([planes[:, :1] - 128.0, planes[:, 1:]], 1)
    shape = (batch, planes.shape[1] * len(chosen), height, width)
    operator = BandedDct(chosen)
    if out is None:
        return apply_linear(operator, planes.flatten(0, 1)).view(shape)
    if tuple(out.shape) != shape or not out.is_contiguous() or out.dtype != planes.dtype:
        raise ShapeError(f"out is {out.dtype} {tuple(out.shape)}; it must be contiguous {planes.dtype} {shape}")
    if torch.is_grad_enabled() and planes.requires_grad:
        raise InvalidInputError("out is not supported if a gradient is needed; omit it or use torch.no_grad()")
    operator.forward(planes.flatten(0, 1), out=out.view(len(planes.flatten(0, 1)), len(chosen), height, width))
    return out


def inverse_bdct_upsampled(
    coefficients_BKHW: Tensor,
    *,
    colours: Colours = "ycbcr",
    channels: Sequence[int] | None = None,
    clamp: bool = True,
) -> Tensor:
    """The image of upsampled frequency channels; missing channels and colours are zero.

    Equals: inverse DCT of every 8x8 block, plus 128, YCbCr -> RGB, divided by 255, bilinear downsampling to 1/8 with
    align_corners=True, clamped to [0, 1]. It inverts `bdct_upsampled` up to an eighth of the difference between a pixel
    and its neighbours (in faces 0.2/255 on average, 5/255 at edges), since downsampling reads between fine pixels.
    Applying `bdct_upsampled` to the result need not return the coefficients, because not all coefficients belong to an
    image. Differentiable.

    Args:
        coefficients_BKHW: (B, C*K, H, W) in the layout of `bdct_upsampled`, float32 or float64.
        colours: as given to `bdct_upsampled`; "y" gives a grey image.
        channels: as given to `bdct_upsampled`.
        clamp: clamp the result to [0, 1]; without it the function is affine.

    Returns:
        RGB, (B, 3, H, W), in [0, 1] if clamped.

    Raises:
        ShapeError: the number of channels does not match `colours` and `channels`.
        RangeError: an option or a channel is invalid.
    """
    chosen = check_channels(channels, num=BLOCK * BLOCK)
    _check_colours(colours)
    num_colours = 3 if colours == "ycbcr" else 1
    check_planes(coefficients_BKHW, what="coefficients", num_channels=num_colours * len(chosen), min_size=2)
    batch, _, height, width = coefficients_BKHW.shape
    blocks_NKHW = coefficients_BKHW.reshape(batch * num_colours, len(chosen), height, width)
    planes = apply_linear(PointwiseInverse(chosen), blocks_NKHW).view(batch, num_colours, height, width)
    rgb = centred_rgb(planes) if num_colours == 3 else planes.expand(-1, 3, -1, -1)
    image = (rgb + 128.0) / 255.0
    return image.clamp(0.0, 1.0) if clamp else image


def _check_colours(colours: str) -> None:
    if colours not in ("ycbcr", "y"):
        raise RangeError(f"colours is {colours!r}; it must be 'ycbcr' or 'y'")
