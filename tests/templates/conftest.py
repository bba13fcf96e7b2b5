"""Fixtures: embeddings of simulated people."""

from __future__ import annotations

import numpy as np
import pytest

from support.embeddings import unit_rows


@pytest.fixture(scope="session")
def people():
    """(num, dim) unit embeddings, and further captures of the same people at the given cosine similarity."""

    def make(num: int, dim: int, *, cosine: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        first, noise = (unit_rows(num, dim, seed=s).astype(np.float32) for s in (seed, seed + 1))
        second = cosine * first + np.sqrt(1 - cosine**2) * noise
        return first, (second / np.linalg.norm(second, axis=1, keepdims=True)).astype(np.float32)

    return make
