"""Process of a party: one share store, one listening socket, TLS to the other two parties and to clients."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from typing import final

import numpy as np

from ppfr.core import PartyError, PpfrError, StorageError
from ppfr.secure import NUM_PARTIES, FixedPoint, ThreePartyMatcher
from ppfr.service._parties._budgets import QueryBudgets
from ppfr.service._parties._client_handler import ClientHandler
from ppfr.service._parties._follower import Follower
from ppfr.service._parties._handshake import (
    Handshake,
    Parameters,
    Purpose,
    accept_connection,
    receive_handshake,
    refuse_connection,
    start_handshake,
)
from ppfr.service._parties._links import Link, party_name
from ppfr.service._parties._messages import MalformedError
from ppfr.service._parties._node import PartyNode
from ppfr.service._parties._request_queue import Dial, RequestQueue
from ppfr.service._parties._ring import Ring
from ppfr.service._parties._sequencer import Sequencer
from ppfr.service._parties._settings import PartySettings
from ppfr.service._parties._stores import open_store

_log = logging.getLogger("ppfr.party")
_MAX_HANDSHAKE_S = 10.0
_BACKLOG = 128


@final
class PartyServer:
    """One of the three servers. It holds shares and learns neither embeddings, scores nor decisions.

    Use it as a context manager, or call `close`. It logs to "ppfr.party": names of peers; sequence numbers, kinds and
    durations of requests; errors. The log contains no share, subject or answer.

    Args:
        settings: of the party.

    Raises:
        InvalidInputError: the store is that of another party or has other parameters, or the TLS files do not belong
            together.
        StorageError: the store cannot be opened, or the address cannot be used.

    Privacy:
        As for `Party`. In addition the server sees: the time, the client (by certificate), the kind and the number of
        probes of each query; the claimed references of `verify`; public thresholds; subjects when they are enrolled.
    """

    def __init__(self, settings: PartySettings) -> None:
        self._settings = settings
        self._client_context = settings.credentials.context(is_server=False)
        self._server_context = settings.credentials.context(is_server=True)
        _compile_kernels(settings.parameters.fixed_point)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            store = undo.enter_context(open_store(settings))
            self._ring = Ring(settings.party, self._dialler("ring"), timeout_s=settings.timeout_s)
            undo.callback(self._ring.close)
            self._node = PartyNode(settings, store, self._ring)
            self._queue = self._make_queue()
            undo.callback(self._queue.close)
            budgets = undo.enter_context(
                QueryBudgets(
                    settings.budget_file,
                    clients={name: rights.budget_bits for name, rights in settings.clients.items()},
                    per_subject=settings.subject_budget_bits,
                    searches=settings.search_budget_bits,
                )
            )
            self._client_handler = ClientHandler(settings, self._node, self._queue, budgets)
            self._node.gallery()  # a damaged store is reported now
            self._listener = undo.enter_context(_listening(settings.listen))
            self._stack = undo.pop_all()
        self._handshakes = threading.BoundedSemaphore(settings.max_connections)
        self._clients = threading.BoundedSemaphore(settings.max_connections)
        self._is_closed = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the listening socket."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Listen, and connect to the other parties, in background threads."""
        _log.info("party %d listens at %s:%d", self._settings.party, *self.address)
        threading.Thread(target=self._accept, name="ppfr-accept", daemon=True).start()
        self._queue.start()

    def close(self) -> None:
        """Close all connections and the store."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._stack.close()

    def __enter__(self) -> PartyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_queue(self) -> RequestQueue:
        timeout_s = self._settings.timeout_s
        if self._settings.party == 0:
            return Sequencer(self._node, self._dialler("commands"), timeout_s=timeout_s)
        return Follower(self._settings.party, self._node, self._dialler("reports"), timeout_s=timeout_s)

    def _dialler(self, purpose: Purpose) -> Dial:
        def dial(party: int, session: str) -> Link:
            address = self._settings.addresses[party]
            link = Link.dial(address, self._client_context, party=party, timeout_s=self._settings.timeout_s)
            try:
                start_handshake(link, purpose, self._settings.parameters, session=session)
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
        """Serve one connection until it ends. A failure does not affect other connections."""
        link: Link | None = None
        is_taken_over = False
        in_handshake = contextlib.ExitStack()
        in_handshake.callback(self._handshakes.release)
        try:
            with in_handshake:
                plain.settimeout(min(self._settings.timeout_s, _MAX_HANDSHAKE_S))
                connection = self._server_context.wrap_socket(plain, server_side=True)
                link = self._named(connection)
                handshake = receive_handshake(link, self._settings.parameters)
            is_taken_over = self._serve(link, handshake)
        except (PpfrError, MalformedError) as error:
            _log.info("connection ended: %s", error)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            _log.warning("a connection failed before its certificate was verified (%s)", reason)
        finally:
            if link is not None and not is_taken_over:
                link.close()
            plain.close()

    def _named(self, connection: ssl.SSLSocket) -> Link:
        """A link that is named after the certificate of the peer."""
        link = Link(connection, peer="a peer", party=None, timeout_s=self._settings.timeout_s)
        names = link.peer_names()
        for party in range(NUM_PARTIES):
            if party_name(party) in names and party != self._settings.party:
                link.peer, link.party = f"party {party}", party
                return link
        known = [name for name in names if name in self._settings.clients]
        link.peer = f"client {(known or list(names) or ['without a name'])[0]!r}"
        return link

    def _serve(self, link: Link, handshake: Handshake) -> bool:
        """Serve a connection; return True at once if the ring takes it over, else False when it ends."""
        parameters = self._settings.parameters
        if handshake.purpose == "client":
            self._serve_client(link, parameters)
            return False
        if link.party is None:
            refuse_connection(link, f"{link.peer_at_start} is not a party of this gallery.")
            return False
        if handshake.purpose == "ring":
            accept_connection(link, parameters)  # before another thread may use the connection
            self._ring.arrive(handshake.session, link)
            return True
        if (handshake.purpose == "reports") != (self._settings.party == 0):
            raise PartyError(
                f"{link.peer_at_start} opened a connection for {handshake.purpose}, which party "
                f"{self._settings.party} does not accept.",
                party=link.party,
            )
        accept_connection(link, parameters)
        self._queue.accept(link, handshake.session)
        return False

    def _serve_client(self, link: Link, parameters: Parameters) -> None:
        name = next((name for name in link.peer_names() if name in self._settings.clients), None)
        if name is None:
            refuse_connection(
                link, f"{link.peer_at_start} is not in the configuration of party {self._settings.party}."
            )
            return
        if not self._clients.acquire(blocking=False):
            refuse_connection(
                link,
                f"Party {self._settings.party} already serves {self._settings.max_connections} clients "
                "(max_connections).",
            )
            return
        try:
            accept_connection(
                link,
                parameters,
                max_request_bytes=self._settings.max_request_bytes,
                max_comparisons=self._settings.max_comparisons,
                timeout_s=self._settings.timeout_s,
            )
            _log.info("client %s connected", name)
            self._client_handler.serve(link, name)
        finally:
            self._clients.release()


def _compile_kernels(point: FixedPoint) -> None:
    """Compile all kernels before the first query."""
    with ThreePartyMatcher(np.eye(2), values=point.values) as matcher:
        matcher.verify(np.eye(2), matcher.subjects, threshold=0.5)
        matcher.identify(np.eye(2), threshold=0.5)


def _listening(address: tuple[str, int]) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StorageError(
            f"Cannot listen at {address[0]}:{address[1]}: {error.strerror or error}. Change `listen` if needed."
        ) from error
