"""Seeded embeddings and keys."""

from __future__ import annotations

import numpy as np

from ppfr.core import PolynomialKeys


def unit_rows(num: int, dim: int, *, seed: int = 0) -> np.ndarray:
    """(num, dim) float64 embeddings of norm 1 in random directions."""
    rows_ND = np.random.default_rng(seed).standard_normal((num, dim))
    return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)


def seeded_keys(num: int, num_terms: int, rng: np.random.Generator, *, bound: int = 50) -> PolynomialKeys:
    """Keys of the identity mapping from a seed, for tests only: real keys come from the operating system."""
    index_Mm = np.argsort(rng.random((num, 2 * bound)), axis=1)[:, :num_terms]
    return PolynomialKeys(
        coefficients_Mm=np.where(index_Mm < bound, index_Mm - bound, index_Mm - bound + 1).astype(np.int8),
        exponents_Mm=(np.argsort(rng.random((num, num_terms)), axis=1) + 1).astype(np.uint8),
    )
