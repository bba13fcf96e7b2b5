"""The straightforward front end: upsample to 8H x 8W, convert, cut into blocks, transform each; and all of it back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

JPEG = (
    (0.299, 0.587, 0.114),
    (-0.168735891647856, -0.331264108352144, 0.5),
    (0.5, -0.418687589158345, -0.0813124108416555),
)


def dct8(dtype: torch.dtype = torch.float32) -> Tensor:
    rows = []
    for u in range(8):
        scale = math.sqrt(1 / 8) if u == 0 else math.sqrt(2 / 8)
        rows.append([scale * math.cos((2 * i + 1) * u * math.pi / 16) for i in range(8)])
    return torch.tensor(rows, dtype=dtype)


def upsampled_ycbcr(image_BCHW: Tensor) -> Tensor:
    """(B, 3, 8H, 8W), every plane centred on zero."""
    large = F.interpolate(image_BCHW, scale_factor=8, mode="bilinear", align_corners=True)
    matrix = torch.tensor(JPEG, dtype=image_BCHW.dtype)
    ycbcr = torch.einsum("kc,bchw->bkhw", matrix, large * 255.0)
    return ycbcr - torch.tensor([128.0, 0.0, 0.0], dtype=image_BCHW.dtype).view(1, 3, 1, 1)


def bdct_upsampled(image_BCHW: Tensor) -> Tensor:
    """(B, 192, H, W), as `ppfr.frequency.bdct_upsampled` in its defaults."""
    batch, _, height, width = image_BCHW.shape
    planes = upsampled_ycbcr(image_BCHW).reshape(batch * 3, 1, 8 * height, 8 * width)
    blocks = F.unfold(planes, kernel_size=8, stride=8).transpose(1, 2).reshape(batch, 3, -1, 8, 8)
    dct = dct8(image_BCHW.dtype)
    coefficients = dct @ blocks @ dct.T
    return coefficients.reshape(batch, 3, height, width, 64).permute(0, 1, 4, 2, 3).reshape(batch, 192, height, width)


def inverse_bdct_upsampled(coefficients_BKHW: Tensor, *, clamp: bool = True) -> Tensor:
    """(B, 3, H, W), as `ppfr.frequency.inverse_bdct_upsampled` in its defaults."""
    batch, _, height, width = coefficients_BKHW.shape
    dtype = coefficients_BKHW.dtype
    dct = dct8(dtype)
    blocks = coefficients_BKHW.reshape(batch, 3, 64, height, width).permute(0, 1, 3, 4, 2)
    pixels = dct.T @ blocks.reshape(batch, 3, height * width, 8, 8) @ dct
    columns = pixels.reshape(batch * 3, height * width, 64).transpose(1, 2)
    large = F.fold(columns, (8 * height, 8 * width), kernel_size=8, stride=8).view(batch, 3, 8 * height, 8 * width)
    luma_shift = torch.tensor([128.0, 0.0, 0.0], dtype=dtype).view(1, 3, 1, 1)
    to_rgb = torch.linalg.inv(torch.tensor(JPEG, dtype=torch.float64)).to(dtype)
    rgb = torch.einsum("kc,bchw->bkhw", to_rgb, large + luma_shift) / 255.0
    small = F.interpolate(rgb, size=(height, width), mode="bilinear", align_corners=True)
    return small.clamp(0.0, 1.0) if clamp else small
