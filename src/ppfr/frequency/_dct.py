"""The orthonormal DCT-II matrix, the zig-zag order, channel sets: channel c = block*u + v, u the vertical frequency."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ppfr.core import RangeError


@functools.lru_cache(maxsize=32)
def dct_matrix(block: int = 8) -> Tensor:
    """Orthonormal DCT-II matrix, (block, block) float64, row u = frequency u: `coefficients = D @ x`, `x = D.T @ ...`.

    Raises:
        RangeError: `block` below 1.
    """
    if block < 1:
        raise RangeError(f"block is {block}; it must be at least 1, usually 8")
    with torch.inference_mode(False):
        position = torch.arange(block, dtype=torch.float64)
        matrix = torch.cos(math.pi * (2 * position[None] + 1) * position[:, None] / (2 * block))
        matrix *= math.sqrt(2 / block)
        matrix[0] *= math.sqrt(0.5)
    return matrix


def zigzag(block: int = 8) -> tuple[int, ...]:
    """Channel indices c = block*u + v in JPEG's zig-zag order, lowest frequency (DC) first.

    >>> zigzag()[:6]
    (0, 1, 8, 16, 9, 2)
    >>> sorted(zigzag(4)) == list(range(16))
    True

    Raises:
        RangeError: `block` below 1.
    """
    if block < 1:
        raise RangeError(f"block is {block}; it must be at least 1, usually 8")

    def place(channel: int) -> tuple[int, int]:
        u, v = divmod(channel, block)
        return u + v, u if (u + v) % 2 else v

    return tuple(sorted(range(block * block), key=place))


def lowest_channels(num: int, *, block: int = 8, keeps_dc: bool = True) -> tuple[int, ...]:
    """The `num` lowest frequency channels in zig-zag order, counted without DC if `keeps_dc` is False.

    >>> lowest_channels(3, keeps_dc=False)
    (1, 8, 16)

    Raises:
        RangeError: `num` outside 1..block², or 1..block²-1 without DC.
    """
    order = zigzag(block) if keeps_dc else zigzag(block)[1:]
    if not 1 <= num <= len(order):
        without = "" if keeps_dc else " less DC"
        raise RangeError(f"num is {num}; a {block}x{block} block{without} allows 1..{len(order)}")
    return order[:num]
