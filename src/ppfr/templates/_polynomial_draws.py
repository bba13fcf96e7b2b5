"""Drawing polynomial keys from the operating system's generator, vectorised for large galleries.

Suffixes: M keys, m terms.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from ppfr.core import PolynomialKeys

_KEYS_AT_ONCE = 100_000


def draw_polynomial_keys(num_keys: int, *, num_terms: int, coefficient_bound: int) -> PolynomialKeys:
    """Keys with uniformly distributed sequences of distinct non-zero coefficients, and permutations of the exponents.

    Args:
        num_keys: M.
        num_terms: m.
        coefficient_bound: largest magnitude of a coefficient; must be at least m / 2.
    """
    coefficients_Mm = np.empty((num_keys, num_terms), dtype=np.int8)
    exponents_Mm = np.empty((num_keys, num_terms), dtype=np.uint8)
    for start in range(0, num_keys, _KEYS_AT_ONCE):
        stop = min(start + _KEYS_AT_ONCE, num_keys)
        coefficients_Mm[start:stop] = _coefficients(stop - start, num_terms, coefficient_bound)
        exponents_Mm[start:stop] = _orders(stop - start, num_terms)
    return PolynomialKeys(coefficients_Mm=coefficients_Mm, exponents_Mm=exponents_Mm)


def _coefficients(num: int, num_terms: int, bound: int) -> NDArray[np.int8]:
    if num_terms > bound:  # independent draws would rarely be distinct
        shuffled = _orders(num, 2 * bound)[:, :num_terms].astype(np.int16) - 1
        return _not_zero(shuffled, bound)
    found = np.empty((num, num_terms), dtype=np.int8)
    open_rows = np.arange(num)
    while len(open_rows):
        drawn = _not_zero(_below(2 * bound, (len(open_rows), num_terms)), bound)
        in_order = np.sort(drawn, axis=1)
        is_distinct = (in_order[:, 1:] != in_order[:, :-1]).all(axis=1)
        found[open_rows[is_distinct]] = drawn[is_distinct]
        open_rows = open_rows[~is_distinct]
    return found


def _not_zero(index: NDArray[np.int16], bound: int) -> NDArray[np.int8]:
    """0..2b-1 -> -b..-1, 1..b."""
    return np.where(index < bound, index - bound, index - bound + 1).astype(np.int8)


def _below(limit: int, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Uniform integers in 0..limit-1, limit at most 256. Bytes above the last full multiple are drawn again."""
    found = np.empty(shape[0] * shape[1], dtype=np.int16)
    missing = np.arange(len(found))
    largest = 256 // limit * limit
    while len(missing):
        drawn = np.frombuffer(secrets.token_bytes(len(missing)), dtype=np.uint8)
        fits = drawn < largest
        found[missing[fits]] = drawn[fits] % limit
        missing = missing[~fits]
    return found.reshape(shape)


def _orders(num: int, length: int) -> NDArray[np.uint8]:
    """Uniform permutations of 1..length, from sorting 64-bit draws. A tie has a probability below 1e-15 per row."""
    drawn = np.frombuffer(secrets.token_bytes(8 * num * length), dtype=np.uint64).reshape(num, length)
    return (np.argsort(drawn, axis=1, kind="stable") + 1).astype(np.uint8)
