"""Fixtures: the slow reference implementation, and embeddings of simulated people."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def twin():
    """tests/reference/polynomials.py as a module."""
    path = Path(__file__).parents[1] / "reference" / "polynomials.py"
    spec = importlib.util.spec_from_file_location("reference_polynomials", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unit_rows(num: int, dim: int, *, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def people():
    """(num, dim) unit embeddings, and further captures of the same people at the given cosine similarity."""

    def make(num: int, dim: int, *, cosine: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        first, noise = unit_rows(num, dim, seed=seed), unit_rows(num, dim, seed=seed + 1)
        second = cosine * first + np.sqrt(1 - cosine**2) * noise
        return first, (second / np.linalg.norm(second, axis=1, keepdims=True)).astype(np.float32)

    return make
