"""Inner products in the ring behind one interface: compiled for the CPU, or by PyTorch on any device.

A party's additive share of <x, y> is x_0 y_0 + x_0 y_1 + x_1 y_0 over its two components, summed over coordinates. This
is one inner product of the stored row (x_0, x_1) with the probe's words (y_0 + y_1, y_0): a plain matrix product over
the ring. Suffixes: B probes, M rows, N pairs, W words.
"""

from __future__ import annotations

from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 1 << 14
_LOW = 0xFFFF


class RingProducts(Protocol):
    """Computes inner products of probes with a gallery's rows."""

    def of_all(self, probes_BW: NDArray[Any]) -> NDArray[Any]:
        """(B, W) -> (B, M): every probe with every row."""
        ...

    def of_pairs(self, probes_NW: NDArray[Any], reference_N: NDArray[np.int64]) -> NDArray[Any]:
        """(N, W), (N,) -> (N,): probe n with row reference_N[n]."""
        ...


def probe_words(words_BW: NDArray[Any]) -> NDArray[Any]:
    """A shared probe's words in the form that rows are multiplied with: (y_0 + y_1, y_0)."""
    dim = words_BW.shape[1] // 2
    return np.concatenate([words_BW[:, :dim] + words_BW[:, dim:], words_BW[:, :dim]], axis=1)


@final
class NumbaProducts:
    """Compiled loops on one core.

    Args:
        rows_MW: ring elements, uint16 or uint32; referenced, not copied.
    """

    def __init__(self, rows_MW: NDArray[Any]) -> None:
        self._rows_MW = rows_MW

    def of_all(self, probes_BW: NDArray[Any]) -> NDArray[Any]:
        """See `RingProducts.of_all`."""
        from ppfr.secure._kernels import multiply_rows

        out_BM = np.empty((len(probes_BW), len(self._rows_MW)), dtype=self._rows_MW.dtype)
        multiply_rows(self._rows_MW, probes_BW, out_BM)
        return out_BM

    def of_pairs(self, probes_NW: NDArray[Any], reference_N: NDArray[np.int64]) -> NDArray[Any]:
        """See `RingProducts.of_pairs`."""
        from ppfr.secure._kernels import multiply_pairs

        out_N = np.empty(len(reference_N), dtype=self._rows_MW.dtype)
        multiply_pairs(self._rows_MW, reference_N, probes_NW, out_N)
        return out_N


@final
class TorchProducts:
    """Exact matrix products in float64: every partial sum is an integer below 2^53.

    Words of 16 bits are multiplied directly: products are below 2^32, and W <= 8192 of them are summed. Words of 32
    bits are split into halves of 16 bits; the product of the two upper halves vanishes in the ring.

    Args:
        rows_MW: ring elements, uint16 or uint32; copied to the device, as integers of the same width.
        device: a PyTorch device.
    """

    def __init__(self, rows_MW: NDArray[Any], *, device: str = "cpu") -> None:
        import torch

        self._dtype = rows_MW.dtype
        self._device = torch.device(device)
        self._signed = np.dtype(f"int{8 * self._dtype.itemsize}")
        self._rows_MW = self._placed(rows_MW)

    def of_all(self, probes_BW: NDArray[Any]) -> NDArray[Any]:
        """See `RingProducts.of_all`."""
        parts = [
            self._matrix_product(self._rows_MW[start : start + _ROWS_AT_ONCE], self._placed(probes_BW))
            for start in range(0, len(self._rows_MW), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts, axis=1)

    def of_pairs(self, probes_NW: NDArray[Any], reference_N: NDArray[np.int64]) -> NDArray[Any]:
        """See `RingProducts.of_pairs`."""
        import torch

        rows_NW = self._rows_MW[torch.from_numpy(reference_N).to(self._device)].long()
        total_N = (rows_NW * self._placed(probes_NW).long()).sum(
            dim=1
        )  # wraps at 2^64, of which the ring's bits remain
        return np.asarray(total_N.cpu().numpy().astype(self._dtype))

    def _placed(self, words: NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(words).view(self._signed)).to(self._device)

    def _matrix_product(self, rows_CW: Any, probes_BW: Any) -> NDArray[Any]:
        if self._dtype.itemsize == 2:
            total_BC = (probes_BW.double() @ rows_CW.double().T).long()
        else:
            row_low, row_high = (rows_CW & _LOW).double(), (rows_CW >> 16).double()
            low, high = (probes_BW & _LOW).double(), (probes_BW >> 16).double()
            middle_BC = (low @ row_high.T + high @ row_low.T).long()
            total_BC = (low @ row_low.T).long() + (middle_BC << 16)
        return np.asarray(total_BC.cpu().numpy().astype(self._dtype))
