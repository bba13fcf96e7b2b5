"""The one check of unit rows: what it accepts, what it rejects and how, and what it returns."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import NORM_TOLERANCE, RangeError, ShapeError, unit_norms, unit_rows

ROWS = np.eye(3, 5) * np.array([[1.0], [1 + 0.9 * NORM_TOLERANCE], [1 - 0.9 * NORM_TOLERANCE]])


def test_rows_within_the_tolerance_are_normalised_exactly() -> None:
    rows = unit_rows(ROWS.astype(np.float32), 5, "probes")
    assert rows.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-15)


def test_norms_are_returned_and_rows_kept() -> None:
    before = ROWS.copy()
    np.testing.assert_allclose(unit_norms(ROWS, "probes"), np.linalg.norm(ROWS, axis=1))
    assert np.array_equal(ROWS, before)


def test_rows_outside_the_tolerance_are_counted() -> None:
    with pytest.raises(RangeError, match=r"2 of 3 probes .*\(within 0.0001\)"):
        unit_norms(ROWS, "probes", tolerance=1e-4)
    with pytest.raises(RangeError, match="3 of 3 probes"):
        unit_rows(2 * ROWS, 5, "probes")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_rejected(value: float) -> None:
    with pytest.raises(RangeError, match="probes contain values that are not finite"):
        unit_norms(np.full((1, 5), value), "probes")


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 4), (1, 1, 5)])
def test_other_shapes_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="give"):
        unit_rows(np.ones(shape), 5, "probes")
