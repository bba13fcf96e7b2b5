"""A party node: pending requests, the gallery, the session, and the execution of requests in the order of party 0."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, final

import numpy as np

from ppfr.core import InvalidInputError, PartyError, PpfrError
from ppfr.secure import (
    Change,
    Enrolment,
    Kind,
    NumbaProducts,
    PairwiseKeys,
    Party,
    Query,
    Removal,
    RingProducts,
    SharedRows,
    SharedThreshold,
    ShareStore,
    State,
    TorchProducts,
)
from ppfr.service._parties._messages import Message, buffer_of
from ppfr.service._parties._ring import Ring, TlsChannel
from ppfr.service._parties._settings import PartySettings

_log = logging.getLogger("ppfr.party")
STALE_GALLERY = (
    "The gallery has changed since the client fetched its subjects. Fetch them again, then repeat the query."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """The content of a party's store at one time, loaded for queries.

    Attributes:
        rows: the party's shares.
        subjects: of the rows, in their order.
        digest: hexadecimal; equal at all three parties.
        products: computes inner products with the rows.
    """

    rows: SharedRows
    subjects: tuple[str, ...]
    digest: str
    products: RingProducts

    @classmethod
    def of(cls, rows: SharedRows, subjects: tuple[str, ...], device: str) -> Gallery:
        """Load rows, which must be sorted by id, onto a device."""
        products: RingProducts = (
            NumbaProducts(rows.words_NW)
            if device == "compiled" or not len(rows)
            else TorchProducts(rows.words_NW, device=device)
        )
        return cls(rows=rows, subjects=subjects, digest=rows.digest().hex(), products=products)

    def changed(self, changes: Sequence[Change], device: str) -> Gallery:
        """The gallery after committed changes; equal to loading the store again, but much faster."""
        gallery = self
        for _, of_one_type in itertools.groupby(changes, type):  # a row may be removed and enrolled again
            rows, subjects = gallery._after(list(of_one_type))
            gallery = Gallery(rows=rows, subjects=subjects, digest="", products=self.products)
        return Gallery.of(gallery.rows, gallery.subjects, device)

    def _after(self, changes: Sequence[Change]) -> tuple[SharedRows, tuple[str, ...]]:
        """Rows and subjects after enrolments only, or removals only."""
        new = [change for change in changes if isinstance(change, Enrolment)]
        rows = SharedRows.concatenate([self.rows, *(change.rows for change in new)]) if new else self.rows
        names = [*self.subjects, *(subject for change in new for subject in change.subjects)]
        high_M, low_M = np.ascontiguousarray(rows.ids_N16).view(">u8").reshape(-1, 2).T
        order_M = np.lexsort((low_M, high_M))
        removed = {one for change in changes if isinstance(change, Removal) for one in change.reference_ids}
        if removed:
            order_M = order_M[[rows.ids_N16[index].tobytes() not in removed for index in order_M]]
        kept = dataclasses.replace(rows, ids_N16=rows.ids_N16[order_M], words_NW=rows.words_NW[order_M])
        return kept, tuple(names[index] for index in order_M.tolist())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnnumberedQuery:
    """A query that has no sequence number yet.

    Attributes:
        kind: as in `Query`.
        probes: the party's shares of the probes.
        threshold: as in `Query`.
        references_N: as in `Query`.
        digest: of the gallery that the query was made for.
    """

    kind: Kind
    probes: SharedRows
    threshold: int | SharedThreshold
    references_N: np.ndarray[Any, Any] | None
    digest: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A client's request that all three parties execute.

    Attributes:
        request_id: 16 random bytes, the same at all three parties; for a change, the change id.
        client: name in the client's certificate.
        operation: a query, or a change that the store has prepared.
        reply: resolved when the request has been executed or has failed.
    """

    request_id: bytes
    client: str
    operation: UnnumberedQuery | Change
    reply: Future[Message] = dataclasses.field(default_factory=Future)

    @property
    def is_change(self) -> bool:
        """Whether the request changes the gallery."""
        return not isinstance(self.operation, UnnumberedQuery)


class StaleGalleryError(InvalidInputError):
    """The query was made for an earlier gallery; the client must fetch the subjects again.

    All three parties raise it for the same query.
    """


@final
class PartyNode:
    """The part of a party that executes requests; the same for all three parties.

    Args:
        settings: of the party.
        store: its shares; the caller closes it.
        ring: connections to the neighbours.
    """

    def __init__(self, settings: PartySettings, store: ShareStore, ring: Ring) -> None:
        self._settings, self._store, self._ring = settings, store, ring
        self._pending: dict[bytes, Request] = {}
        self._lock = threading.Lock()
        self._gallery_lock = threading.Lock()
        self._gallery: Gallery | None = None
        self._not_loaded: list[Change] = []  # changes committed since the gallery was loaded
        self._session: tuple[TlsChannel, PairwiseKeys] | None = None
        self._party: tuple[Gallery, Party] | None = None
        self._last_number = -1

    def gallery(self) -> Gallery:
        """The gallery with all committed changes.

        Raises:
            CorruptTemplateError, StorageError: the store cannot be read.
        """
        with self._gallery_lock:
            if self._gallery is None:
                rows, subjects = self._store.load()
                self._gallery = Gallery.of(rows, subjects, self._settings.device)
            elif self._not_loaded:
                self._gallery = self._gallery.changed(self._not_loaded, self._settings.device)
            self._not_loaded = []
            return self._gallery

    def add(self, request: Request) -> None:
        """Add a request to the pending ones. A change is prepared on disk first.

        Raises:
            PpfrError: the store refuses the change, or the id is in use.
        """
        with self._lock:
            if request.request_id in self._pending:
                raise InvalidInputError("A request with this id is pending already. Draw a new id.")
            self._pending[request.request_id] = request
        if isinstance(request.operation, UnnumberedQuery):
            return
        try:
            self._store.prepare(request.operation)
        except BaseException as error:
            self._pop(request.request_id)
            if isinstance(error, InvalidInputError) and self._store.state(request.request_id) == "aborted":
                raise PartyError("The change was aborted before this party received it. Repeat it.") from error
            raise

    def run(self, request_id: bytes, number: int) -> None:
        """Execute a pending request under a sequence number and resolve its reply.

        Raises:
            PartyError, PpfrError: it failed here. The reply holds the error too, and the session has ended.
        """
        request = self._pop(request_id)
        start_s = time.perf_counter()
        try:
            if request is None:
                raise PartyError(f"The request is no longer pending at party {self._settings.party}. Repeat it.")
            message = (
                self._answer(request.operation, number)
                if isinstance(request.operation, UnnumberedQuery)
                else self._commit(request_id, request.operation)
            )
        except StaleGalleryError as error:
            if request is not None:
                request.reply.set_exception(error)
            return
        except BaseException as error:
            self._ring.leave()
            self._session = None
            if request is not None:
                request.reply.set_exception(error)
            raise
        operation = request.operation
        kind = operation.kind if isinstance(operation, UnnumberedQuery) else type(operation).__name__.lower()
        _log.info("executed number=%d kind=%s ms=%.1f", number, kind, 1e3 * (time.perf_counter() - start_s))
        request.reply.set_result(message)

    def cancel(self, request_id: bytes, error: PpfrError, *, aborts: bool) -> bool:
        """Cancel a request, unless it is a change that is committed already; return whether it was cancelled.

        Args:
            request_id: of a request that is pending or may still arrive.
            error: for its client.
            aborts: whether to abort it as a change, so that it cannot be prepared later.

        Raises:
            PpfrError: the store cannot record the abort.
        """
        if aborts:
            if self._store.state(request_id) == "committed":
                return False
            self._store.abort(request_id)
        request = self._pop(request_id)
        if request is not None:
            request.reply.set_exception(error)
        return True

    def fail_pending(self, error: PpfrError) -> None:
        """Resolve all pending requests with an error; prepared changes stay prepared until they are settled."""
        with self._lock:
            pending, self._pending = list(self._pending.values()), {}
        for request in pending:
            request.reply.set_exception(error)

    def states(self, change_ids: list[bytes]) -> list[State]:
        """The states of changes in this party's store."""
        return [self._store.state(change_id) for change_id in change_ids]

    def prepared_changes(self) -> list[bytes]:
        """Ids of the changes that are prepared, but neither committed nor aborted; the oldest first."""
        return list(self._store.pending())

    def settle(self, commits: list[bytes], aborts: list[bytes]) -> None:
        """Commit or abort changes that an interrupted session left prepared.

        Raises:
            PpfrError: the store refuses.
        """
        for change_id in commits:
            if self._store.state(change_id) != "committed":
                self._commit(change_id)
        for change_id in aborts:
            self._store.abort(change_id)

    def join(self, session: str) -> None:
        """Join a new session.

        Raises:
            PartyError: a neighbour cannot be reached; names it.
        """
        self._party, self._session, self._last_number = None, None, -1
        self._session = self._ring.join(session)

    def leave(self) -> None:
        """Leave the session, from any thread; a running request fails."""
        self._ring.leave()

    def _pop(self, request_id: bytes) -> Request | None:
        with self._lock:
            return self._pending.pop(request_id, None)

    def _commit(self, change_id: bytes, change: Change | None = None) -> Message:
        with self._gallery_lock:
            is_new = self._store.state(change_id) == "prepared"
            loaded, self._gallery = self._gallery, None  # if anything below fails, the gallery is loaded again
            self._store.commit(change_id)
            if not is_new:
                self._gallery = loaded
            elif loaded is not None and change is not None:
                self._not_loaded.append(change)
                num_new = sum(len(one.rows) for one in self._not_loaded if isinstance(one, Enrolment))
                if num_new <= len(loaded.rows):
                    self._gallery = loaded
                else:  # loading the store again costs no more than merging
                    self._not_loaded = []
        return Message(fields={"state": "committed"})

    def _answer(self, query: UnnumberedQuery, number: int) -> Message:
        gallery = self.gallery()
        if query.digest != gallery.digest:
            raise StaleGalleryError(STALE_GALLERY)
        if self._session is None:
            raise PartyError(f"Party {self._settings.party} has no session. Repeat the request.")
        if number <= self._last_number:
            raise PartyError("Party 0 assigned a sequence number twice. No party computes with it.", party=0)
        self._last_number = number
        if self._party is None or self._party[0] is not gallery:
            channel, keys = self._session[0], self._session[1]
            self._party = (gallery, Party(gallery.rows, keys, channel, products=gallery.products))
        answer = self._party[1].answer(
            Query(
                party=self._settings.party,
                number=number,
                kind=query.kind,
                probes=query.probes,
                threshold=query.threshold,
                references_N=query.references_N,
            )
        )
        traffic = self._party[1].traffic
        fields = {
            "number": number,
            "num_values": answer.num_values,
            "shape": list(answer.words.shape),
            "bytes_sent": traffic.bytes_sent,
        }
        return Message(fields=fields, buffers=[buffer_of(answer.words)])
