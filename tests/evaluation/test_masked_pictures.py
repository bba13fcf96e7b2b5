"""Pictures of masked images: renderings, and the mosaic of channels."""

from __future__ import annotations

import math

import numpy as np
import torch

from ppfr.evaluation import RENDERINGS, picture_of_masked
from ppfr.evaluation._masked_pictures import blurred_picture


def test_renderings_ignore_the_order_of_channels_and_differ_by_signs() -> None:
    values = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    spread = (-math.inf, math.inf)
    mean, magnitude = (blurred_picture(values, spread, (16, 16), rendering=name) for name in RENDERINGS)
    assert np.allclose(blurred_picture(values, spread, (16, 16)), mean)
    for name, picture in zip(RENDERINGS, (mean, magnitude), strict=True):
        shuffled = blurred_picture(values[:, [3, 1, 5, 0, 2, 4]], spread, (16, 16), rendering=name)
        assert picture.shape == (2, 3, 16, 16) and np.allclose(shuffled, picture, atol=1e-5)
    signs = torch.tensor([1.0, -1, 1, -1, -1, 1])[:, None, None]
    flipped = [blurred_picture(values * signs, spread, (16, 16), rendering=name) for name in RENDERINGS]
    assert np.allclose(flipped[1], magnitude, atol=1e-5) and not np.allclose(flipped[0], mean, atol=0.1)
    grey = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert all(
        np.allclose(blurred_picture(grey, (0.0, 1.0), (16, 16), rendering=name)[:, :1], grey) for name in RENDERINGS
    )


def test_masked_images_are_drawn_as_picture_or_mosaic() -> None:
    plain = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = picture_of_masked(plain, (0.0, 1.0))
    assert np.abs(drawn / 255 - plain.permute(0, 2, 3, 1).numpy()).max() <= 0.5 / 255 + 1e-6
    assert drawn.dtype == np.uint8
    channels = torch.zeros(1, 5, 4, 4)
    channels[0, 4] = torch.arange(16.0).reshape(4, 4)
    mosaic = picture_of_masked(channels, (-float("inf"), float("inf")))
    assert mosaic.shape == (1, 8, 12, 3)  # 5 channels in rows of 3
    assert set(np.unique(mosaic[0, :4])) == {128}  # channels without contrast are grey, none is blown up
    assert mosaic[0, 4:, 4:8].min() == 0
    assert mosaic[0, 4:, 4:8].max() == 255
