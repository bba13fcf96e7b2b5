"""A small noisy front end, its ranges on random images, and a budget over it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from ppfr.masking import LaplaceBudget, NoisyFrontEnd, Sensitivities

CPU = torch.device("cpu")
TINY = NoisyFrontEnd(front_end="block", stride=8, num_channels=10, in_shape=(3, 16, 16))  # 30 x 2 x 2
FEW = NoisyFrontEnd(front_end="block", stride=8, num_channels=1, fuses=True, in_shape=(3, 8, 8))  # 1 x 1 x 1


def rng(seed: int = 0) -> Generator:
    """A generator that is seeded."""
    return Generator().manual_seed(seed)


def pixels(num: int, *, seed: int = 1, size: int = 16) -> np.ndarray:
    """(N, H, W, 3) uint8 random images."""
    return np.random.default_rng(seed).integers(0, 256, (num, size, size, 3), np.uint8)


def as_images(pixels_NHWC: np.ndarray) -> Tensor:
    """(N, 3, H, W) in [0, 1]."""
    return torch.tensor(pixels_NHWC).permute(0, 3, 1, 2).float() / 255


REFERENCE = pixels(40)
RANGES = Sensitivities.measure(REFERENCE, TINY)
UNIT = Sensitivities(low=np.zeros((1, 1, 1)), high=np.ones((1, 1, 1)), front_end=FEW.facts())


def budget(eps_mean: float = 1.0, **given_: object) -> LaplaceBudget:
    """A budget over the small front end."""
    return LaplaceBudget(TINY, eps_mean=eps_mean, sensitivities=RANGES, **given_)  # type: ignore[arg-type]
