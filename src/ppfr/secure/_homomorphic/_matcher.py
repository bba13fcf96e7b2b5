"""Key holder and server behind one object, for tests, measurements and trials. Suffixes: B probes, N pairs, M, D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError, unit_rows
from ppfr.secure._homomorphic._key import SLOTS, CkksKey, largest_error
from ppfr.secure._homomorphic._server import CkksServer


@final
class CkksMatcher:
    """Decisions by CKKS: a server without a key computes encrypted scores, the key holder decrypts and compares.

    The verbs are those of `ThreePartyMatcher`; decisions are those of exact scores but where a score lies within
    `largest_error` of the threshold (or, for `best_at_least`, of the best).

    Args:
        references_MD: (M, D) of L2 norm 1.
        probe: "encrypted", or "plain" where the server may read probes.

    Raises:
        ShapeError, RangeError, InvalidInputError: references that cannot be used; none at all.
        MissingExtraError: `tenseal` is not installed.

    Privacy:
        Key holder and server are in this process here. Apart, they exchange the same messages: the server learns sizes
        alone, the key holder learns every score that it asks for.
    """

    largest_error = largest_error()

    def __init__(self, references_MD: ArrayLike, *, probe: Literal["encrypted", "plain"] = "encrypted") -> None:
        array_MD = np.asarray(references_MD)
        if array_MD.ndim != 2:
            raise ShapeError(f"references have shape {array_MD.shape}; give (M, D)")
        if len(array_MD) == 0:
            raise InvalidInputError("the gallery is empty; give at least one reference")
        if probe not in ("encrypted", "plain"):
            raise InvalidInputError(f"probe={probe!r} is not encrypted or plain")
        self._probe, self._num_references = probe, len(array_MD)
        self._key = CkksKey.create(array_MD.shape[1])
        self._server = CkksServer(self._key.context())
        for block in self._key.encrypt_references(array_MD):
            self._server.add(block)
        self._num_bytes = (0, 0)

    @property
    def dim(self) -> int:
        """D."""
        return self._key.dim

    @property
    def num_references(self) -> int:
        """M."""
        return self._num_references

    @property
    def num_bytes(self) -> tuple[int, int]:
        """Of the last query: sent to the server, and received from it."""
        return self._num_bytes

    def verify(self, probes_ND: ArrayLike, references_N: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """(N,): whether probe n is accepted against reference references_N[n]; the server computes its whole block."""
        index_N = np.asarray(references_N)
        if index_N.shape != (len(np.asarray(probes_ND)),):
            raise ShapeError(f"references have shape {index_N.shape}; give one for each of the probes")
        if (
            not np.issubdtype(index_N.dtype, np.integer)
            or not ((index_N >= 0) & (index_N < self._num_references)).all()
        ):
            raise InvalidInputError(f"a reference is not an index from 0 to {self._num_references - 1}")
        scores = self._scores(probes_ND, threshold, [[int(index) // SLOTS] for index in index_N])
        return np.array([row[index % SLOTS] >= threshold for row, index in zip(scores, index_N, strict=True)])

    def any_at_least(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """(B,): whether any reference is accepted for the probe."""
        return np.asarray(self.set_at_least(probes_BD, threshold=threshold).any(axis=1))

    def set_at_least(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """(B, M): which references are accepted for which probe."""
        return np.asarray(np.stack(self._scores(probes_BD, threshold)) >= threshold)

    def best_at_least(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.int64]:
        """(B,): the accepted reference of highest score; -1 where none is accepted."""
        scores_BM = np.stack(self._scores(probes_BD, threshold))
        best_B = scores_BM.argmax(axis=1)
        return np.asarray(np.where(scores_BM.max(axis=1) >= threshold, best_B, -1))

    def _scores(
        self, probes_BD: ArrayLike, threshold: float, blocks: Sequence[Sequence[int]] | None = None
    ) -> list[NDArray[np.float64]]:
        if not -1 <= threshold <= 1:
            raise RangeError("the threshold is not in [-1, 1]; scores are cosines")
        unit_BD = unit_rows(probes_BD, self.dim, "probes")
        scores, num_sent, num_received = [], 0, 0
        for place, probe_D in enumerate(unit_BD):
            chosen = range(len(self._server.sizes)) if blocks is None else blocks[place]
            sent = self._key.encrypt_probe(probe_D) if self._probe == "encrypted" else probe_D
            received = self._server.answer(sent, chosen)
            scores.append(self._key.decrypt_scores(received, [self._server.sizes[block] for block in chosen]))
            num_sent += len(sent) if isinstance(sent, bytes) else sent.nbytes
            num_received += len(received)
        self._num_bytes = (num_sent, num_received)
        return scores

    def __repr__(self) -> str:
        return f"CkksMatcher(num_references={self._num_references}, dim={self.dim}, probe={self._probe!r})"
