"""Inverse 8x8 block DCT and downsampling to 1/8 as one weighted sum over channels, and its adjoint.

Shape suffixes: N planes, K frequency channels, V the distinct horizontal frequencies among them, H W pixels.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ppfr.frequency._banded import BLOCK, planes_a_piece, runs_of
from ppfr.frequency._dct import dct_matrix
from ppfr.frequency._memory import empty_large


@functools.lru_cache(maxsize=16)
def weights(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(8, size): value of frequency u's basis where downsampling reads block p, along one axis of `size` blocks.

    Downsampling with align_corners=True reads fine place p(8 size - 1)/(size - 1) = 8p + 7p/(size - 1): between two
    fine pixels of block p itself, from its first pixel at p = 0 to its last at p = size - 1.
    """
    with torch.inference_mode(False):
        place = torch.arange(size, dtype=torch.float64) * (BLOCK - 1) / (size - 1)
        lower = place.floor().clamp(max=BLOCK - 2).long()
        share = place - lower
        basis = dct_matrix(BLOCK)
        return ((1 - share) * basis[:, lower] + share * basis[:, lower + 1]).to(device=device, dtype=dtype)


class PointwiseInverse:
    """The linear map (N, K, H, W) -> (N, H, W); see `ppfr.frequency.inverse_bdct_upsampled`."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        self._distinct, self._runs = runs_of(channels)
        self._num = len(channels)

    def forward(self, blocks_NKHW: Tensor) -> Tensor:
        """Planes from the coefficients of the selected channels."""
        num, _, height, width = blocks_NKHW.shape
        rows = weights(height, blocks_NKHW.device, blocks_NKHW.dtype)[..., None]
        columns = weights(width, blocks_NKHW.device, blocks_NKHW.dtype)[list(self._distinct), None]
        out = blocks_NKHW.new_empty(num, height, width)
        piece = planes_a_piece(out, len(self._distinct))
        for start in range(0, num, piece):
            part = blocks_NKHW[start : start + piece]
            sums_NVHW = part.new_zeros(len(part), len(self._distinct), height, width)
            for u, k, v, length in self._runs:
                sums_NVHW[:, v : v + length].addcmul_(part[:, k : k + length], rows[u])
            torch.sum(sums_NVHW * columns, 1, out=out[start : start + piece])
        return out

    def adjoint(self, grad_NHW: Tensor) -> Tensor:
        """Transpose of `forward`, (N, H, W) -> (N, K, H, W)."""
        num, height, width = grad_NHW.shape
        rows = weights(height, grad_NHW.device, grad_NHW.dtype)[..., None]
        columns = weights(width, grad_NHW.device, grad_NHW.dtype)[list(self._distinct), None]
        out = empty_large(grad_NHW, (num, self._num, height, width))
        piece = planes_a_piece(grad_NHW, len(self._distinct))
        for start in range(0, num, piece):
            along_NVHW = grad_NHW[start : start + piece, None] * columns
            for u, k, v, length in self._runs:
                torch.mul(along_NVHW[:, v : v + length], rows[u], out=out[start : start + piece, k : k + length])
        return out
