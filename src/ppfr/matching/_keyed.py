"""1:N search under subject-specific keys: the probe is mapped by the polynomial of every reference.

Suffixes: D embedding, K template values, R rows of the term table (m terms x m exponents), m terms, C candidates.
"""

from __future__ import annotations

import dataclasses
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ppfr.core import PolynomialShape
from ppfr.matching._gallery import KeyedGallery
from ppfr.matching._scanning import ROUNDING, ScanningMatcher

_MAX_CANCELLATION = 32.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Terms:
    """The powers of all window elements of one probe, from which the values of all polynomials are computed.

    Attributes:
        exact_RK: float64; row i * m + e - 1 holds (scale * v[j * step + i]) ** e for each window j.
        table_RK: the same in float32.
        length_R: L2 norm of each row.
    """

    exact_RK: NDArray[np.float64]
    table_RK: NDArray[np.float32]
    length_R: NDArray[np.float32]


def term_table(unit_D: NDArray[np.float64], shape: PolynomialShape) -> NDArray[np.float64]:
    """(m * m, K): row i * m + e - 1 holds (scale * v[j * step + i]) ** e for each window j."""
    padded_L = np.zeros(shape.padded_dim)
    padded_L[: shape.dim] = unit_D * shape.factor
    window_mK = np.arange(shape.num_terms)[:, None] + shape.step * np.arange(shape.num_windows)
    power_mmK = np.cumprod(np.repeat(padded_L[window_mK][:, None], shape.num_terms, axis=1), axis=1)
    return power_mmK.reshape(shape.num_terms**2, shape.num_windows)


@final
class KeyedMatcher(ScanningMatcher[_Terms]):
    """Exact search in a keyed gallery: score i is the cosine similarity of the probe under key i and template i.

    The powers of the elements of a probe are computed once. Each reference then costs m multiply-adds per template
    value. The matcher does not store probes. Memory in addition to the gallery: 4 bytes per reference and probe of a
    batch, at most about 256 MB for large batches.

    Args:
        gallery: templates and keys.
        num_threads: number of threads; None for one per usable core.
        block_size: references that a thread scans at a time.

    Privacy:
        The party that runs this matcher has templates and keys, and sees the embedding of the probe.
    """

    def __init__(self, gallery: KeyedGallery, *, num_threads: int | None = None, block_size: int = 16384) -> None:
        super().__init__(num_threads=num_threads, block_size=block_size)
        self._gallery = gallery

    @property
    def dim(self) -> int:
        """D."""
        return self._gallery.shape.dim

    @property
    def num_references(self) -> int:
        """M."""
        return len(self._gallery)

    @property
    def margin(self) -> float:
        """Bound on the difference of scanned and exact score.

        A mapped value is a sum of m products of rounded factors. If the norms of the terms add up to at most 32 times
        the norm of the sum, the rounding error is at most 32 (m + 2) units relative to the norm of the sum. This
        changes a cosine by at most twice as much. The sums over K values add at most 2 (K + 8) units, in any order.
        """
        shape = self._gallery.shape
        return 2 * ROUNDING * (_MAX_CANCELLATION * (shape.num_terms + 2) + shape.num_windows + 8)

    def _prepare(self, unit_D: NDArray[np.float64]) -> _Terms:
        exact_RK = term_table(unit_D, self._gallery.shape)
        return _Terms(
            exact_RK=exact_RK,
            table_RK=exact_RK.astype(np.float32),
            length_R=np.linalg.norm(exact_RK, axis=1).astype(np.float32),
        )

    def _scan(self, probe: _Terms, start: int, stop: int, out_B: NDArray[np.float32]) -> None:
        from ppfr.matching._kernels import scan_keyed

        keys, values, inverse_norms, layout = self._gallery.buffers()
        scan: Any = scan_keyed
        max_cancellation = np.float32(_MAX_CANCELLATION)
        scan(probe.table_RK, probe.length_R, keys, values, inverse_norms, layout, max_cancellation, start, stop, out_B)

    def _exact(self, probe: _Terms, reference_C: NDArray[np.int64]) -> NDArray[np.float64]:
        keys = self._gallery.keys_of(reference_C)
        num_terms = self._gallery.shape.num_terms
        mapped_CK = np.zeros((len(reference_C), self._gallery.shape.num_windows))
        for i in range(num_terms):
            rows_C = i * num_terms + keys.exponents_Mm[:, i].astype(np.int64) - 1
            mapped_CK += keys.coefficients_Mm[:, i, None].astype(np.float64) * probe.exact_RK[rows_C]
        length_C = np.linalg.norm(mapped_CK, axis=1)
        dot_C = np.einsum("ck,ck->c", mapped_CK, self._gallery.templates_of(reference_C))
        cosine_C = np.divide(dot_C, length_C, out=np.zeros_like(dot_C), where=length_C > 0)
        return np.asarray(np.clip(cosine_C, -1.0, 1.0))
