"""Three parties in one process behind one object: the engine without a network, for tests and measurements.

Suffixes: B probes, N claims, P pairs of a probe and a reference, M references, D embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ShapeError
from ppfr.secure._answers import Answer, Kind, Query, open_answers, share_query
from ppfr.secure._channel import NUM_PARTIES, InMemoryChannel
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._input_check import CHALLENGE_BYTES
from ppfr.secure._keystream import PairwiseKeys
from ppfr.secure._party import Party
from ppfr.secure._products import RingProducts
from ppfr.secure._rounds import Traffic
from ppfr.secure._sharing import SharedThreshold, share_rows
from ppfr.secure._subjects import SubjectIndex, padded_references


@final
class ThreePartyMatcher:
    """Decisions on shared embeddings by three parties, each a thread; no score is ever reconstructed.

    A `SecureMatcher`.

    Args:
        references_MD: (M, D) of L2 norm 1.
        subjects: the subject of each reference; by default the row numbers, "0" to "M - 1".
        values: "int16" (32-bit ring; decisions equal those of float scores except for near ties) or "int8" (16-bit
            ring; half the memory, traffic and time, coarser scores).
        products: factory that makes a `RingProducts` from a party's rows; None for compiled loops.
        timeout_s: maximum time that a party waits for another.

    Raises:
        ShapeError, RangeError, InvalidInputError: invalid references or subjects, or an empty gallery.

    Privacy:
        All three parties run in this process, so nothing is hidden from its operator. Computation and messages are
        those of parties on three hosts.
    """

    def __init__(
        self,
        references_MD: ArrayLike,
        *,
        subjects: Sequence[str] | None = None,
        values: Literal["int8", "int16"] = "int16",
        products: Callable[[NDArray[Any]], RingProducts] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        array_MD = np.asarray(references_MD)
        if array_MD.ndim != 2:
            raise ShapeError(f"Expected references of shape (M, D), got {array_MD.shape}.")
        if len(array_MD) == 0:
            raise InvalidInputError("The gallery is empty. Pass at least one reference.")
        self.fixed_point = FixedPoint(dim=array_MD.shape[1], values=values)
        shares = share_rows(array_MD, self.fixed_point)
        self._subjects = SubjectIndex(subjects, len(array_MD))
        self._products = [None if products is None else products(share.words_NW) for share in shares]
        self._shares = shares
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(NUM_PARTIES, thread_name_prefix="ppfr-party")
        self._connect()

    @property
    def dim(self) -> int:
        """D."""
        return self.fixed_point.dim

    @property
    def num_references(self) -> int:
        """M."""
        return len(self._subjects.subjects)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of each reference."""
        return self._subjects.subjects

    @property
    def traffic(self) -> tuple[Traffic, ...]:
        """Bytes that each party sent and received for the last query, without answers to the client."""
        return tuple(party.traffic for party in self._parties)

    def verify(
        self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float | Sequence[SharedThreshold]
    ) -> NDArray[np.bool_]:
        """See `SecureMatcher.verify`; one bit per claim is opened."""
        references = padded_references(self._subjects.references_of(probes_ND, subjects))
        return self._run_query("verify", probes_ND, threshold, references)

    def match_any(self, probes_BD: ArrayLike, *, threshold: float | Sequence[SharedThreshold]) -> NDArray[np.bool_]:
        """See `SecureMatcher.match_any`; one bit per probe is opened."""
        return self._run_query("any", probes_BD, threshold)

    def match_all(
        self, probes_BD: ArrayLike, *, threshold: float | Sequence[SharedThreshold]
    ) -> tuple[tuple[str, ...], ...]:
        """See `SecureMatcher.match_all`; one bit per probe and reference is opened."""
        return self._subjects.all_of(self._run_query("set", probes_BD, threshold))

    def identify(self, probes_BD: ArrayLike, *, threshold: float | Sequence[SharedThreshold]) -> tuple[str | None, ...]:
        """See `SecureMatcher.identify`; of equal scores the first reference wins, and its index is opened."""
        return self._subjects.best_of(self._run_query("best", probes_BD, threshold))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def __enter__(self) -> ThreePartyMatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        """Start a new session with new channels and keys."""
        self._channels = InMemoryChannel.ring(timeout_s=self._timeout_s)
        keys = list(self._pool.map(PairwiseKeys.agree, self._channels))
        self._parties = [
            Party(share, key, channel, products=products)
            for share, key, channel, products in zip(self._shares, keys, self._channels, self._products, strict=True)
        ]
        self._number = 0

    def _run_query(
        self,
        kind: Kind,
        probes_BD: ArrayLike,
        threshold: float | Sequence[SharedThreshold],
        references_NR: ArrayLike | None = None,
    ) -> NDArray[Any]:
        queries = share_query(
            kind,
            probes_BD,
            fixed_point=self.fixed_point,
            threshold=threshold,
            references_NR=references_NR,
        )
        number, self._number = self._number, self._number + 1
        challenge = os.urandom(CHALLENGE_BYTES)
        failures: list[BaseException] = []
        jobs = [
            self._pool.submit(self._run, index, query, number, challenge, failures)
            for index, query in enumerate(queries)
        ]
        answers = [job.result() for job in jobs]
        if failures:
            self._connect()
            raise failures[0]  # the others are consequences
        return open_answers([answer for answer in answers if answer is not None])

    def _run(
        self, index: int, query: Query, number: int, challenge: bytes, failures: list[BaseException]
    ) -> Answer | None:
        try:
            return self._parties[index].answer(query, number=number, challenge=challenge)
        except BaseException as error:
            failures.append(error)
            self._channels[index].close()
            return None

    def __repr__(self) -> str:
        return f"ThreePartyMatcher(num_references={self.num_references}, {self.fixed_point}, contents=<redacted>)"
