"""A party's process: one share store, one listener, TLS to the other two parties and to clients."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from typing import final

import numpy as np

from ppfr.core import InvalidInputError, PartyError, PpfrError, StorageError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._share_store import ShareStore
from ppfr.secure._three_parties import ThreePartyMatcher
from ppfr.service._parties._budgets import Budgets
from ppfr.service._parties._coordinator import Coordinator
from ppfr.service._parties._greeting import Greeting, Parameters, Purpose, greet, hear_greeting, refuse, welcome
from ppfr.service._parties._links import Link, party_name
from ppfr.service._parties._member import Member
from ppfr.service._parties._messages import MalformedError
from ppfr.service._parties._ordering import Desk, Dial, Follower
from ppfr.service._parties._requests import Counter
from ppfr.service._parties._ring import Ring
from ppfr.service._parties._settings import PartySettings

_log = logging.getLogger("ppfr.party")
_HANDSHAKE_S = 10.0
_BACKLOG = 128


@final
class PartyServer:
    """One of three servers; sees shares, and learns neither embeddings, scores nor decisions.

    Use it as a context manager, or `close` it. Logs go to the logger "ppfr.party": peers by name, numbers, kinds and
    times of queries, errors; no share, no subject, no answer.

    Args:
        settings: which party, where, with whom.

    Raises:
        InvalidInputError: the store is another party's or of other parameters; files that do not go together.
        StorageError: the store cannot be opened, or the address cannot be listened at.
        MissingExtraError: `cryptography` is not installed.

    Privacy:
        As for `Party`, and on top of it: it sees when which client (by certificate) asks what kind of question about
        how many probes, the claimed references of `verify`, public thresholds, and subjects as they are enrolled.
    """

    def __init__(self, settings: PartySettings) -> None:
        self._settings = settings
        self._to_others = settings.identity.context(is_server=False)
        self._to_self = settings.identity.context(is_server=True)
        _compile(settings.parameters.fixed_point)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            store = undo.enter_context(ShareStore.open(settings.store))
            _check_store(store, settings)
            self._ring = Ring(settings.party, self._dialled("ring"), timeout_s=settings.timeout_s)
            undo.callback(self._ring.close)
            self._member = Member(settings, store, self._ring)
            self._desk = self._made_desk()
            undo.callback(self._desk.close)
            limits = {name: rights.budget_bits for name, rights in settings.clients.items()}
            self._counter = Counter(settings, self._member, self._desk, Budgets(settings.budget_file, limits))
            self._member.gallery()  # a damaged store is told now
            self._listener = undo.enter_context(_listening(settings.listen))
            self._stack = undo.pop_all()
        self._handshakes = threading.BoundedSemaphore(settings.max_connections)
        self._clients = threading.BoundedSemaphore(settings.max_connections)
        self._is_closed = False

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Listen, and look for the other parties; returns at once."""
        _log.info("party %d listens at %s:%d", self._settings.party, *self.address)
        threading.Thread(target=self._accept, name="ppfr-accept", daemon=True).start()
        self._desk.start()

    def close(self) -> None:
        """End all connections and give the store back."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._stack.close()

    def __enter__(self) -> PartyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _made_desk(self) -> Desk:
        timeout_s = self._settings.timeout_s
        if self._settings.party == 0:
            return Coordinator(self._member, self._dialled("orders"), timeout_s=timeout_s)
        return Follower(self._settings.party, self._member, self._dialled("reports"), timeout_s=timeout_s)

    def _dialled(self, purpose: Purpose) -> Dial:
        def dial(party: int, session: str) -> Link:
            address = self._settings.addresses[party]
            link = Link.dial(address, self._to_others, party=party, timeout_s=self._settings.timeout_s)
            try:
                greet(link, purpose, self._settings.parameters, session=session)
            except PpfrError:
                link.close()
                raise
            return link

        return dial

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                if self._is_closed:
                    return
                continue
            if not self._handshakes.acquire(blocking=False):
                plain.close()
                continue
            threading.Thread(target=self._handle, args=(plain,), name="ppfr-connection", daemon=True).start()

    def _handle(self, plain: socket.socket) -> None:
        """One connection, to its end; whatever it is, the others are not touched by it."""
        link: Link | None = None
        is_kept = False
        in_handshake = contextlib.ExitStack()
        in_handshake.callback(self._handshakes.release)
        try:
            with in_handshake:
                plain.settimeout(min(self._settings.timeout_s, _HANDSHAKE_S))
                connection = self._to_self.wrap_socket(plain, server_side=True)
                link = self._named(connection)
                greeting = hear_greeting(link, self._settings.parameters)
            is_kept = self._serve(link, greeting)
        except (PpfrError, MalformedError) as error:
            _log.info("connection ended: %s", error)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            _log.warning("a connection was no TLS of a known certificate (%s)", reason)
        finally:
            if link is not None and not is_kept:
                link.close()
            plain.close()

    def _named(self, connection: ssl.SSLSocket) -> Link:
        link = Link(connection, peer="a peer", party=None, timeout_s=self._settings.timeout_s)
        names = link.peer_names()
        for party in range(NUM_PARTIES):
            if party_name(party) in names and party != self._settings.party:
                link.peer, link.party = f"party {party}", party
                return link
        known = [name for name in names if name in self._settings.clients]
        link.peer = f"client {(known or list(names) or ['without a name'])[0]!r}"
        return link

    def _serve(self, link: Link, greeting: Greeting) -> bool:
        """Whether somebody else goes on with the connection."""
        mine = self._settings.parameters
        if greeting.purpose == "client":
            self._serve_client(link, mine)
            return False
        if link.party is None:
            refuse(link, f"{link.peer} is no party of this gallery")
            return False
        if greeting.purpose == "ring":
            welcome(link, mine)  # before anybody else may use the connection
            self._ring.arrive(greeting.session, link)
            return True
        if (greeting.purpose == "reports") != (self._settings.party == 0):
            raise PartyError(f"{link.peer} wants {greeting.purpose} of party {self._settings.party}", party=link.party)
        welcome(link, mine)
        self._desk.accept(link, greeting.session)
        return False

    def _serve_client(self, link: Link, mine: Parameters) -> None:
        name = next((name for name in link.peer_names() if name in self._settings.clients), None)
        if name is None:
            refuse(link, f"{link.peer} is not in the configuration of party {self._settings.party}")
            return
        if not self._clients.acquire(blocking=False):
            refuse(link, f"party {self._settings.party} serves {self._settings.max_connections} clients already")
            return
        try:
            welcome(
                link,
                mine,
                max_request_bytes=self._settings.max_request_bytes,
                max_comparisons=self._settings.max_comparisons,
                timeout_s=self._settings.timeout_s,
            )
            _log.info("client %s connected", name)
            self._counter.serve(link, name)
        finally:
            self._clients.release()


def _compile(point: FixedPoint) -> None:
    """Have the kernels ready before anybody waits for an answer."""
    with ThreePartyMatcher(np.eye(2), values=point.values) as matcher:
        matcher.verify(np.eye(2), matcher.subjects, threshold=0.5)
        matcher.identify(np.eye(2), threshold=0.5)


def _check_store(store: ShareStore, settings: PartySettings) -> None:
    mine = settings.parameters
    if store.party != settings.party:
        raise InvalidInputError(f"{store.path} is party {store.party}'s; the configuration says {settings.party}")
    if store.fixed_point != mine.fixed_point:
        raise InvalidInputError(f"{store.path} holds {store.fixed_point}; the configuration says {mine.fixed_point}")
    if store.gallery_id != mine.gallery_id:
        raise InvalidInputError(f"{store.path} is of another gallery than the configuration names")


def _listening(address: tuple[str, int]) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StorageError(f"cannot listen at {address[0]}:{address[1]}: {error.strerror or error}") from error
