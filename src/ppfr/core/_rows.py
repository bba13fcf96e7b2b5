"""Embeddings as arrays: the one check that rows are of norm 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppfr.core._errors import RangeError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

NORM_TOLERANCE = 1e-3


def unit_rows(rows_ND: ArrayLike, dim: int, what: str) -> NDArray[np.float64]:
    """Check rows and divide each by its norm, so that it is 1 to the last digit.

    Args:
        rows_ND: (N, dim), N >= 1, of norm 1 within a thousandth.
        dim: expected length of a row.
        what: name of the rows in messages, in the plural, as in "probes".

    Returns:
        (N, dim) float64.

    Raises:
        ShapeError: not (N, dim), or no row.
        RangeError: not finite, or not of norm 1.
    """
    import numpy as np

    norm_N = unit_norms(rows_ND, what, dim=dim)
    return np.asarray(np.asarray(rows_ND).astype(np.float64) / norm_N[:, None])


def unit_norms(
    rows_ND: ArrayLike, what: str, *, dim: int | None = None, tolerance: float = NORM_TOLERANCE
) -> NDArray[np.float64]:
    """Check that rows are of norm 1, and return their norms.

    Args:
        rows_ND: (N, D), N >= 1.
        what: name of the rows in messages, in the plural.
        dim: expected D; None allows any.
        tolerance: largest deviation of a norm from 1.

    Returns:
        (N,) L2 norms, computed in double precision.

    Raises:
        ShapeError: not (N, D), or no row.
        RangeError: not finite, or not of norm 1.
    """
    import numpy as np

    array_ND = np.asarray(rows_ND)
    if array_ND.ndim != 2 or (dim is not None and array_ND.shape[1] != dim) or len(array_ND) == 0:
        raise ShapeError(f"{what} have shape {array_ND.shape}; give (N, {'D' if dim is None else dim}) with N >= 1")
    array_ND = array_ND.astype(np.float64, copy=False)
    if not np.isfinite(array_ND).all():
        raise RangeError(f"{what} contain values that are not finite; check the network and its input")
    norm_N = np.linalg.norm(array_ND, axis=1)
    num_off = int((np.abs(norm_N - 1) > tolerance).sum())
    if num_off:
        raise RangeError(
            f"{num_off} of {len(norm_N)} {what} are not of L2 norm 1 (within {tolerance}); divide each by its norm"
        )
    return np.asarray(norm_N)
