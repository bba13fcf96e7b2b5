"""A party node: pending requests, the gallery, the session, and the execution of requests in the order of party 0."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from ppfr.core import InputCheckError, InvalidInputError, PartyError, PpfrError
from ppfr.secure import (
    Change,
    Enrolment,
    NumbaProducts,
    PairwiseKeys,
    Party,
    Query,
    Refresh,
    Removal,
    RingProducts,
    SharedRows,
    ShareStore,
    State,
    TorchProducts,
    agree_on_seed,
    check_inputs,
    gallery_digest,
)
from ppfr.service._parties._messages import Message, buffer_of
from ppfr.service._parties._requests import RefreshOrder, Request
from ppfr.service._parties._ring import Ring, TlsChannel
from ppfr.service._parties._settings import PartySettings
from ppfr.service._parties._thresholds import read_thresholds

_log = logging.getLogger("ppfr.party")
_REFRESH_S_PER_ROW = 2e-3  # several times what was measured, for slow disks
STALE_GALLERY = (
    "The gallery has changed since the client fetched its subjects. Fetch them again, then repeat the query."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """The content of a party's store at one time, loaded for queries.

    Attributes:
        rows: the party's shares.
        subjects: of the rows, in their order.
        digest: of parameters, ids, subjects and epoch, in hexadecimal; equal at all three parties.
        epoch: how often the shares were re-randomised.
        products: computes inner products with the rows.
        listing: the subjects as JSON, for clients; made once, since they fetch it often.
    """

    rows: SharedRows
    subjects: tuple[str, ...]
    digest: str
    epoch: int
    products: RingProducts
    listing: bytes

    @classmethod
    def of(cls, rows: SharedRows, subjects: tuple[str, ...], epoch: int, device: str) -> Gallery:
        """Load rows, which must be sorted by id, onto a device."""
        products: RingProducts = (
            NumbaProducts(rows.words_NW)
            if device == "compiled" or not len(rows)
            else TorchProducts(rows.words_NW, device=device)
        )
        listing = json.dumps(subjects).encode()
        digest = gallery_digest(rows.fixed_point, rows.ids_N16, subjects, epoch).hex()
        return cls(rows=rows, subjects=subjects, digest=digest, epoch=epoch, products=products, listing=listing)

    def changed(self, changes: Sequence[Enrolment | Removal], device: str) -> Gallery:
        """The gallery after committed changes; equal to loading the store again, but much faster."""
        gallery = self
        for _, of_one_type in itertools.groupby(changes, type):  # a row may be removed and enrolled again
            rows, subjects = gallery._after(list(of_one_type))
            gallery = dataclasses.replace(self, rows=rows, subjects=subjects, digest="")
        return Gallery.of(gallery.rows, gallery.subjects, self.epoch, device)

    def _after(self, changes: Sequence[Enrolment | Removal]) -> tuple[SharedRows, tuple[str, ...]]:
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

    Raises:
        ProblemsError, StorageError: as for `read_thresholds`.
    """

    def __init__(self, settings: PartySettings, store: ShareStore, ring: Ring) -> None:
        self._settings, self._store, self._ring = settings, store, ring
        self.thresholds = read_thresholds(settings)
        self._pending: dict[bytes, Request] = {}
        self._lock = threading.Lock()
        self._gallery_lock = threading.Lock()
        self._gallery: Gallery | None = None
        self._not_loaded: list[Enrolment | Removal] = []  # changes committed since the gallery was loaded
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
                self._gallery = Gallery.of(rows, subjects, self._store.epoch, self._settings.device)
            elif self._not_loaded:
                self._gallery = self._gallery.changed(self._not_loaded, self._settings.device)
            self._not_loaded = []
            return self._gallery

    def time_to_commit_s(self, request_id: bytes) -> float:
        """How much longer a pending request may take than others: a refresh rewrites the store."""
        with self._lock:
            request = self._pending.get(request_id)
        is_refresh = request is not None and isinstance(request.operation, RefreshOrder)
        return _REFRESH_S_PER_ROW * len(self.gallery().subjects) if is_refresh else 0.0

    def public_state(self) -> dict[str, Any]:
        """What must be equal at all three parties of a session: the gallery's digest, the ids of hidden thresholds."""
        sharings = {name: threshold.sharing.hex() for name, threshold in sorted(self.thresholds.items())}
        return {"digest": self.gallery().digest, "thresholds": sharings}

    def add(self, request: Request) -> None:
        """Add a request to the pending ones.

        Raises:
            InvalidInputError: the id is in use.
        """
        with self._lock:
            if request.request_id in self._pending:
                raise InvalidInputError("A request with this id is pending already. Draw a new id.")
            self._pending[request.request_id] = request

    def prepare(self, request_id: bytes, number: int, challenge: bytes) -> PpfrError | None:
        """Check a change together with the other parties and prepare it on disk.

        Args:
            request_id: of a pending change.
            number: as in `run`.
            challenge: as in `run`.

        Returns:
            Why this party refuses the change, which its client is told too; None if it is prepared.

        Raises:
            PpfrError: the check failed. The session has ended, and the client is told.
        """
        changes: list[Change] = []
        return self._execute(
            request_id, lambda request: changes.append(self._checked(request, number, challenge)), (InputCheckError,)
        ) or self._execute(request_id, lambda _: self._prepare_on_disk(changes[0]), (PpfrError,))

    def run(self, request_id: bytes, number: int, challenge: bytes) -> None:
        """Execute a pending request and resolve its reply. A change must be prepared.

        Args:
            request_id: of the request.
            number: its sequence number in the session.
            challenge: 32 bytes that party 0 drew after all parties had received the request.

        Raises:
            PpfrError: it failed here. The session has ended, and the client is told. If a query is refused, only the
                client is told: the other parties refuse it too, or their parts of the answer are of no use.
        """

        def work(request: Request) -> None:
            operation = request.operation
            message = (
                self._answer(request, operation, number, challenge)
                if isinstance(operation, Query)
                else self._commit(request_id, operation)
            )
            self._pop(request_id)
            request.reply.set_result(message)

        self._execute(request_id, work, (StaleGalleryError, InputCheckError))

    def _execute(
        self, request_id: bytes, work: Callable[[Request], None], refusals: tuple[type[PpfrError], ...]
    ) -> PpfrError | None:
        """Work on a pending request. An error is sent to its client; one that is not a refusal ends the session."""
        with self._lock:
            request = self._pending.get(request_id)
        start_s = time.perf_counter()
        try:
            if request is None:
                raise PartyError(f"The request is no longer pending at party {self._settings.party}. Repeat it.")
            work(request)
        except BaseException as error:
            is_refusal = isinstance(error, refusals)
            if not is_refusal:
                self._ring.leave()
                self._session = None
            if request is not None:
                self._pop(request_id)
                if is_refusal:
                    _log.warning("refused kind=%s client=%s: %s", request.kind, request.client, error)
                request.reply.set_exception(error)
            if isinstance(error, PpfrError) and is_refusal:
                return error
            raise
        elapsed_ms = 1e3 * (time.perf_counter() - start_s)
        _log.info("executed kind=%s client=%s ms=%.1f", request.kind, request.client, elapsed_ms)
        return None

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

    def _commit(self, change_id: bytes, change: Enrolment | Removal | RefreshOrder | None = None) -> Message:
        with self._gallery_lock:
            is_new = self._store.state(change_id) == "prepared"
            loaded, self._gallery = self._gallery, None  # if anything below fails, the gallery is loaded again
            self._store.commit(change_id)
            if not is_new:
                self._gallery = loaded
            elif loaded is not None and isinstance(change, Enrolment | Removal):
                self._not_loaded.append(change)
                num_new = sum(len(one.rows) for one in self._not_loaded if isinstance(one, Enrolment))
                if num_new <= len(loaded.rows):
                    self._gallery = loaded
                else:  # loading the store again costs no more than merging
                    self._not_loaded = []
        return Message(fields={"state": "committed"})

    def _checked(self, request: Request, number: int, challenge: bytes) -> Change:
        """The change of a request: rows that the three parties found to be valid, or a seed on which they agreed."""
        operation = request.operation
        if isinstance(operation, RefreshOrder):
            return Refresh(change_id=operation.change_id, seed=agree_on_seed(self._settings.party, self._channel()))
        if isinstance(operation, Query):
            raise InvalidInputError("A query cannot be prepared.")
        if request.inputs is not None:
            check_inputs(request.inputs, self._keys(number), self._channel(), number=number, challenge=challenge)
        return operation

    def _prepare_on_disk(self, change: Change) -> None:
        try:
            self._store.prepare(change)
        except InvalidInputError as error:
            if self._store.state(change.change_id) == "aborted":
                raise PartyError("The change was aborted before this party received it. Repeat it.") from error
            raise

    def _answer(self, request: Request, query: Query, number: int, challenge: bytes) -> Message:
        gallery = self.gallery()
        if request.gallery_digest != gallery.digest:
            raise StaleGalleryError(STALE_GALLERY)
        keys = self._keys(number)
        if self._party is None or self._party[0] is not gallery:
            self._party = (gallery, Party(gallery.rows, keys, self._channel(), products=gallery.products))
        answer = self._party[1].answer(query, number=number, challenge=challenge)
        fields = {
            "num_values": answer.num_values,
            "shape": list(answer.words.shape),
            "bytes_sent": self._party[1].traffic.bytes_sent,
        }
        return Message(fields=fields, buffers=[buffer_of(answer.words)])

    def _keys(self, number: int) -> PairwiseKeys:
        """The keys of the session, for a request with a number that was not used."""
        if self._session is None:
            raise PartyError(f"Party {self._settings.party} has no session. Repeat the request.")
        if number <= self._last_number:
            raise PartyError("Party 0 assigned a sequence number twice. No party computes with it.", party=0)
        self._last_number = number
        return self._session[1]

    def _channel(self) -> TlsChannel:
        if self._session is None:
            raise PartyError(f"Party {self._settings.party} has no session. Repeat the request.")
        return self._session[0]
