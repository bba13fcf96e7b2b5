"""Fixtures: enrolled random embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import PolynomialShape
from reference import polynomials
from support.embeddings import seeded_keys, unit_rows


@pytest.fixture(scope="session")
def make_enrolled():
    """(shape, embeddings, templates of norm 1, keys); the slow reference maps the templates."""

    def make(num, dim, num_terms, overlap, *, scale=None, seed=0):
        shape = PolynomialShape(dim=dim, num_terms=num_terms, overlap=overlap, scale=scale)
        rows = unit_rows(num, dim, seed=seed).astype(np.float32)
        keys = seeded_keys(num, num_terms, np.random.default_rng(seed))
        triples = zip(rows, keys.coefficients_Mm, keys.exponents_Mm, strict=True)
        mapped = np.array([polynomials.mapped(row, c, e, overlap, shape.factor) for row, c, e in triples])
        return shape, rows, (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).astype(np.float32), keys

    return make
