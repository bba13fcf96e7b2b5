"""One party's own work: requests that wait, the gallery, the session, and what is done in party 0's order."""

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
from ppfr.secure._answers import Kind, Query
from ppfr.secure._changes import Change, Enrolment, Removal, State
from ppfr.secure._keystream import PairwiseKeys
from ppfr.secure._party import Party
from ppfr.secure._products import NumbaProducts, RingProducts, TorchProducts
from ppfr.secure._share_store import ShareStore
from ppfr.secure._sharing import SharedRows, SharedThreshold
from ppfr.service._parties._messages import Message, buffer_of
from ppfr.service._parties._ring import Ring, TlsChannel
from ppfr.service._parties._settings import PartySettings

_log = logging.getLogger("ppfr.party")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """What the store holds, ready to be asked; one never changes.

    Attributes:
        rows: the party's shares.
        subjects: of the rows, in their order.
        digest: in hexadecimal; equal at all three parties.
        products: where inner products are computed.
    """

    rows: SharedRows
    subjects: tuple[str, ...]
    digest: str
    products: RingProducts

    @classmethod
    def of(cls, rows: SharedRows, subjects: tuple[str, ...], device: str) -> Gallery:
        """Rows as they are, in order of their ids, for a device."""
        products: RingProducts = (
            NumbaProducts(rows.words_NW)
            if device == "compiled" or not len(rows)
            else TorchProducts(rows.words_NW, device=device)
        )
        return cls(rows=rows, subjects=subjects, digest=rows.digest().hex(), products=products)

    def changed(self, changes: Sequence[Change], device: str) -> Gallery:
        """What the store would load after these changes, much sooner than it does."""
        gallery = self
        for _, alike in itertools.groupby(changes, type):  # a row may be removed, and come again
            rows, subjects = gallery._after(list(alike))
            gallery = Gallery(rows=rows, subjects=subjects, digest="", products=self.products)
        return Gallery.of(gallery.rows, gallery.subjects, device)

    def _after(self, changes: Sequence[Change]) -> tuple[SharedRows, tuple[str, ...]]:
        """Enrolments alone, or removals alone."""
        new = [change for change in changes if isinstance(change, Enrolment)]
        rows = SharedRows.concatenate([self.rows, *(change.rows for change in new)]) if new else self.rows
        names = [*self.subjects, *(subject for change in new for subject in change.subjects)]
        high_M, low_M = np.ascontiguousarray(rows.ids_N16).view(">u8").reshape(-1, 2).T
        order_M = np.lexsort((low_M, high_M))
        gone = {one for change in changes if isinstance(change, Removal) for one in change.reference_ids}
        if gone:
            order_M = order_M[[rows.ids_N16[place].tobytes() not in gone for place in order_M]]
        kept = dataclasses.replace(rows, ids_N16=rows.ids_N16[order_M], words_NW=rows.words_NW[order_M])
        return kept, tuple(names[place] for place in order_M.tolist())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """A query that has no number yet.

    Attributes:
        kind: as in `Query`.
        probes: the party's shares of them.
        threshold: as in `Query`.
        references_N: as in `Query`.
        digest: of the gallery that the asker means.
    """

    kind: Kind
    probes: SharedRows
    threshold: int | SharedThreshold
    references_N: np.ndarray[Any, Any] | None
    digest: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """Something that a client wants of all three parties.

    Attributes:
        request_id: 16 random bytes, the same at all three; of a change, its id.
        client: the name in the client's certificate.
        wanted: a question, or a change that the store has prepared.
        answer: what the client's connection waits for.
    """

    request_id: bytes
    client: str
    wanted: Question | Change
    answer: Future[Message] = dataclasses.field(default_factory=Future)

    @property
    def is_change(self) -> bool:
        """Whether it changes the gallery."""
        return not isinstance(self.wanted, Question)


class StaleGalleryError(InvalidInputError):
    """The asker means a gallery that has changed since; it is to look again. Raised at all three parties alike."""


@final
class Member:
    """One party, whichever it is.

    Args:
        settings: of the party.
        store: its shares; stays the caller's to close.
        ring: to its neighbours.
    """

    def __init__(self, settings: PartySettings, store: ShareStore, ring: Ring) -> None:
        self._settings, self._store, self._ring = settings, store, ring
        self._waiting: dict[bytes, Request] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._gallery: Gallery | None = None
        self._behind: list[Change] = []  # changes that were committed since
        self._session: tuple[TlsChannel, PairwiseKeys] | None = None
        self._party: tuple[Gallery, Party] | None = None
        self._last_number = -1

    def gallery(self) -> Gallery:
        """What can be asked now.

        Raises:
            CorruptTemplateError, StorageError: the store cannot be read.
        """
        with self._loading:
            if self._gallery is None:
                rows, subjects = self._store.load()
                self._gallery = Gallery.of(rows, subjects, self._settings.device)
            elif self._behind:
                self._gallery = self._gallery.changed(self._behind, self._settings.device)
            self._behind = []
            return self._gallery

    def add(self, request: Request) -> None:
        """Let a request wait for its turn; a change is prepared on disk first.

        Raises:
            PpfrError: the store refuses the change, or the id is taken.
        """
        with self._lock:
            if request.request_id in self._waiting:
                raise InvalidInputError("a request with this id waits already; draw a new id")
            self._waiting[request.request_id] = request
        if isinstance(request.wanted, Question):
            return
        try:
            self._store.prepare(request.wanted)
        except BaseException as error:
            self._taken(request.request_id)
            if isinstance(error, InvalidInputError) and self._store.state(request.request_id) == "aborted":
                raise PartyError("the change was given up while it was on its way; make it again") from error
            raise

    def run(self, request_id: bytes, number: int) -> None:
        """Do what waits under this id, as the operation of this number, and answer its client.

        Raises:
            PartyError, PpfrError: it failed here (the client was told), and the session is of no use any more.
        """
        request = self._taken(request_id)
        begun = time.perf_counter()
        try:
            if request is None:
                raise PartyError(f"party {self._settings.party} has no such request any more; ask again")
            message = (
                self._answered(request.wanted, number)
                if isinstance(request.wanted, Question)
                else self._committed(request_id, request.wanted)
            )
        except StaleGalleryError as error:
            if request is not None:
                request.answer.set_exception(error)
            return
        except BaseException as error:
            self._ring.leave()
            self._session = None
            if request is not None:
                request.answer.set_exception(error)
            raise
        what = request.wanted.kind if isinstance(request.wanted, Question) else type(request.wanted).__name__.lower()
        _log.info("done number=%d what=%s ms=%.1f", number, what, 1e3 * (time.perf_counter() - begun))
        request.answer.set_result(message)

    def cancel(self, request_id: bytes, error: PpfrError, *, aborts: bool) -> bool:
        """Refuse a request; whether it is refused, for a change that was made stays made.

        Args:
            request_id: of one that waits, or is yet to come.
            error: for its client.
            aborts: whether it is a change that is never to be made here, even if it comes late.

        Raises:
            PpfrError: the store cannot say so.
        """
        if aborts:
            if self._store.state(request_id) == "committed":
                return False
            self._store.abort(request_id)
        request = self._taken(request_id)
        if request is not None:
            request.answer.set_exception(error)
        return True

    def give_up(self, error: PpfrError) -> None:
        """Tell every client that waits; prepared changes stay so until they are settled."""
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for request in waiting:
            request.answer.set_exception(error)

    def states(self, change_ids: list[bytes]) -> list[State]:
        """Where changes stand here."""
        return [self._store.state(change_id) for change_id in change_ids]

    def pending(self) -> list[bytes]:
        """Changes that are prepared, and no more, the oldest first."""
        return list(self._store.pending())

    def settle(self, commits: list[bytes], aborts: list[bytes]) -> None:
        """End changes that an interrupted session left.

        Raises:
            PpfrError: the store refuses.
        """
        for change_id in commits:
            if self._store.state(change_id) != "committed":
                self._committed(change_id)
        for change_id in aborts:
            self._store.abort(change_id)

    def join(self, session: str) -> None:
        """Begin a session.

        Raises:
            PartyError: a neighbour is gone; names it.
        """
        self._party, self._session, self._last_number = None, None, -1
        self._session = self._ring.join(session)

    def leave(self) -> None:
        """End the session, from any thread; an operation under way fails."""
        self._ring.leave()

    def _taken(self, request_id: bytes) -> Request | None:
        with self._lock:
            return self._waiting.pop(request_id, None)

    def _committed(self, change_id: bytes, change: Change | None = None) -> Message:
        with self._loading:
            is_new = self._store.state(change_id) == "prepared"
            known, self._gallery = self._gallery, None  # loaded anew, if what follows fails
            self._store.commit(change_id)
            if not is_new:
                self._gallery = known
            elif known is not None and change is not None:
                self._behind.append(change)
                num_new = sum(len(one.rows) for one in self._behind if isinstance(one, Enrolment))
                if num_new <= len(known.rows):
                    self._gallery = known
                else:  # loading is no dearer
                    self._behind = []
        return Message(fields={"state": "committed"})

    def _answered(self, question: Question, number: int) -> Message:
        gallery = self.gallery()
        if question.digest != gallery.digest:
            raise StaleGalleryError("the gallery has changed since the client last looked; look again, then ask")
        if self._session is None:
            raise PartyError(f"party {self._settings.party} is in no session; ask again")
        if number <= self._last_number:
            raise PartyError("party 0 gave a number twice; no party computes under it", party=0)
        self._last_number = number
        if self._party is None or self._party[0] is not gallery:
            channel, keys = self._session[0], self._session[1]
            self._party = (gallery, Party(gallery.rows, keys, channel, products=gallery.products))
        answer = self._party[1].answer(
            Query(
                party=self._settings.party,
                number=number,
                kind=question.kind,
                probes=question.probes,
                threshold=question.threshold,
                references_N=question.references_N,
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
