"""Fast Laplace noise and random bit flips from a seed, for experiments: one stream of random bits per image.

Masks that protect somebody use `SystemNoise` instead.

Shape suffixes: B images, N values of an image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Generator, Tensor

LARGEST_DRAW = 32 * math.log(2)
"""Largest draw, in units of the scale: 31 bits determine a magnitude. Laplace noise exceeds it with odds of 2^-32."""

_LN2 = math.log(2)
_SQRT2 = math.sqrt(2)
_PIECE = 2048


@final
class ImageNoise:
    """One stream of random bits per image of a batch, seeded by four words per image that are drawn from `rng` at once.

    On a CPU the bits come from NumPy's SFC64, on another device from the generator of that device. The same `rng`
    therefore gives different noise on different devices. Neither generator is cryptographic, and `rng` has 32 bits.

    Args:
        num: B.
        rng: CPU generator.
        is_shared: use one stream for all images, which gives one draw per batch.
    """

    def __init__(self, num: int, *, rng: Generator, is_shared: bool = False) -> None:
        words = torch.randint(-(2**63), 2**63 - 1, (1 if is_shared else num, 4), generator=rng)
        self._num, self._words = num, words.numpy().view(np.uint64)
        self._streams: list[np.random.SFC64] | None = None
        self._device_streams: dict[torch.device, Generator] = {}

    def _bits(self, row: int, num: int) -> np.ndarray:
        """(num,) uint32 of one stream."""
        if self._streams is None:
            self._streams = [np.random.SFC64(list(map(int, words))) for words in self._words]
        drawn: np.ndarray = self._streams[row].random_raw((num + 1) // 2)
        return drawn.view(np.uint32)[:num]

    def _generator(self, device: torch.device) -> Generator:
        if device not in self._device_streams:
            folded = int(np.bitwise_xor.reduce(self._words, axis=None)) & (2**63 - 1)
            self._device_streams[device] = torch.Generator(device).manual_seed(folded)
        return self._device_streams[device]

    @property
    def is_shared(self) -> bool:
        """Whether all images share one stream."""
        return self._num != len(self._words)

    def laplace_row(self, row: int, out_N: Tensor) -> Tensor:
        """The draws of one image on a CPU, written to `out_N`, float32. Call it once per row, in any order."""
        laplace_from_bits(self._bits(row, out_N.numel()), out_N.numpy())
        return out_N

    def laplace(self, num_values: int, device: torch.device) -> Tensor:
        """(B, N) draws of Laplace(0, 1), float32; (1, N) if the stream is shared."""
        num_rows = len(self._words)
        if device.type != "cpu":
            return laplace_of(self._generator(device), (num_rows, num_values))
        noise = torch.empty(num_rows, num_values)
        for row in range(num_rows):
            self.laplace_row(row, noise[row])
        return noise

    def flips(self, num_values: int, device: torch.device, *, probability: float) -> Tensor:
        """(B, N) bool, true with the given probability; (1, N) if the stream is shared."""
        num_rows = len(self._words)
        if device.type != "cpu":
            generator = self._generator(device)
            return torch.rand(num_rows, num_values, generator=generator, device=device) < probability
        below = np.uint32(round(probability * 2**32))
        return torch.from_numpy(np.stack([self._bits(row, num_values) < below for row in range(num_rows)]))


def laplace_of(generator: Generator, shape: tuple[int, int]) -> Tensor:
    """Laplace(0, 1) on the generator's device: an exponential variable and a random sign per value."""
    magnitude = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    sign = torch.randint(0, 2, shape, generator=generator, device=generator.device, dtype=torch.int8)
    return magnitude * (2 * sign - 1)


def laplace_from_bits(bits_N: np.ndarray, out_N: np.ndarray) -> None:
    """Laplace(0, 1) by inversion: the lowest bit is the sign, u = (the others + 1/2) / 2^31, magnitude -log(u).

    Args:
        bits_N: uint32, uniform.
        out_N: float32, written.
    """
    compiled(_laplace_from_bits)(bits_N, out_N)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop over arrays with Numba, which caches the machine code on disk where it can."""
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
    try:
        made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable cache directory
        made = numba.njit(**options)(function)
    return made


def _laplace_from_bits(bits_N: np.ndarray, out_N: np.ndarray) -> None:
    """Works on pieces that stay in cache, in loops without branches that the compiler can vectorise.

    f = u * 2^31 = 2^e * m with m in [sqrt(1/2), sqrt(2)), read off the bits of the float; log m = 2 artanh(s) with
    s = (m - 1) / (m + 1), |s| < 0.172, whose series is exact to float32 after five terms.
    """
    fraction = np.empty(_PIECE, np.float32)
    pattern = fraction.view(np.int32)
    exponent = np.empty(_PIECE, np.float32)
    one, half, two = np.float32(1.0), np.float32(0.5), np.float32(2.0)
    c3, c5, c7, c9 = np.float32(2 / 3), np.float32(2 / 5), np.float32(2 / 7), np.float32(2 / 9)
    ln2, sqrt2 = np.float32(_LN2), np.float32(_SQRT2)
    for start in range(0, out_N.size, _PIECE):
        bits, out = bits_N[start : start + _PIECE], out_N[start : start + _PIECE]
        num = out.size
        for j in range(num):
            fraction[j] = np.float32(np.int32(bits[j] >> np.uint32(1))) + half
        for j in range(num):
            word = pattern[j]
            exponent[j] = np.float32((word >> np.int32(23)) - np.int32(127 + 31))
            pattern[j] = (word & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
        for j in range(num):
            m, e = fraction[j], exponent[j]
            is_high = m > sqrt2
            m = m * half if is_high else m
            e = e + one if is_high else e
            s = (m - one) / (m + one)
            q = s * s
            magnitude = -(e * ln2 + s * (two + q * (c3 + q * (c5 + q * (c7 + q * c9)))))
            out[j] = -magnitude if bits[j] & np.uint32(1) else magnitude
