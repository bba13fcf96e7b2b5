from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import RangeError, ShapeError
from ppfr.metrics import identity_cosine


def test_cosine_ignores_the_length_of_embeddings():
    a, b = np.random.default_rng(0).normal(size=(2, 9, 5))
    found = identity_cosine(a, 7 * b)
    np.testing.assert_allclose(found, [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)])
    assert identity_cosine(a, a) == pytest.approx(np.ones(9)) and (identity_cosine(a, a) <= 1).all()


def test_identity_cosine_rejects_invalid_input():
    rows = np.random.default_rng(0).normal(size=(9, 5))
    with pytest.raises(ShapeError, match="must be equal"):
        identity_cosine(rows, rows[:3])
    with pytest.raises(RangeError, match=r"1 rows of .* are zero"):
        identity_cosine(rows[:2], np.array([rows[0], 0 * rows[1]]))
    with pytest.raises(RangeError, match="not finite"):
        identity_cosine(rows, rows * np.nan)
