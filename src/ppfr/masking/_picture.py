"""Visualisation of masked images."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ppfr.core import RangeError, ShapeError


def visualise(masked_KPQ: Tensor, *, layout: Literal["mean", "grid"] = "mean", side_px: int = 112) -> np.ndarray:
    """Render one masked image as a picture. It overstates the protection: attacks use more than a person can see.

    One or three channels in [0, 1] are shown as the grey or RGB image they are. Otherwise "mean" is the mean of
    |channel| over all channels, and "grid" tiles the single channels with mid-grey at zero. Brightness is stretched to
    the 1st and 99th percentile; "grid" scales each channel by its own 99th percentile of |value|. A constant is
    rendered as mid-grey.

    Args:
        masked_KPQ: one masked image, (K, P, Q), any range.
        layout: "mean" or "grid".
        side_px: the picture's longer side for images and "mean" (nearest neighbour, so that cells stay visible), 1 or
            more; "grid" has one pixel per value.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ShapeError: the shape is not (K, P, Q).
        RangeError: values are not finite, the layout is unknown, or the side is below 1.
    """
    if masked_KPQ.ndim != 3 or min(masked_KPQ.shape) < 1:
        raise ShapeError(f"masked has shape {tuple(masked_KPQ.shape)}; pass one image (K, P, Q), such as masked[0]")
    if layout not in ("mean", "grid"):
        raise RangeError(f"layout is {layout!r}; it must be 'mean' or 'grid'")
    if side_px < 1:
        raise RangeError(f"side_px is {side_px}; it must be at least 1")
    values = masked_KPQ.detach().to("cpu", torch.float32)
    if not bool(values.isfinite().all()):
        raise RangeError("masked contains values that are not finite; mask the image again")
    is_image = len(values) in (1, 3) and bool(((values >= 0) & (values <= 1)).all())
    if is_image:
        picture = _resized(values, side_px).expand(3, -1, -1)
    elif layout == "mean":
        picture = _resized(_stretched(values.abs().mean(0))[None], side_px).expand(3, -1, -1)
    else:
        picture = _tiled(values).expand(3, -1, -1)
    return (picture.permute(1, 2, 0) * 255.0 + 0.5).clamp(0, 255).byte().numpy()


def _stretched(plane_PQ: Tensor) -> Tensor:
    low, high = (float(q) for q in torch.quantile(plane_PQ.flatten(), torch.tensor([0.01, 0.99])))
    if high - low < 1e-6:
        return torch.full_like(plane_PQ, 0.5)
    return ((plane_PQ - low) / (high - low)).clamp(0, 1)


def _tiled(values_KPQ: Tensor, *, gap_px: int = 1) -> Tensor:
    num, rows, columns = values_KPQ.shape
    across = math.ceil(math.sqrt(num))
    down = math.ceil(num / across)
    limit = torch.quantile(values_KPQ.abs().flatten(1), 0.99, dim=1).clamp(min=1e-6)[:, None, None]
    shown = (0.5 + 0.5 * values_KPQ / limit).clamp(0, 1)
    canvas = torch.zeros(down * (rows + gap_px) - gap_px, across * (columns + gap_px) - gap_px)
    for index, tile in enumerate(shown):
        top, left = (index // across) * (rows + gap_px), (index % across) * (columns + gap_px)
        canvas[top : top + rows, left : left + columns] = tile
    return canvas[None]


def _resized(picture_CHW: Tensor, side_px: int) -> Tensor:
    height, width = picture_CHW.shape[1:]
    scale = side_px / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(picture_CHW[None], size=size, mode="nearest-exact")[0]
