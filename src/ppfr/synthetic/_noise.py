"""Banks of noise, generated once from a fixed seed and read at seeded offsets: faster than drawing per image."""

from __future__ import annotations

import functools

import cv2
import numpy as np

TEXTURE_SIDE = 256
_GRAIN_LENGTH = 1 << 20


def _rng(stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([20240607, stream]))


@functools.cache
def texture_bank() -> np.ndarray:
    """(256, 256, 4) float32 periodic textures, mean 0: blotches, grain, freckles (0 to 1), strands."""
    blotches = _periodic_blur(_rng(0).standard_normal((TEXTURE_SIDE, TEXTURE_SIDE)), 9.0)
    grain = _periodic_blur(_rng(1).standard_normal((TEXTURE_SIDE, TEXTURE_SIDE)), 1.3)
    freckles = np.clip(_periodic_blur(_rng(2).standard_normal((TEXTURE_SIDE, TEXTURE_SIDE)), 1.25) - 1.25, 0.0, 1.0)
    strands = _periodic_blur(_rng(3).standard_normal((TEXTURE_SIDE, TEXTURE_SIDE)), 1.6)
    strands = 0.7 * strands + 0.5 * _periodic_blur(_rng(4).standard_normal((TEXTURE_SIDE, TEXTURE_SIDE)), 5.0)
    bank = np.dstack([blotches, grain, freckles, strands]).astype(np.float32)
    bank.setflags(write=False)
    return bank


@functools.cache
def _strands() -> np.ndarray:
    return np.ascontiguousarray(texture_bank()[:, :, 3])


@functools.cache
def _grain_bank() -> np.ndarray:
    bank = _rng(5).standard_normal(_GRAIN_LENGTH, dtype=np.float32)
    bank.setflags(write=False)
    return bank


def sample_textures(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The four textures (H, W, 4) at texture coordinates u, v (float32, any range: they repeat)."""
    result: np.ndarray = cv2.remap(texture_bank(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return result


def sample_strands(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The strand texture (H, W) at texture coordinates u, v."""
    result: np.ndarray = cv2.remap(_strands(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return result


def grain(count: int, offset: int) -> np.ndarray:
    """`count` standard normal values from the bank, starting at `offset`, with wrap-around."""
    bank = _grain_bank()
    start = offset % _GRAIN_LENGTH
    if start + count <= _GRAIN_LENGTH:
        return bank[start : start + count]
    return (
        np.resize(np.concatenate([bank[start:], bank[:start]]), count)
        if count > _GRAIN_LENGTH
        else np.concatenate([bank[start:], bank[: start + count - _GRAIN_LENGTH]])
    )


def _periodic_blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur on the torus, rescaled to unit variance."""
    frequency = np.fft.fftfreq(TEXTURE_SIDE)
    decay = np.exp(-2.0 * (np.pi * sigma * frequency) ** 2)
    blurred = np.fft.ifft2(np.fft.fft2(values) * decay[:, None] * decay[None, :]).real
    result: np.ndarray = (blurred - blurred.mean()) / blurred.std()
    return result
