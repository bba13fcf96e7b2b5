"""Scalar fields over the crop, and laying colour on it. Pictures are (3, H, W) linear light until the camera."""

from __future__ import annotations

import numpy as np

from ppfr.data._synthetic._identity import Colour

Field = np.ndarray  # (H, W) float32


def clip(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`np.clip` without its dispatch, which costs more than the work on small windows."""
    result: np.ndarray = np.minimum(np.maximum(values, np.float32(low)), np.float32(high))
    return result


def bump(x: Field, y: Field, *, centre: tuple[float, float], radius: tuple[float, float]) -> Field:
    """A Gaussian hill of height 1."""
    dx, dy = (x - centre[0]) * (1.0 / radius[0]), (y - centre[1]) * (1.0 / radius[1])
    hill: Field = np.exp(-(dx * dx + dy * dy))
    return hill


def cover(distance: Field, density: float) -> Field:
    """Antialiased coverage of the region where a signed distance (template pixels) is negative."""
    return clip(0.5 - distance * np.float32(density), 0.0, 1.0)


def blend(picture: np.ndarray, alpha: Field, colour: Colour | np.ndarray) -> None:
    """Lay `colour` (three numbers or (3, h, w)) over `picture` (3, h, w) in place."""
    tint = np.asarray(colour, dtype=np.float32)
    picture += alpha * ((tint[:, None, None] if tint.ndim == 1 else tint) - picture)
