"""The contract of secure matchers: decisions on protected embeddings, never scores.

Suffixes: B probes, N pairs, M references, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@runtime_checkable
class SecureMatcher(Protocol):
    """A gallery that answers with decisions only: one-to-one, one-to-many, and who.

    Arguments and results name enrolled people by **subject**, a string (use a pseudonym), never by an index into the
    gallery. A remote gallery changes between two calls: after an enrolment or a removal by another client, an index
    refers to another reference, and `verify` would compare with the wrong person without an error. A subject keeps its
    meaning, also when it has several references. A matcher in this process gets subjects with its references; without
    them, the subject of row m is `str(m)`.

    A comparison is accepted when `score >= threshold`, for scores that are cosines. A subject is accepted when any of
    its references is.

    Use a matcher as a context manager, or call `close`.

    Privacy:
        What the servers and the client learn differs between implementations; their documentation states it. Decisions
        themselves leak: enough answers to chosen probes recover a template (`ppfr.attacks.DecisionRecovery`).
    """

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of each of the M references, in the order of the gallery; may contain a subject repeatedly."""
        ...

    def verify(self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float) -> NDArray[np.bool_]:
        """Compare each probe with the subject that it claims to be.

        Args:
            probes_ND: (N, D) of L2 norm 1.
            subjects: N claimed subjects.
            threshold: in [-1, 1]; a matcher may accept one value only.

        Returns:
            (N,): whether any reference of the claimed subject is accepted.

        Raises:
            ShapeError: not (N, D) with N >= 1, or another number of subjects.
            RangeError: probes that are not finite or not of norm 1; a threshold outside [-1, 1].
            InvalidInputError: a claimed subject is not enrolled (the message does not name it), or the matcher has
                one threshold and it is another.
        """
        ...

    def match_any(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """(B,): whether any reference is accepted for the probe. Raises as `verify`."""
        ...

    def match_all(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[tuple[str, ...], ...]:
        """For each probe all accepted subjects, each once, sorted. Raises as `verify`."""
        ...

    def identify(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[str | None, ...]:
        """For each probe the subject of the accepted reference with the highest score, or None. Raises as `verify`."""
        ...

    def close(self) -> None:
        """Release threads, processes and connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
