"""Local binary patterns of colour planes: for each place, which of its eight neighbours have at least its value.

Shape suffixes: B batch, C colour planes, H W pixels, P Q grid, 8 the neighbours.
"""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from ppfr.core import RangeError
from ppfr.masking._front_end import check_choice
from ppfr.masking._grid_noise import SystemNoise
from ppfr.masking._noise import ImageNoise

ColourName = Literal["none", "lbp", "lbp-ycbcr", "lbp-difference", "lbp-bits"]

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""Row and column offsets of bits 0 to 7: clockwise from the upper left."""

MAX_BITS_PER_PLACE = 18
"""Largest number of bits of a plane's patterns that depend on one place: its own 8, one of each neighbour, and two more
where neighbours read it across the border."""

# Integer multiples of the planes, exact in float32 for integer levels of R, G and B. A pattern depends on order only.
_PLANES = MappingProxyType(
    {
        "y": (299.0, 587.0, 114.0),
        "cb": (-299.0, -587.0, 886.0),
        "cr": (701.0, -587.0, -114.0),
        "r-g": (1.0, -1.0, 0.0),
        "g-b": (0.0, 1.0, -1.0),
        "b-r": (-1.0, 0.0, 1.0),
    }
)
_OF = MappingProxyType(
    {
        "none": (),
        "lbp": ("cb", "cr"),
        "lbp-ycbcr": ("y", "cb", "cr"),
        "lbp-difference": ("r-g", "g-b", "b-r"),
        "lbp-bits": ("cb", "cr"),
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ColourChannels:
    """Channels of sparse colour: local binary patterns, optionally under randomised response.

    Attributes:
        kind: "none"; "lbp" for code maps of Cb and Cr; "lbp-ycbcr" for Y as well; "lbp-difference" for R - G, G - B
            and B - R; "lbp-bits" for the eight bits of Cb and Cr as separate channels. A code is the sum of
            bit_k * 2^k, divided by 255; a bit is 0 or 1.
        eps: privacy parameter of one bit under randomised response: each bit of each image is flipped independently
            with probability 1 / (1 + e^eps). None leaves the bits unchanged.

    Raises:
        RangeError: the kind is unknown, or eps is 0 or below.
    """

    kind: ColourName = "lbp"
    eps: float | None = None

    def __post_init__(self) -> None:
        check_choice("colour", self.kind, tuple(_OF))
        if self.eps is not None and not 0 < self.eps < math.inf:
            raise RangeError(
                f"colour_eps is {self.eps}; it must be above 0 and finite, where smaller means more noise; None leaves "
                "the patterns unchanged"
            )

    @property
    def num_planes(self) -> int:
        """Number of colour planes from which patterns are computed."""
        return len(_OF[self.kind])

    @property
    def num_channels(self) -> int:
        """Number of output channels."""
        return self.num_planes * (8 if self.kind == "lbp-bits" else 1)

    @property
    def is_stochastic(self) -> bool:
        """Whether bits are flipped."""
        return self.num_planes > 0 and self.eps is not None

    def write(self, image_BCHW: Tensor, out_BKPQ: Tensor, noise: ImageNoise | SystemNoise | None) -> None:
        """Write the channels of an image in [0, 1] to `out_BKPQ`, without flips if `noise` is None; no gradient."""
        if self.num_planes == 0 or len(image_BCHW) == 0:
            return
        with torch.no_grad():
            rows, columns = out_BKPQ.shape[2:]
            bits_BC8PQ = pattern_bits(plane_levels(image_BCHW, _OF[self.kind], (int(rows), int(columns))))
            if self.eps is not None and noise is not None:
                flips = noise.flips(bits_BC8PQ[0].numel(), image_BCHW.device, probability=1 / (1 + math.exp(self.eps)))
                bits_BC8PQ = bits_BC8PQ ^ flips.view(len(flips), *bits_BC8PQ.shape[1:])
            if self.kind == "lbp-bits":
                out_BKPQ.copy_(bits_BC8PQ.flatten(1, 2))
                return
            out_BKPQ.zero_()
            for number in range(8):
                out_BKPQ.add_(bits_BC8PQ[:, :, number], alpha=2**number / 255)


def plane_levels(image_BCHW: Tensor, planes: tuple[str, ...], grid: tuple[int, int]) -> Tensor:
    """(B, C, P, Q) integers in the same order as the planes' values, from the image rounded to levels of 1/255.

    If the grid is coarser than the image, each place has the sum over its pixels. All arithmetic is exact, so equal
    places are equal on every machine.
    """
    levels_BCHW = (image_BCHW.detach() * 255.0).round_()
    rows, columns = grid
    if (rows, columns) != tuple(levels_BCHW.shape[2:]):
        cell = (levels_BCHW.shape[2] // rows, levels_BCHW.shape[3] // columns)
        levels_BCHW = torch.nn.functional.avg_pool2d(levels_BCHW, cell, divisor_override=1)
    weights = levels_BCHW.new_tensor([_PLANES[name] for name in planes])
    return torch.matmul(weights, levels_BCHW.flatten(2)).view(len(levels_BCHW), len(planes), rows, columns)


def pattern_bits(levels_BCPQ: Tensor) -> Tensor:
    """(B, C, 8, P, Q) bool: the neighbour has at least the value of the place. The border is replicated."""
    rows, columns = levels_BCPQ.shape[2:]
    padded = torch.nn.functional.pad(levels_BCPQ, (1, 1, 1, 1), mode="replicate")
    return torch.stack(
        [padded[:, :, 1 + r : 1 + r + rows, 1 + c : 1 + c + columns] >= levels_BCPQ for r, c in NEIGHBOURS], 2
    )
