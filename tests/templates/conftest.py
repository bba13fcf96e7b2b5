"""Fixtures: embeddings of simulated people, and stores of their templates and keys."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.templates import TemplateStore
from support.embeddings import unit_rows
from support.record_stores import SCHEME, key_store


@pytest.fixture(scope="session")
def people():
    """(num, dim) unit embeddings, and further captures of the same people at the given cosine similarity."""

    def make(num: int, dim: int, *, cosine: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        first, noise = (unit_rows(num, dim, seed=s).astype(np.float32) for s in (seed, seed + 1))
        second = cosine * first + np.sqrt(1 - cosine**2) * noise
        return first, (second / np.linalg.norm(second, axis=1, keepdims=True)).astype(np.float32)

    return make


@pytest.fixture
def enrolled(people):
    """Three subjects: id -> (template, key)."""
    found = {}
    for name, embedding in zip(("a1", "b/../2", "ünï"), people(3, 32)[0], strict=True):
        key = SCHEME.new_key()
        found[name] = SCHEME.enrol(embedding, key=key), key
    return found


@pytest.fixture
def stores(tmp_path):
    return TemplateStore(tmp_path / "a.templates", SCHEME), key_store(tmp_path / "a.keys")
