"""Compiled kernels of secure matching; tests/reference/secure_matching.py holds their slow references.

Suffixes: B probes, M rows of the gallery, N values, W words of a row, K planes (bits) of a number, L words of 64 lanes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ppfr.secure._rounds import LANES

_ROWS_IN_CACHE = 8


@numba.njit(nogil=True, cache=True)
def multiply_rows(rows_MW: NDArray[Any], probes_BW: NDArray[Any], out_BM: NDArray[Any]) -> Any:
    """Inner products of all probes with all rows, modulo the width of the words.

    Sums are accumulated in 64 bits and truncated to the ring's width when stored; the compiler recognises this and uses
    the narrow type. The first one to four probes are processed singly: they stream the rows from memory at full
    bandwidth. The remaining probes are processed in fours, two rows at a time, while the rows are in the cache, so each
    loaded word is used several times.
    """
    zero = np.uint64(0)
    num_probes, num_rows = len(probes_BW), len(rows_MW)
    num_single = (num_probes - 1) % 4 + 1
    for start in range(0, num_rows, _ROWS_IN_CACHE):
        stop = min(start + _ROWS_IN_CACHE, num_rows)
        paired = stop - (stop - start) % 2
        for r in range(start, stop):
            row_W = rows_MW[r]
            for b in range(num_single if r < paired else num_probes):
                probe_W = probes_BW[b]
                dot = zero
                for w in range(len(row_W)):
                    dot += row_W[w] * probe_W[w]
                out_BM[b, r] = dot
        for b in range(num_single, num_probes, 4):
            p0_W, p1_W, p2_W, p3_W = probes_BW[b], probes_BW[b + 1], probes_BW[b + 2], probes_BW[b + 3]
            for r in range(start, paired, 2):
                x_W, y_W = rows_MW[r], rows_MW[r + 1]
                x0, x1, x2, x3 = zero, zero, zero, zero
                y0, y1, y2, y3 = zero, zero, zero, zero
                for w in range(len(x_W)):
                    x, y = x_W[w], y_W[w]
                    x0 += x * p0_W[w]
                    x1 += x * p1_W[w]
                    x2 += x * p2_W[w]
                    x3 += x * p3_W[w]
                    y0 += y * p0_W[w]
                    y1 += y * p1_W[w]
                    y2 += y * p2_W[w]
                    y3 += y * p3_W[w]
                out_BM[b, r], out_BM[b + 1, r], out_BM[b + 2, r], out_BM[b + 3, r] = x0, x1, x2, x3
                out_BM[b, r + 1], out_BM[b + 1, r + 1], out_BM[b + 2, r + 1], out_BM[b + 3, r + 1] = y0, y1, y2, y3


@numba.njit(nogil=True, cache=True)
def multiply_pairs(
    rows_MW: NDArray[Any], reference_N: NDArray[np.int64], probes_NW: NDArray[Any], out_N: NDArray[Any]
) -> Any:
    """Inner products of probe n with row reference_N[n]."""
    for n in range(len(reference_N)):
        row_W, probe_W = rows_MW[reference_N[n]], probes_NW[n]
        dot = np.uint64(0)
        for w in range(len(row_W)):
            dot += row_W[w] * probe_W[w]
        out_N[n] = dot


@numba.njit(nogil=True, cache=True)
def slice_bits(values_BN: NDArray[Any], out_KBL: NDArray[np.uint64]) -> Any:
    """Bit k of value j * L + w of a row becomes bit j of word w of plane k; lanes beyond N are zero."""
    num_planes, num_rows, num_words = out_KBL.shape
    num_values = values_BN.shape[1]
    for k in range(num_planes):
        shift = np.uint64(k)
        for b in range(num_rows):
            out_L = out_KBL[k, b]
            out_L[:] = 0
            for lane in range(LANES):
                start = lane * num_words
                to_lane = np.uint64(lane)
                for w in range(min(num_words, num_values - start)):
                    bit = (np.uint64(values_BN[b, start + w]) >> shift) & np.uint64(1)
                    out_L[w] |= bit << to_lane


@numba.njit(nogil=True, cache=True)
def and_gates(
    left_2KL: NDArray[np.uint64],
    left_G: NDArray[np.int64],
    right_2KL: NDArray[np.uint64],
    right_G: NDArray[np.int64],
    out_GL: NDArray[np.uint64],
) -> Any:
    """XOR a party's additive share of left[left_G] AND right[right_G] into the masks in `out_GL`.

    Axis 0 of the operands: the party's own component, then that of the next party.
    """
    for g in range(len(left_G)):
        x0_L, x1_L = left_2KL[0, left_G[g]], left_2KL[1, left_G[g]]
        y0_L, y1_L = right_2KL[0, right_G[g]], right_2KL[1, right_G[g]]
        out_L = out_GL[g]
        for w in range(len(out_L)):
            out_L[w] ^= (x0_L[w] & (y0_L[w] ^ y1_L[w])) ^ (x1_L[w] & y0_L[w])
