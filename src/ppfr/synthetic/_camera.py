"""From light to uint8 pixels: exposure, blur, sampling, tone curve, noise, compression."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from ppfr.synthetic._capture import Camera
from ppfr.synthetic._fields import clip
from ppfr.synthetic._noise import grain

_METERED_LEVEL = 0.24  # linear light that automatic exposure aims at, averaged over the centre
_METERING = 0.7  # strength of the exposure correction; 1 would give all skins the same brightness


def photograph(light: np.ndarray, camera: Camera) -> np.ndarray:
    """(3, H, W) linear light to (H, W, 3) uint8 RGB."""
    size = light.shape[1]
    middle = light[:, size // 4 : -size // 4 : 2, size // 4 : -size // 4 : 2]
    metered = (_METERED_LEVEL / max(float(middle.mean()), 0.01)) ** _METERING
    image = cv2.merge([plane * np.float32(gain * metered) for plane, gain in zip(light, camera.gains, strict=True)])
    image = _defocus(image, camera, size / 112.0)
    if camera.sampling < 1.0:
        side = max(16, round(size * camera.sampling))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.sqrt(clip(image, 0.0, 1.6))
    image = image * (1.0 + 0.12 * image) / (1.0 + 0.17 * image * image)  # rolls highlights off instead of clipping them
    if camera.is_grey:
        image = np.repeat(image @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32), 3, axis=2)
    noise = grain(image.size, camera.noise_offset).reshape(image.shape)
    image = image * np.float32(255.0) + noise * np.float32(255.0 * camera.noise)
    pixels = clip(image + 0.5, 0.0, 255.0).astype(np.uint8)
    return _compress(_tone_curve(camera.contrast)[pixels], camera.jpeg_quality)


def _defocus(image: np.ndarray, camera: Camera, unit: float) -> np.ndarray:
    if camera.blur_px > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), camera.blur_px * unit)
    if camera.motion_px > 0.0:
        side = 2 * int(np.ceil(camera.motion_px * unit / 2)) + 1
        kernel = np.zeros((side, side), np.uint8)
        middle, reach = side // 2, camera.motion_px * unit / 2
        step = np.array([np.cos(camera.motion_angle), np.sin(camera.motion_angle)]) * reach
        ends = [tuple(int(v) for v in np.round((middle + sign * step) * 16)) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 255, 1, cv2.LINE_AA, 4)
        image = cv2.filter2D(image, -1, kernel.astype(np.float32) / max(float(kernel.sum()), 1.0))
    return image


@functools.lru_cache(maxsize=256)
def _tone_curve(contrast: float) -> np.ndarray:
    levels = np.linspace(0.0, 1.0, 256)
    curve = np.where(levels < 0.5, 0.5 * (2 * levels) ** contrast, 1.0 - 0.5 * (2 - 2 * levels) ** contrast)
    return np.round(255.0 * curve).astype(np.uint8)


def _compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    if quality == 0:
        return pixels
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB))
