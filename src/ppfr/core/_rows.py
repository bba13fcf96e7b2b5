"""Embeddings as arrays: the one check of unit rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppfr.core._errors import RangeError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

NORM_TOLERANCE = 1e-3


def unit_rows(embeddings_ND: ArrayLike, dim: int, what: str) -> NDArray[np.float64]:
    """Rows in double precision, of norm 1 to the last digit.

    Raises:
        ShapeError: not (N, dim), or no row.
        RangeError: not finite, or not of norm 1 within a thousandth.
    """
    import numpy as np

    array_ND = np.asarray(embeddings_ND)
    if array_ND.ndim != 2 or array_ND.shape[1] != dim or len(array_ND) == 0:
        raise ShapeError(f"{what} have shape {array_ND.shape}; give (N, {dim}) with N >= 1")
    array_ND = array_ND.astype(np.float64)
    if not np.isfinite(array_ND).all():
        raise RangeError(f"{what} hold values that are not finite; check the network and its input")
    norm_N = np.linalg.norm(array_ND, axis=1)
    num_off = int((np.abs(norm_N - 1) > NORM_TOLERANCE).sum())
    if num_off:
        raise RangeError(
            f"{num_off} of {len(norm_N)} {what} are not of L2 norm 1 (within {NORM_TOLERANCE}); divide each by its norm"
        )
    return np.asarray(array_ND / norm_N[:, None])
