"""Comparisons whose true error rates are known."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.metrics import Comparisons


def normal_comparisons(
    *, separation: float, num_subjects: int, genuine_each: int, num_impostor: int, shared: float, seed: int
) -> Comparisons:
    """Genuine N(separation, 1), impostor N(0, 1); a subject's scores share the part `shared` of the variance."""
    rng = np.random.default_rng(seed)
    own, other = rng.normal(size=(2, num_subjects))
    subject = np.repeat(np.arange(num_subjects), genuine_each)
    genuine = separation + np.sqrt(shared) * own[subject] + np.sqrt(1 - shared) * rng.normal(size=len(subject))
    a = rng.integers(num_subjects, size=num_impostor)
    b = (a + 1 + rng.integers(num_subjects - 1, size=num_impostor)) % num_subjects
    impostor = np.sqrt(shared / 2) * (other[a] + other[b]) + np.sqrt(1 - shared) * rng.normal(size=num_impostor)
    num = len(subject) + num_impostor
    return Comparisons(
        scores=np.concatenate([genuine, impostor]),
        is_genuine=np.arange(num) < len(subject),
        subject_a=np.concatenate([subject, a]),
        subject_b=np.concatenate([subject, b]),
        fold=np.arange(num) % 10,
    )


@pytest.fixture(scope="session")
def make_comparisons():
    return normal_comparisons
