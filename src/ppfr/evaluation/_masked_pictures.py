"""Masked images drawn as pictures, to show what the server sees.

Suffixes: N faces, K channels, P Q grid, H W pixels.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ppfr.core import ShapeError

_LARGEST_PX = 224

Rendering = Literal["channel-mean", "channel-magnitude"]
"""How masked channels become the one picture that image similarity is measured on.

"channel-mean" is the mean of the channels, and "channel-magnitude" the mean of their magnitudes. Neither depends on the
order of the channels, so that a secret permutation of them does not change the picture. The mean is linear: it keeps
signs, and channels of opposite sign cancel. Magnitudes do not cancel: they show where a face has structure.
"""

RENDERINGS: tuple[Rendering, ...] = get_args(Rendering)


def picture_of_masked(masked_NKPQ: Tensor, value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """Draw masked faces.

    Three channels with values in [0, 1] are drawn as an RGB image. Anything else is drawn as a mosaic of its channels.
    Each channel is scaled from its 1st to its 99th percentile, and the mosaic is reduced to at most 224 pixels.

    Args:
        masked_NKPQ: (N, K, P, Q) masked images.
        value_range: the masker's `spec.value_range`.

    Returns:
        (N, H, W, 3) uint8 RGB.
    """
    if masked_NKPQ.ndim != 4 or len(masked_NKPQ) == 0:
        raise ShapeError(f"expected masked images of shape (N, K, P, Q) with N >= 1, got {tuple(masked_NKPQ.shape)}")
    values_NKPQ = masked_NKPQ.detach().cpu().float().numpy()
    low, high = value_range
    if values_NKPQ.shape[1] == 3 and low >= 0 and high <= 1:
        return rgb_bytes(values_NKPQ)
    return np.stack([_mosaic(face_KPQ) for face_KPQ in values_NKPQ])


def blurred_picture(
    masked_NKPQ: Tensor,
    value_range: tuple[float, float],
    size_px: tuple[int, int],
    *,
    rendering: Rendering = "channel-mean",
) -> np.ndarray:
    """One picture of each masked face at the size of the crop, for image similarity measures.

    One or three channels with values in [0, 1] are used as a grey or colour picture. Of anything else, the mean of the
    channels or of their magnitudes is used, scaled from its 1st to its 99th percentile.

    Args:
        masked_NKPQ: (N, K, P, Q) masked images.
        value_range: the masker's `spec.value_range`.
        size_px: (H, W).
        rendering: what is averaged over the channels.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    values_NKPQ = masked_NKPQ.detach().cpu().float()
    low, high = value_range
    if values_NKPQ.shape[1] not in (1, 3) or low < 0 or high > 1:
        mean_NS = (values_NKPQ.abs() if rendering == "channel-magnitude" else values_NKPQ).mean(dim=1).flatten(1)
        edges_2N1 = torch.quantile(mean_NS, torch.tensor([0.01, 0.99]), dim=1, keepdim=True)
        span_N1 = edges_2N1[1] - edges_2N1[0]
        scaled_NS = torch.where(span_N1 > 1e-12, (mean_NS - edges_2N1[0]) / span_N1.clamp_min(1e-12), 0.5)
        values_NKPQ = scaled_NS.view(len(values_NKPQ), 1, *values_NKPQ.shape[2:])
    if tuple(values_NKPQ.shape[2:]) != size_px:
        values_NKPQ = functional.interpolate(values_NKPQ, size=size_px, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(values_NKPQ.clamp(0, 1).expand(-1, 3, -1, -1).numpy(), dtype=np.float32)


def rgb_bytes(image_NCHW: np.ndarray) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8."""
    return np.ascontiguousarray((np.clip(image_NCHW, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1))


def _mosaic(face_KPQ: np.ndarray) -> NDArray[np.uint8]:
    num, rows, columns = face_KPQ.shape
    low_K11, high_K11 = (np.percentile(face_KPQ, q, axis=(1, 2), keepdims=True) for q in (1, 99))
    span_K11 = high_K11 - low_K11
    flat = span_K11 <= 1e-12
    scaled_KPQ = np.where(flat, 0.5, (face_KPQ - low_K11) / np.where(flat, 1, span_K11))
    across = math.ceil(math.sqrt(num))
    down = math.ceil(num / across)
    tiles = np.full((down * across, rows, columns), 0.5)
    tiles[:num] = np.clip(scaled_KPQ, 0, 1)
    grid = tiles.reshape(down, across, rows, columns).transpose(0, 2, 1, 3).reshape(down * rows, across * columns)
    shrink = min(1.0, _LARGEST_PX / max(grid.shape))
    if shrink < 1:
        size = (max(1, round(grid.shape[1] * shrink)), max(1, round(grid.shape[0] * shrink)))
        grid = cv2.resize(grid, size, interpolation=cv2.INTER_AREA)
    grey = (grid * 255 + 0.5).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
