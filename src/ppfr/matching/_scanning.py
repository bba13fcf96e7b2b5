"""Search by a fast scan in single precision, with candidates scored again in double precision.

Every scanned score is within a known margin of the exact score, or flagged. Therefore every reference among the exact
best k is flagged, or its scanned score is within two margins of the k-th best scanned score. These candidates are
scored in double precision, which gives exact ranks.

Suffixes: N probes, M references, B references of a block, C candidates.
"""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, Matches, RangeError, TopMatches, unit_rows

Prepared = TypeVar("Prepared")

ROUNDING = 2.0**-24
_SCORES_AT_ONCE = 1 << 26
_CANDIDATES_AT_ONCE = 1 << 14


def quantised(unit_MK: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as int8, scaled to a largest magnitude of 127, and the inverse norm of each quantised row."""
    largest_M1 = np.abs(unit_MK).max(axis=1, keepdims=True)
    bytes_MK = np.rint(unit_MK * (127.0 / largest_M1)).astype(np.int8)
    norm_M = np.sqrt(np.square(bytes_MK, dtype=np.int32).sum(axis=1, dtype=np.int64))
    return bytes_MK, (1.0 / norm_M).astype(np.float32)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ScanningMatcher(ABC, Generic[Prepared]):
    """A `Matcher` that consists of a scan, an exact score and a bound on their difference.

    Args:
        num_threads: number of threads that scan; None for one per usable core.
        block_size: references that a thread scans at a time.
    """

    def __init__(self, *, num_threads: int | None, block_size: int) -> None:
        if num_threads is not None and num_threads < 1:
            raise RangeError(f"num_threads={num_threads}; must be 1 or more, or None for one per core")
        if block_size < 1:
            raise RangeError(f"block_size={block_size}; must be 1 or more")
        self._num_threads = usable_cores() if num_threads is None else num_threads
        self._block_size = block_size

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @property
    @abstractmethod
    def num_references(self) -> int:
        """M."""

    @property
    @abstractmethod
    def margin(self) -> float:
        """Bound on the difference of scanned and exact score, for scores that are not flagged."""

    @abstractmethod
    def _prepare(self, unit_D: NDArray[np.float64]) -> Prepared:
        """The data of one probe that a scan needs."""

    @abstractmethod
    def _scan(self, probe: Prepared, start: int, stop: int, out_B: NDArray[np.float32]) -> None:
        """Scores of references start..stop-1 in single precision; `FLAG` where the margin may not hold."""

    @abstractmethod
    def _exact(self, probe: Prepared, reference_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of some references in double precision."""

    def _checked(self, probes_ND: ArrayLike) -> list[Prepared]:
        if self.num_references == 0:
            raise InvalidInputError("the gallery is empty; append references before a search")
        return [self._prepare(row_D) for row_D in unit_rows(probes_ND, self.dim, "probes")]

    def _exact_of_many(self, probe: Prepared, reference_C: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = [
            self._exact(probe, reference_C[start : start + _CANDIDATES_AT_ONCE])
            for start in range(0, len(reference_C), _CANDIDATES_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def score_matrix(self, probes_ND: ArrayLike) -> NDArray[np.float32]:
        """(N, M) scores in single precision, each within `margin` of the exact score.

        Raises:
            ShapeError: the shape of the probes is not (N, D).
            RangeError: values are not finite, or a row does not have norm 1.
            InvalidInputError: the gallery is empty.
        """
        from ppfr.matching._kernels import FLAG

        probes = self._checked(probes_ND)
        score_NM = np.empty((len(probes), self.num_references), dtype=np.float32)
        self._scan_all(probes, score_NM, None)
        for probe, score_M in zip(probes, score_NM, strict=True):
            flagged_C = np.flatnonzero(score_M == FLAG)
            score_M[flagged_C] = self._exact_of_many(probe, flagged_C)
        return score_NM

    def top_k(self, probes_ND: ArrayLike, *, k: int) -> TopMatches:
        """The best min(k, M) references of each probe, ranked by scores in double precision.

        Args:
            probes_ND: (N, D) of L2 norm 1.
            k: number of references per probe.

        Raises:
            ShapeError, RangeError, InvalidInputError: as for `score_matrix`; RangeError also if k is below 1.
        """
        if k < 1:
            raise RangeError(f"k={k}; must be 1 or more")
        k = min(k, self.num_references)
        probes = self._checked(probes_ND)
        reference_Nk = np.empty((len(probes), k), dtype=np.int64)
        score_Nk = np.empty((len(probes), k))
        for first, part in self._parts(probes):
            score_PM = np.empty((len(part), self.num_references), dtype=np.float32)
            kth_P = self._scan_all(part, score_PM, k)
            for row, (probe, score_M, kth) in enumerate(zip(part, score_PM, kth_P, strict=True), start=first):
                candidate_C = np.flatnonzero(score_M >= kth - 2 * self.margin)
                score_C = self._exact_of_many(probe, candidate_C)
                best = np.lexsort((candidate_C, -score_C))[:k]
                reference_Nk[row], score_Nk[row] = candidate_C[best], score_C[best]
        return TopMatches(reference_Nk=reference_Nk, score_Nk=score_Nk)

    def at_least(self, probes_ND: ArrayLike, *, threshold: float) -> Matches:
        """Every reference whose exact score is at least `threshold`.

        Args:
            probes_ND: (N, D) of L2 norm 1.
            threshold: accepted when score >= threshold.

        Raises:
            ShapeError, RangeError, InvalidInputError: as for `score_matrix`; RangeError also if the threshold is NaN.
        """
        if np.isnan(threshold):
            raise RangeError("threshold=nan; must be a number, for example from ppfr.metrics.threshold_at_far")
        probes = self._checked(probes_ND)
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        for first, part in self._parts(probes):
            score_PM = np.empty((len(part), self.num_references), dtype=np.float32)
            self._scan_all(part, score_PM, None)
            for row, (probe, score_M) in enumerate(zip(part, score_PM, strict=True), start=first):
                candidate_C = np.flatnonzero(score_M >= threshold - self.margin)
                score_C = self._exact_of_many(probe, candidate_C)
                is_match_C = score_C >= threshold
                candidate_C, score_C = candidate_C[is_match_C], score_C[is_match_C]
                order = np.lexsort((candidate_C, -score_C))
                found.append((np.full(len(order), row, dtype=np.int64), candidate_C[order], score_C[order]))
        probe_C, reference_C, score_C = (np.concatenate(column) for column in zip(*found, strict=True))
        return Matches(probe_C=probe_C, reference_C=reference_C, score_C=score_C)

    def _parts(self, probes: list[Prepared]) -> Iterator[tuple[int, list[Prepared]]]:
        """Groups of probes whose score matrix fits in memory, each with the index of its first probe."""
        at_once = max(1, _SCORES_AT_ONCE // self.num_references)
        for first in range(0, len(probes), at_once):
            yield first, probes[first : first + at_once]

    def _scan_all(self, probes: list[Prepared], score_NM: NDArray[np.float32], k: int | None) -> NDArray[np.float32]:
        """Fill the scores. Returns the k-th best unflagged score per probe, or minus infinity if there are fewer."""
        from ppfr.matching._kernels import keep_largest

        num_references = score_NM.shape[1]  # the gallery may grow during the scan
        starts = range(0, num_references, self._block_size)
        num_threads = min(self._num_threads, len(starts))
        turns = itertools.count()  # index of the next block; next() is atomic

        def work() -> NDArray[np.float32]:
            heap_Nk = np.full((len(probes), k or 1), -np.inf, dtype=np.float32)
            while (turn := next(turns)) < len(starts):
                start = starts[turn]
                stop = min(start + self._block_size, num_references)
                for probe, score_M, heap_k in zip(probes, score_NM, heap_Nk, strict=True):
                    self._scan(probe, start, stop, score_M[start:stop])
                    if k is not None:
                        keep_largest(score_M[start:stop], heap_k)
            return heap_Nk

        heaps: list[Any] = _on_threads(work, num_threads)
        best = np.concatenate(heaps, axis=1)
        return np.asarray(np.sort(best, axis=1)[:, -(k or 1)])


def _on_threads(work: Any, num_threads: int) -> list[Any]:
    if num_threads == 1:
        return [work()]
    with ThreadPoolExecutor(num_threads) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(num_threads)]]
