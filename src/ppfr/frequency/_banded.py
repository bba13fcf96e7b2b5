"""Eightfold upsampling and 8x8 block DCT as one separable operator with three taps per side, and its adjoint.

Shape suffixes: N planes, K frequency channels, V the distinct horizontal frequencies among them, H W pixels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppfr.frequency._dct import dct_matrix
from ppfr.frequency._memory import empty_large

BLOCK = 8
# Number of values that one thread reads and writes per pass, chosen so that they stay in the cache of a core.
_PIECE = 300_000


class Run(NamedTuple):
    """Channels k .. k+length-1 with the same u and consecutive entries in the list of distinct v."""

    u: int
    k: int
    v: int
    length: int


def runs_of(channels: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[Run, ...]]:
    """The distinct v in ascending order, and the channels as runs over it. A pass covers a whole run.

    >>> runs_of((0, 1, 9, 10))
    ((0, 1, 2), (Run(u=0, k=0, v=0, length=2), Run(u=1, k=2, v=1, length=2)))
    """
    distinct = tuple(sorted({channel % BLOCK for channel in channels}))
    runs: list[Run] = []
    for k, channel in enumerate(channels):
        u, v = channel // BLOCK, distinct.index(channel % BLOCK)
        if runs and runs[-1].u == u and runs[-1].v + runs[-1].length == v:
            runs[-1] = runs[-1]._replace(length=runs[-1].length + 1)
        else:
            runs.append(Run(u, k, v, 1))
    return distinct, tuple(runs)


@functools.lru_cache(maxsize=16)
def taps(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(8, 3, size): weight of pixel p-1, p, p+1 in frequency u of block p, along one axis of `size` pixels.

    Upsampling with align_corners=True reads fine pixel i of block p at place s = (8p + i)(size - 1)/(8 size - 1),
    which lies within one pixel of p; linear interpolation weighs pixel n by max(0, 1 - |s - n|). The operator is the
    DCT of those weights over i. It depends on p, since s - p drifts from border to border. Beyond the border the
    weights are zero.
    """
    with torch.inference_mode(False):
        fine = torch.arange(BLOCK * size, dtype=torch.float64).view(size, BLOCK)
        place = fine * (size - 1) / (BLOCK * size - 1)
        neighbour = torch.arange(size, dtype=torch.float64)[:, None] + torch.tensor([-1.0, 0.0, 1.0])
        weight_pit = (1 - (place[:, :, None] - neighbour[:, None, :]).abs()).clamp(min=0)
        return torch.einsum("ui,pit->utp", dct_matrix(BLOCK), weight_pit).to(device=device, dtype=dtype)


def planes_a_piece(planes_NHW: Tensor, num: int) -> int:
    """Number of planes per pass, with `num` channels each."""
    if planes_NHW.device.type != "cpu":
        return max(1, len(planes_NHW))
    share = _PIECE * torch.get_num_threads()
    return max(1, share // (num * planes_NHW.shape[-1] * planes_NHW.shape[-2]))


class BandedDct:
    """The linear map (N, H, W) -> (N, K, H, W); see `ppfr.frequency.bdct_upsampled`.

    Columns first: T[v] from three horizontal neighbours. The vertical weights of a frequency u > 0 sum to zero and
    those of u = 0 to sqrt(8), so two passes over vertical differences of T replace three taps.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        self._distinct, self._runs = runs_of(channels)
        self._num = len(channels)

    def _operators(self, height: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Vertical (8, 3, H, 1) and horizontal (V, 3, 1, W) weights."""
        return taps(height, device, dtype)[..., None], taps(width, device, dtype)[list(self._distinct), :, None]

    def forward(self, planes_NHW: Tensor, out: Tensor | None = None) -> Tensor:
        """Coefficients of the selected channels; written to `out` if given."""
        num, height, width = planes_NHW.shape
        if out is None:
            out = empty_large(planes_NHW, (num, self._num, height, width))
        piece = planes_a_piece(planes_NHW, len(self._distinct))
        for start in range(0, num, piece):
            self._forward_piece(planes_NHW[start : start + piece], out[start : start + piece])
        return out

    def _forward_piece(self, planes_NHW: Tensor, out_NKHW: Tensor) -> None:
        height, width = planes_NHW.shape[1:]
        device, dtype = planes_NHW.device, planes_NHW.dtype
        rows, columns = self._operators(height, width, device, dtype)
        image = planes_NHW[:, None]
        t_NVHW = image * columns[:, 1]
        t_NVHW[..., 1:].addcmul_(image[..., :-1], columns[:, 0, :, 1:])
        t_NVHW[..., :-1].addcmul_(image[..., 1:], columns[:, 2, :, :-1])
        # Row p of `steps` is T[p] - T[p-1]; the first and the last row are beyond the border and have weight zero.
        steps = torch.nn.functional.pad(t_NVHW[:, :, 1:] - t_NVHW[:, :, :-1], (0, 0, 1, 1))
        for u, k, v, length in self._runs:
            target, step = out_NKHW[:, k : k + length], steps[:, v : v + length]
            if u == 0:
                torch.mul(t_NVHW[:, v : v + length], math.sqrt(BLOCK), out=target)
                target.addcmul_(step[:, :, :-1], rows[u, 0], value=-1.0)
            else:
                torch.mul(step[:, :, :-1], -rows[u, 0], out=target)
            target.addcmul_(step[:, :, 1:], rows[u, 2])

    def adjoint(self, grad_NKHW: Tensor) -> Tensor:
        """Transpose of `forward`, (N, K, H, W) -> (N, H, W)."""
        num, _, height, width = grad_NKHW.shape
        out = grad_NKHW.new_empty(num, height, width)
        piece = planes_a_piece(out, 2 * len(self._distinct))
        for start in range(0, num, piece):
            self._adjoint_piece(grad_NKHW[start : start + piece], out[start : start + piece])
        return out

    def _adjoint_piece(self, grad_NKHW: Tensor, out_NHW: Tensor) -> None:
        num, _, height, width = grad_NKHW.shape
        device, dtype = grad_NKHW.device, grad_NKHW.dtype
        rows, columns = self._operators(height, width, device, dtype)
        shape = (num, len(self._distinct), height, width)
        above, below, t_NVHW = (grad_NKHW.new_zeros(shape) for _ in range(3))
        for u, k, v, length in self._runs:
            grad = grad_NKHW[:, k : k + length]
            above[:, v : v + length].addcmul_(grad, rows[u, 0], value=-1.0)
            below[:, v : v + length].addcmul_(grad, rows[u, 2])
            if u == 0:
                t_NVHW[:, v : v + length].add_(grad, alpha=math.sqrt(BLOCK))
        steps = above[:, :, 1:].add_(below[:, :, :-1])
        t_NVHW[:, :, 1:].add_(steps)
        t_NVHW[:, :, :-1].sub_(steps)
        torch.sum(t_NVHW * columns[:, 1], 1, out=out_NHW)
        out_NHW[..., :-1] += (t_NVHW * columns[:, 0])[..., 1:].sum(1)
        out_NHW[..., 1:] += (t_NVHW * columns[:, 2])[..., :-1].sum(1)
