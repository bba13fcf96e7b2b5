"""The x8-upsampled block DCT front end that the field's papers share, without the 896x896 image.

Shape suffixes: B batch, N = B*C planes, K frequency channels, H W pixels (and blocks: one block a pixel).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ppfr.frequency._checks import check_channels, check_planes, check_unit_range
from ppfr.frequency._colour import centred_ycbcr, luma
from ppfr.frequency._dct import dct_matrix

BLOCK = 8


@functools.lru_cache(maxsize=16)
def row_operator(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(8, 3, size): weight of pixel p-1, p, p+1 in frequency u of block p, for one axis of `size` pixels.

    Upsampling with align_corners=True reads fine pixel i of block p at place s = (8p + i)(size - 1)/(8 size - 1),
    which lies within one pixel of p; linear interpolation weighs pixel n by max(0, 1 - |s - n|). The DCT of those
    weights over i is the operator. It depends on p, since s - p drifts from border to border.
    """
    with torch.inference_mode(False):
        fine = torch.arange(BLOCK * size, dtype=torch.float64).view(size, BLOCK)
        place = fine * (size - 1) / (BLOCK * size - 1)
        tap = torch.arange(size, dtype=torch.float64)[:, None] + torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        weight_pit = (1 - (place[:, :, None] - tap[:, None, :]).abs()).clamp(min=0)
        return torch.einsum("ui,pit->utp", dct_matrix(BLOCK), weight_pit).to(device=device, dtype=dtype)


def _apply_simple(planes_NHW: Tensor, channels: tuple[int, ...]) -> Tensor:
    _, height, width = planes_NHW.shape
    rows = row_operator(height, planes_NHW.device, planes_NHW.dtype)
    columns = row_operator(width, planes_NHW.device, planes_NHW.dtype)
    padded = torch.nn.functional.pad(planes_NHW[:, None], (1, 1, 1, 1))[:, 0]
    outputs = []
    for channel in channels:
        u, v = divmod(channel, BLOCK)
        along = torch.stack([columns[v, t] * padded[:, :, t : t + width] for t in range(3)]).sum(0)
        outputs.append(torch.stack([rows[u, t][:, None] * along[:, t : t + height] for t in range(3)]).sum(0))
    return torch.stack(outputs, 1)


def bdct_upsampled(
    image_BCHW: Tensor,
    *,
    colours: Literal["ycbcr", "y"] = "ycbcr",
    channels: Sequence[int] | None = None,
    checks_range: bool = True,
) -> Tensor:
    """The upsampled front end."""
    check_planes(image_BCHW, what="image", num_channels=3, min_size=2)
    if checks_range:
        check_unit_range(image_BCHW, what="image")
    chosen = check_channels(channels, num=BLOCK * BLOCK)
    planes = luma(image_BCHW, scale=255.0) if colours == "y" else centred_ycbcr(image_BCHW, scale=255.0)
    out = _apply_simple(planes.flatten(0, 1), chosen)
    return out.view(image_BCHW.shape[0], -1, *image_BCHW.shape[2:])
