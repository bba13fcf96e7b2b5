"""Compiled loops of the matchers. tests/reference/polynomials.py is the slow reference.

Sums are vectorised, so their order is not fixed. The rounding error is bounded, and candidates are scored again in
double precision; see `_scanning`.

Suffixes: M references of the gallery, B references of a block, K template values, R rows of the term table, m terms.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

# Allows reordered sums and fused multiply-add, without assumptions about infinities and NaN.
_SUMS_IN_ANY_ORDER = {"reassoc", "contract", "nsz", "arcp"}
FUSED_TERMS = 5
FLAG = np.float32(4.0)


@numba.njit(nogil=True, cache=True, fastmath=_SUMS_IN_ANY_ORDER, inline="always")
def _term(keys: NDArray[np.int8], at: int, i: int, num_terms: int) -> Any:
    """Coefficient and table row of term i; beyond the last term, 0 and the first row."""
    if i >= num_terms:
        return np.float32(0.0), 0
    return np.float32(keys[at + i]), i * num_terms + keys[at + num_terms + i] - 1


@numba.njit(nogil=True, cache=True, fastmath=_SUMS_IN_ANY_ORDER)
def scan_keyed(  # noqa: PLR0917 - compiled functions take no keywords
    table_RK: NDArray[np.float32],
    length_R: NDArray[np.float32],
    keys: NDArray[np.int8],
    values: NDArray[Any],
    inverse_norms: NDArray[np.float32],
    layout: tuple[int, int, int, int],
    max_cancellation: np.float32,
    start: int,
    stop: int,
    out_B: NDArray[np.float32],
) -> Any:
    """Cosine similarity of the probe under key i and template i, for i in start..stop-1.

    Args:
        table_RK: of one probe; row i * m + e - 1 holds (scale * v[j * step + i]) ** e for every window j.
        length_R: L2 norm of each of these rows.
        keys: m coefficients, then m exponents, per reference.
        values: templates, float32 or int8.
        inverse_norms: one factor per template, or an empty array.
        layout: stride of the templates in values; position and stride of the inverse norms in float32; number of terms
            m.
        max_cancellation: a reference is flagged (`FLAG`) if the norms of its terms add up to more than this multiple of
            the norm of their sum, since the rounding error may then be large.
        start: first reference.
        stop: one after the last reference.
        out_B: output, the scores.
    """
    stride, norm_at, norm_stride, num_terms = layout
    num_values = table_RK.shape[1]
    further_K = np.zeros(num_values, dtype=np.float32)
    for reference in range(start, stop):
        at = reference * 2 * num_terms
        together = np.float32(0.0)
        if num_terms > FUSED_TERMS:
            further_K[:] = 0.0
            for i in range(FUSED_TERMS, num_terms):
                c, r = _term(keys, at, i, num_terms)
                row_K = table_RK[r]
                together += abs(c) * length_R[r]
                for j in range(num_values):
                    further_K[j] += c * row_K[j]
        c0, r0 = _term(keys, at, 0, num_terms)
        c1, r1 = _term(keys, at, 1, num_terms)
        c2, r2 = _term(keys, at, 2, num_terms)
        c3, r3 = _term(keys, at, 3, num_terms)
        c4, r4 = _term(keys, at, 4, num_terms)
        row0, row1, row2, row3, row4 = table_RK[r0], table_RK[r1], table_RK[r2], table_RK[r3], table_RK[r4]
        template_K = values[reference * stride : reference * stride + num_values]
        dot, square = np.float32(0.0), np.float32(0.0)
        for j in range(num_values):
            mapped = further_K[j] + c0 * row0[j] + c1 * row1[j] + c2 * row2[j] + c3 * row3[j] + c4 * row4[j]
            dot += mapped * np.float32(template_K[j])
            square += mapped * mapped
        together += abs(c0) * length_R[r0] + abs(c1) * length_R[r1] + abs(c2) * length_R[r2]
        together += abs(c3) * length_R[r3] + abs(c4) * length_R[r4]
        length = np.sqrt(square)
        if length * max_cancellation < together or length == 0.0:
            out_B[reference - start] = FLAG
            continue
        score = dot / length
        if len(inverse_norms) > 0:
            score *= inverse_norms[norm_at + reference * norm_stride]
        out_B[reference - start] = score


@numba.njit(nogil=True, cache=True, fastmath=_SUMS_IN_ANY_ORDER)
def scan_bytes(  # noqa: PLR0917
    probe_D: NDArray[np.float32],
    values_MD: NDArray[np.int8],
    inverse_norm_M: NDArray[np.float32],
    start: int,
    stop: int,
    out_B: NDArray[np.float32],
) -> Any:
    """Cosine similarity of one unprotected probe and int8 references start..stop-1."""
    for reference in range(start, stop):
        row_D = values_MD[reference]
        dot = np.float32(0.0)
        for d in range(len(probe_D)):
            dot += probe_D[d] * np.float32(row_D[d])
        out_B[reference - start] = dot * inverse_norm_M[reference]


@numba.njit(nogil=True, cache=True)
def keep_largest(score_B: NDArray[np.float32], heap_k: NDArray[np.float32]) -> Any:
    """Update a min-heap of the k largest scores, padded with minus infinity. Flagged scores are skipped."""
    k = len(heap_k)
    for score in score_B:
        if score <= heap_k[0] or score == FLAG:
            continue
        place = 0
        while True:
            child = 2 * place + 1
            if child >= k:
                break
            if child + 1 < k and heap_k[child + 1] < heap_k[child]:
                child += 1
            if heap_k[child] >= score:
                break
            heap_k[place] = heap_k[child]
            place = child
        heap_k[place] = score
