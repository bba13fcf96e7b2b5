"""Scalar fields over the crop, and blending of colours. Pictures are (3, H, W) linear light until the camera."""

from __future__ import annotations

import numpy as np

from ppfr.synthetic._identity import Colour

Field = np.ndarray  # (H, W) float32


def clip(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`np.clip` without its dispatch, which dominates the cost on small windows."""
    result: np.ndarray = np.maximum(values, np.float32(low))
    np.minimum(result, np.float32(high), out=result)
    return result


def bump(x: Field, y: Field, *, centre: tuple[float, float], radius: tuple[float, float]) -> Field:
    """A Gaussian hill of height 1."""
    dx, dy = (x - centre[0]) * (1.0 / radius[0]), (y - centre[1]) * (1.0 / radius[1])
    hill: Field = np.exp(-(dx * dx + dy * dy))
    return hill


def cover(distance: Field, density: float) -> Field:
    """Antialiased coverage of the region where a signed distance (template pixels) is negative."""
    coverage: Field = distance * np.float32(-density)
    coverage += np.float32(0.5)
    np.maximum(coverage, np.float32(0.0), out=coverage)
    np.minimum(coverage, np.float32(1.0), out=coverage)
    return coverage


def blend(picture: np.ndarray, alpha: Field, colour: Colour | np.ndarray) -> None:
    """Blend `colour` (three numbers or (3, h, w)) over `picture` (3, h, w) in place."""
    tint = np.asarray(colour, dtype=np.float32)
    change = (tint[:, None, None] if tint.ndim == 1 else tint) - picture
    change *= alpha
    picture += change
