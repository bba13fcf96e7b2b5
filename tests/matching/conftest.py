"""Fixtures: enrolled random embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import PolynomialKeys, PolynomialShape
from reference import polynomials


def unit_rows(num: int, dim: int, *, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_keys(num: int, num_terms: int, *, seed: int = 0) -> PolynomialKeys:
    """Seeded keys for tests. Real keys come from the operating system."""
    rng = np.random.default_rng(seed)
    drawn = np.argsort(rng.random((num, 100)), axis=1)[:, :num_terms] - 50
    coefficients = np.where(drawn >= 0, drawn + 1, drawn).astype(np.int8)
    exponents = (np.argsort(rng.random((num, num_terms)), axis=1) + 1).astype(np.uint8)
    return PolynomialKeys(coefficients_Mm=coefficients, exponents_Mm=exponents)


@pytest.fixture(scope="session")
def make_enrolled():
    """(shape, embeddings, templates of norm 1, keys); the slow reference maps the templates."""

    def make(num, dim, num_terms, overlap, *, scale=None, seed=0):
        shape = PolynomialShape(dim=dim, num_terms=num_terms, overlap=overlap, scale=scale)
        rows, keys = unit_rows(num, dim, seed=seed), random_keys(num, num_terms, seed=seed)
        triples = zip(rows, keys.coefficients_Mm, keys.exponents_Mm, strict=True)
        mapped = np.array([polynomials.mapped(row, c, e, overlap, shape.factor) for row, c, e in triples])
        return shape, rows, (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).astype(np.float32), keys

    return make
