"""Gaussian low-pass and high-pass filters in the Fourier domain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ppfr.core import RangeError
from ppfr.frequency._checks import check_planes


def fft_filter(image_BCHW: Tensor, *, kind: Literal["high", "low"], radius_px: float) -> Tensor:
    """Gaussian filter of the 2-D spectrum; differentiable and linear, with the shape and dtype of the input.

    The low pass multiplies the frequency at distance d from the spectrum's centre by exp(-d² / (2 radius_px²)); the
    high pass by one minus that, so the two add up to the image. The spectrum belongs to the periodic image: opposite
    borders are neighbours.

    Args:
        image_BCHW: (B, C, H, W) of any range, float32 or float64.
        kind: "low" keeps the coarse part, "high" removes it (and the mean with it).
        radius_px: standard deviation of the Gaussian in spectrum pixels, that is in cycles per image; above 0.

    Returns:
        (B, C, H, W). The low pass stays in the range of the image; the high pass is centred on 0.

    Raises:
        ShapeError: the shape is not (B, C, H, W).
        RangeError: `kind` is not "high" or "low", or the radius is not above 0.

    >>> float(fft_filter(torch.ones(1, 1, 4, 4), kind="low", radius_px=1.0)[0, 0, 0, 0])
    1.0
    """
    check_planes(image_BCHW, what="image")
    if kind not in ("high", "low"):
        raise RangeError(f"kind is {kind!r}; it must be 'high' or 'low'")
    if not 0 < radius_px < float("inf"):
        raise RangeError(f"radius_px is {radius_px}; it must be above 0 and finite (try 4 to 16 for 112x112)")
    height, width = image_BCHW.shape[-2:]
    # Frequencies in cycles per image, in float64, because float32 loses all digits of the exponent for a radius far
    # below 1.
    vertical = torch.fft.fftfreq(height, d=1 / height, dtype=torch.float64, device=image_BCHW.device)
    horizontal = torch.fft.rfftfreq(width, d=1 / width, dtype=torch.float64, device=image_BCHW.device)
    distance2 = vertical[:, None] ** 2 + horizontal[None, :] ** 2
    low = torch.exp(-distance2 / (2 * radius_px**2))
    gain = (low if kind == "low" else 1 - low).to(image_BCHW.dtype)
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(image_BCHW) * gain, s=(height, width))
    return filtered
