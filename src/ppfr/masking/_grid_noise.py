"""Laplace noise on a grid, from the operating system's randomness: the noise of every mask that protects somebody.

Noise in floating point has gaps: which float32 values can occur depends on the value that the noise was added to, so
that a single output often rules an input out (Mironov, CCS 2012). Here a clipped value becomes an integer k in 0..K
first, the noise n is an integer too, and what leaves the device is a function of the integer k + n alone. Every integer
can occur under every input, and one step more or less changes no probability by more than a factor of e^(1/256).

The noise has 256 steps to its scale and the law P(n) ~ e^(-|n| / t), t = 256 * (1 + 2^-12). It is drawn by inversion
of a table of counts out of 2^64 for up to 22 scales. The first 16 random bits decide 95 % of all draws, and 48 further
bits the others. At the ends of the table, "22 scales or more", the law repeats itself (it has no memory), so that no
tail is cut. The slack of 2^-12 in t is larger than all rounding of the counts: the ratios of the counts themselves are
below e^(1/256), which the tests check in integers.

Shape suffixes: B images, N values of an image.
"""

from __future__ import annotations

import dataclasses
import decimal
import functools
import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppfr.core import Keystream, protective_streams
from ppfr.masking._noise import compiled

STEPS_PER_SCALE = 256
"""Number of grid steps in one scale of the noise; a privacy parameter is rounded down to a multiple of 1/256."""

MAX_LEVELS = 1 << 22
"""Largest number of steps in a clipped range: integers up to 2^24 are exact in float32."""

MAX_EPS = MAX_LEVELS / STEPS_PER_SCALE
"""Larger privacy parameters give the noise of this one."""

_LAST = 22 * STEPS_PER_SCALE
_SLACK = 2.0**-12
_GUIDE_BITS = 16
_UNDECIDED = np.int16(-(2**15))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawTable:
    """The law of one draw, as counts out of 2^64, and what inversion needs.

    Attributes:
        counts: of -22 scales or less, of each number of steps between, and of 22 scales or more; they sum to 2^64.
        last_word_M: the largest 64-bit word that gives each number of steps, uint64.
        guide_G: the number of steps if the first 16 bits decide it, else `_UNDECIDED`, int16.
        first_G: the position in `last_word_M` at which the search of each 16 bits starts, int32.
    """

    counts: tuple[int, ...]
    last_word_M: NDArray[np.uint64]
    guide_G: NDArray[np.int16]
    first_G: NDArray[np.int32]


@functools.cache
def draw_table() -> DrawTable:
    """Make the table, in integers of 128 bits."""
    counts = _counts()
    edges, total = [], 0
    for count in counts:
        total += count
        edges.append(total - 1)
    last_word_M = np.array(edges, dtype=np.uint64)
    bucket = np.arange(2**_GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - _GUIDE_BITS)
    first = np.searchsorted(last_word_M, bucket)
    last = np.searchsorted(last_word_M, bucket | np.uint64(2 ** (64 - _GUIDE_BITS) - 1))
    guide_G = np.where(first == last, first - _LAST, _UNDECIDED).astype(np.int16)
    return DrawTable(counts=counts, last_word_M=last_word_M, guide_G=guide_G, first_G=first.astype(np.int32))


def _counts() -> tuple[int, ...]:
    with decimal.localcontext() as context:
        context.prec = 60
        ratio = (-1 / (decimal.Decimal(STEPS_PER_SCALE) * (1 + decimal.Decimal(_SLACK)))).exp()
        centre = (1 - ratio) / (1 + ratio) * 2**64
        exact = [centre * ratio**number for number in range(_LAST)]
        tail = centre * ratio**_LAST / (1 - ratio)
        side = [int(value) for value in (*exact[1:], tail)]
    # Rounding down leaves some thousand of 2^64 over, which no ratio at the centre notices.
    return (*reversed(side), 2**64 - 2 * sum(side), *side)


@final
class SystemNoise:
    """Noise of a batch from one key of the operating system, with a stream for each image.

    The draws are made on the CPU, for every device: the generators of GPUs take seeds of 64 bits, and AES on the CPU
    makes words faster than a copy to the device needs them.

    Args:
        num: B.
        is_shared: use one stream for all images, which gives one draw per batch.
    """

    def __init__(self, num: int, *, is_shared: bool = False) -> None:
        self._num = num
        self._streams = protective_streams(1 if is_shared else num)

    @property
    def is_shared(self) -> bool:
        """Whether all images share one stream."""
        return self._num != len(self._streams)

    def steps_row(self, row: int, out_N: Tensor) -> Tensor:
        """The draws of one image on a CPU, whole numbers of steps, written to `out_N`, float32."""
        draw_steps(self._streams[row], out_N.numpy())
        return out_N

    def steps(self, num_values: int, device: torch.device) -> Tensor:
        """(B, N) draws, whole numbers of steps, float32; (1, N) if the stream is shared."""
        drawn = torch.empty(len(self._streams), num_values)
        for row in range(len(drawn)):
            self.steps_row(row, drawn[row])
        return drawn.to(device)

    def flips(self, num_values: int, device: torch.device, *, probability: float) -> Tensor:
        """(B, N) bool, true with the given probability, rounded up to a multiple of 2^-32; (1, N) if shared."""
        below = np.uint32(min(math.ceil(probability * 2**32), 2**31))
        rows = [stream.words(num_values, np.uint32) < below for stream in self._streams]
        drawn = np.stack(rows) if rows else np.empty((0, num_values), np.bool_)
        return torch.from_numpy(drawn).to(device)


def draw_steps(stream: Keystream, out_N: NDArray[np.float32]) -> None:
    """Draw whole numbers of steps from the law of this module.

    Args:
        stream: of uniform words.
        out_N: float32, written.
    """
    table = draw_table()
    head_N = stream.words(out_N.size, np.uint16)
    open_N = np.empty(out_N.size, np.int32)
    num_open = compiled(_look_up)(table.guide_G, head_N, out_N, open_N)
    open_U = open_N[:num_open]
    compiled(_invert)(table.last_word_M, table.first_G, head_N, open_U, stream.words(num_open, np.uint64), out_N)
    found_U = out_N[open_U]
    for at in open_U[np.abs(found_U) == _LAST]:
        out_N[at] += math.copysign(_steps_beyond(stream), out_N[at])


def _look_up(
    guide_G: NDArray[np.int16], head_N: NDArray[np.uint16], out_N: NDArray[np.float32], open_N: NDArray[np.int32]
) -> int:
    """Write the draws that 16 bits decide, and list the others."""
    num_open = 0
    for j in range(head_N.size):
        steps = guide_G[head_N[j]]
        out_N[j] = np.float32(steps)
        open_N[num_open] = j
        num_open += steps == np.int16(-32768)
    return num_open


def _invert(  # noqa: PLR0917
    last_word_M: NDArray[np.uint64],
    first_G: NDArray[np.int32],
    head_N: NDArray[np.uint16],
    open_U: NDArray[np.int32],
    words_U: NDArray[np.uint64],
    out_N: NDArray[np.float32],
) -> None:
    """Write the draws that need 64 bits: 16 that are given, and the lowest 48 of a word."""
    for j in range(open_U.size):
        head = head_N[open_U[j]]
        word = (np.uint64(head) << np.uint64(48)) | (words_U[j] & np.uint64(0xFFFFFFFFFFFF))
        low, high = first_G[head], first_G[head + 1] if head < 65535 else last_word_M.size - 1
        while low < high:  # the first number of steps whose last word is not below this word
            middle = (low + high) >> 1
            if last_word_M[middle] < word:
                low = middle + 1
            else:
                high = middle
        out_N[open_U[j]] = np.float32(low - last_word_M.size // 2)


def _steps_beyond(stream: Keystream) -> int:
    """The rest of a draw that reached the end of the table: the law of |n| without a sign, once more."""
    total, words = 0, draw_table().last_word_M
    while True:
        found = int(np.searchsorted(words, stream.words(1, np.uint64))[0]) - _LAST
        if found < 0:
            continue
        total += found
        if found < _LAST:
            return total


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The grid of each coefficient: the output is low + step * (k + n), with k in least..most.

    Attributes:
        low_N: the value of k = 0.
        step_N: the distance of neighbouring values, public.
        inverse_N: 1 / step_N, or 0 where the range has no width.
        least_N: the smallest k.
        most_N: the largest k, at most 256 * eps: what bounds the change between two inputs.
    """

    low_N: Tensor
    step_N: Tensor
    inverse_N: Tensor
    least_N: Tensor
    most_N: Tensor

    @classmethod
    def of_ranges(cls, low_N: Tensor, range_N: Tensor, scale_N: Tensor, eps_N: Tensor) -> Grid:
        """The grid of values clipped to [low, low + range] under noise of the given scale.

        Args:
            low_N: start of each range, float32.
            range_N: width of each range.
            scale_N: of the noise, range / eps.
            eps_N: float64 on the CPU, privacy parameters; K is at most 256 times each.
        """
        step_N = torch.maximum(scale_N / STEPS_PER_SCALE, range_N / MAX_LEVELS)
        most_N = (eps_N * STEPS_PER_SCALE).floor().clamp(max=MAX_LEVELS).to(low_N)
        return cls(
            low_N=low_N, step_N=step_N, inverse_N=_inverse(step_N), least_N=torch.zeros_like(most_N), most_N=most_N
        )

    @classmethod
    def without_ranges(cls, scale_N: Tensor, largest: float) -> Grid:
        """The grid of values in [-largest, largest] that are not clipped, whose noise proves nothing."""
        step_N = (scale_N / STEPS_PER_SCALE).clamp(min=largest / MAX_LEVELS)
        bound = torch.full_like(step_N, float(MAX_LEVELS))
        return cls(
            low_N=torch.zeros_like(step_N), step_N=step_N, inverse_N=_inverse(step_N), least_N=-bound, most_N=bound
        )

    def send(self, values_BN: Tensor, steps_BN: Tensor) -> Tensor:
        """Overwrite values by what leaves the device, given draws in steps. Only without gradient."""
        levels_BN = values_BN.sub_(self.low_N).mul_(self.inverse_N).round_()
        torch.minimum(levels_BN, self.most_N, out=levels_BN)
        torch.maximum(levels_BN, self.least_N, out=levels_BN)
        return levels_BN.add_(steps_BN).mul_(self.step_N).add_(self.low_N)


def _inverse(step_N: Tensor) -> Tensor:
    return torch.where(step_N > 0, 1 / step_N, 0.0)


class SentValue(torch.autograd.Function):
    """The value that was sent, with the gradient of the value that it stands for."""

    @staticmethod
    def forward(_ctx: object, continuous: Tensor, sent: Tensor) -> Tensor:
        """Return `sent`."""
        return sent.view_as(continuous)

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient to `continuous`."""
        return gradient, None
