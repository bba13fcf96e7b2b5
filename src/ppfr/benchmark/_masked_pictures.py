"""Pictures of what is no picture: a masked face drawn so that a person sees what the server sees.

Suffixes: N faces, K channels, P Q grid, H W pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ppfr.core import ShapeError

_LARGEST_PX = 224


def picture_of_masked(masked_NKPQ: Tensor, value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """Draw masked faces.

    Three channels with values in [0, 1] are drawn as the RGB image that they are. Anything else is drawn as a mosaic of
    its channels in rows, each channel scaled from its own 1st to its 99th percentile, shrunk to 224 pixels at most.

    Args:
        masked_NKPQ: (N, K, P, Q) masked images.
        value_range: the masker's `spec.value_range`.

    Returns:
        (N, H, W, 3) uint8 RGB.
    """
    if masked_NKPQ.ndim != 4 or len(masked_NKPQ) == 0:
        raise ShapeError(f"masked images have shape {tuple(masked_NKPQ.shape)}; give (N, K, P, Q) with N >= 1")
    values_NKPQ = masked_NKPQ.detach().cpu().float().numpy()
    low, high = value_range
    if values_NKPQ.shape[1] == 3 and low >= 0 and high <= 1:
        return rgb_bytes(values_NKPQ)
    return np.stack([_mosaic(face_KPQ) for face_KPQ in values_NKPQ])


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
