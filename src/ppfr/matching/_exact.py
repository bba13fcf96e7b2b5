"""Exact search over unprotected embeddings by cosine similarity: the baseline for protected search.

Suffixes: D embedding, M references, B references of a block, C candidates.
"""

from __future__ import annotations

from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ShapeError, unit_rows
from ppfr.matching._scanning import ROUNDING, ScanningMatcher, quantised

_ROWS_AT_ONCE = 1 << 16


@final
class ExactMatcher(ScanningMatcher[tuple[NDArray[np.float64], NDArray[np.float32]]]):
    """Exact cosine search over embeddings.

    Args:
        references_MD: (M, D) of L2 norm 1. They are copied, as float32 or int8.
        values: "float32", or "int8", which scales the largest magnitude of each row to 127. Probes remain in float32.
            Scores are then the exact scores of the quantised rows.
        num_threads: number of threads; None for one per usable core.
        block_size: references that a thread scans at a time.

    Raises:
        ShapeError: the shape is not (M, D).
        RangeError: values are not finite, or a row does not have norm 1.
        InvalidInputError: there are no references, or `values` is unknown.
    """

    def __init__(
        self,
        references_MD: ArrayLike,
        *,
        values: Literal["float32", "int8"] = "float32",
        num_threads: int | None = None,
        block_size: int = 16384,
    ) -> None:
        super().__init__(num_threads=num_threads, block_size=block_size)
        array_MD = np.asarray(references_MD)
        if values not in ("float32", "int8"):
            raise InvalidInputError(f"values={values!r}; allowed: float32, int8")
        if array_MD.ndim != 2:
            raise ShapeError(f"references have shape {array_MD.shape}; must be (M, D)")
        if len(array_MD) == 0:
            raise InvalidInputError("the gallery is empty; give at least one reference")
        self._inverse_norm_M: NDArray[np.float32] | None = None
        self._values_MD: NDArray[Any] = np.empty(array_MD.shape, dtype=values)
        if values == "int8":
            self._inverse_norm_M = np.empty(len(array_MD), dtype=np.float32)
        for start in range(0, len(array_MD), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            unit = unit_rows(array_MD[rows], array_MD.shape[1], "references").astype(np.float32)
            if self._inverse_norm_M is None:
                self._values_MD[rows] = unit
            else:
                self._values_MD[rows], self._inverse_norm_M[rows] = quantised(unit)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._values_MD.shape[1])

    @property
    def num_references(self) -> int:
        """M."""
        return len(self._values_MD)

    @property
    def num_bytes(self) -> int:
        """Memory of the references."""
        return self._values_MD.nbytes + (0 if self._inverse_norm_M is None else self._inverse_norm_M.nbytes)

    @property
    def margin(self) -> float:
        """Bound on the difference of scanned and exact score: rounding errors of D products and their sum."""
        return 2 * ROUNDING * (self.dim + 8)

    def _prepare(self, unit_D: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        return unit_D, unit_D.astype(np.float32)

    def _scan(
        self, probe: tuple[NDArray[np.float64], NDArray[np.float32]], start: int, stop: int, out_B: NDArray[np.float32]
    ) -> None:
        if self._inverse_norm_M is None:
            np.matmul(self._values_MD[start:stop], probe[1], out=out_B)
            return
        from ppfr.matching._kernels import scan_bytes

        scan_bytes(probe[1], self._values_MD, self._inverse_norm_M, start, stop, out_B)

    def _exact(
        self, probe: tuple[NDArray[np.float64], NDArray[np.float32]], reference_C: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        stored_CD = self._values_MD[reference_C].astype(np.float64)
        dot_C = stored_CD @ probe[0] / np.linalg.norm(stored_CD, axis=1)
        return np.asarray(np.clip(dot_C, -1.0, 1.0))

    def __repr__(self) -> str:
        return (
            f"ExactMatcher(num_references={self.num_references}, values={self._values_MD.dtype}, contents=<redacted>)"
        )
