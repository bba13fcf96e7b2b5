"""Key holder and server behind one object, for tests and measurements.

Suffixes: B probes, N claims, M references, D embedding, S scores of the computed blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError, unit_rows
from ppfr.secure._homomorphic._key import SLOTS, CkksKey, largest_error
from ppfr.secure._homomorphic._server import CkksServer
from ppfr.secure._subjects import SubjectIndex


@final
class CkksMatcher:
    """Decisions by CKKS: a server without a key computes encrypted scores; the key holder decrypts and compares.

    A `SecureMatcher`. Decisions equal those of exact scores unless a score lies within `largest_error` of the threshold
    (for `identify`, of the best score).

    The threshold belongs to the gallery and its key. A caller that could choose it for each question would read a score
    to the last bit by bisection, in about 60 decisions, and with it the noise that reveals the key to the server.

    Args:
        references_MD: (M, D) of L2 norm 1.
        threshold: the one threshold, in [-1, 1], that questions may have.
        subjects: the subject of each reference; by default the row numbers, "0" to "M - 1".
        probe: "encrypted", or "plain" if the server may read probes.

    Raises:
        ShapeError, RangeError, InvalidInputError: invalid references, threshold or subjects, or an empty gallery.
        MissingExtraError: `tenseal` is not installed.

    Privacy:
        Key holder and server run in this process. On two hosts they exchange the same messages: the server learns only
        sizes, the key holder learns every score that it requests. A caller that chooses probes learns one bit per
        decision, also at one threshold; enough of them recover a reference. Limit their number.
    """

    largest_error = largest_error()

    def __init__(
        self,
        references_MD: ArrayLike,
        *,
        threshold: float,
        subjects: Sequence[str] | None = None,
        probe: Literal["encrypted", "plain"] = "encrypted",
    ) -> None:
        array_MD = np.asarray(references_MD)
        if array_MD.ndim != 2:
            raise ShapeError(f"Expected references of shape (M, D), got {array_MD.shape}.")
        if len(array_MD) == 0:
            raise InvalidInputError("The gallery is empty. Pass at least one reference.")
        if probe not in ("encrypted", "plain"):
            raise InvalidInputError(f"probe must be 'encrypted' or 'plain', got {probe!r}.")
        _check_range(threshold)
        self._threshold = float(threshold)
        self._probe, self._subjects = probe, SubjectIndex(subjects, len(array_MD))
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
        return len(self._subjects.subjects)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of each reference."""
        return self._subjects.subjects

    @property
    def num_bytes(self) -> tuple[int, int]:
        """Bytes sent to the server and received from it for the last query."""
        return self._num_bytes

    def verify(self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float) -> NDArray[np.bool_]:
        """See `SecureMatcher.verify`; the server computes the whole blocks that hold the subject's references."""
        references = self._subjects.references_of(probes_ND, subjects)
        blocks = [sorted({m // SLOTS for m in of_claim}) for of_claim in references]
        scores = self._scores(probes_ND, threshold, blocks)
        return np.array(
            [
                any(score_S[SLOTS * chosen.index(m // SLOTS) + m % SLOTS] >= self._threshold for m in of_claim)
                for score_S, chosen, of_claim in zip(scores, blocks, references, strict=True)
            ]
        )

    def match_any(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """See `SecureMatcher.match_any`; the key holder decrypts every score."""
        return np.asarray((np.stack(self._scores(probes_BD, threshold)) >= self._threshold).any(axis=1))

    def match_all(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[tuple[str, ...], ...]:
        """See `SecureMatcher.match_all`; the key holder decrypts every score."""
        return self._subjects.all_of(np.stack(self._scores(probes_BD, threshold)) >= self._threshold)

    def identify(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[str | None, ...]:
        """See `SecureMatcher.identify`; the key holder decrypts every score."""
        scores_BM = np.stack(self._scores(probes_BD, threshold))
        best_B = np.where(scores_BM.max(axis=1) >= self._threshold, scores_BM.argmax(axis=1), -1)
        return self._subjects.best_of(best_B)

    def close(self) -> None:
        """Do nothing: there are no threads, processes or connections."""

    def __enter__(self) -> CkksMatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scores(
        self, probes_BD: ArrayLike, threshold: float, blocks: Sequence[Sequence[int]] | None = None
    ) -> list[NDArray[np.float64]]:
        _check_range(threshold)
        if threshold != self._threshold:
            raise InvalidInputError(
                f"The threshold is pinned to {self._threshold}, got {threshold}. Pass that one; for another threshold, "
                "create another CkksMatcher, which has a key of its own."
            )
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
        sizes = f"num_references={self.num_references}, dim={self.dim}"
        return f"CkksMatcher({sizes}, threshold={self._threshold}, probe={self._probe!r})"


def _check_range(threshold: float) -> None:
    if not -1 <= threshold <= 1:
        raise RangeError(f"The threshold must be in [-1, 1], got {threshold}.")
