"""Process of a party: one share store, one listening socket, TLS to the other two parties and to clients."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any, final

import numpy as np

from ppfr.core import PartyError, PpfrError, StorageError
from ppfr.secure import FixedPoint, ThreePartyMatcher, bytes_per_input
from ppfr.service._parties._access import Access
from ppfr.service._parties._audit import AuditLog, refusal_class
from ppfr.service._parties._budgets import QueryBudgets
from ppfr.service._parties._client_handler import ClientHandler
from ppfr.service._parties._client_limits import ClientLimits, ClientPlaces, HandshakePlaces, LimitError
from ppfr.service._parties._follower import Follower
from ppfr.service._parties._handshake import (
    Handshake,
    Purpose,
    accept_connection,
    receive_handshake,
    refuse_connection,
    start_handshake,
)
from ppfr.service._parties._links import Link
from ppfr.service._parties._node import PartyNode
from ppfr.service._parties._request_queue import Dial, RequestQueue
from ppfr.service._parties._ring import Ring
from ppfr.service._parties._sequencer import Sequencer
from ppfr.service._parties._settings import EXPANSION, PartySettings
from ppfr.service._parties._stores import open_store
from ppfr.service._parties._supervision import ending_connection, start_thread

_log = logging.getLogger("ppfr.party")
_MAX_HANDSHAKE_S = 10.0
_BACKLOG = 128
_MAX_REFUSED = 2
_PAUSE_S = 0.1


@final
class PartyServer:
    """One of the three servers. It holds shares and learns neither embeddings, scores nor decisions.

    Use it as a context manager, or call `close`. It logs to "ppfr.party": names and addresses of peers; sequence
    numbers, kinds and durations of requests; errors. The log contains no share, subject or answer, and neither does the
    audit log.

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
        self._access = Access(settings)
        point = settings.parameters.fixed_point
        self._limits = ClientLimits(self._access.rights_of, row_bytes=bytes_per_input(point))
        self._handshakes = HandshakePlaces(settings.max_connections)
        self._places = ClientPlaces(settings.party, settings.max_connections)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            store = undo.enter_context(open_store(settings))
            self._ring = Ring(settings.party, self._dialler("ring"), timeout_s=settings.timeout_s)
            undo.callback(self._ring.close)
            self._node = PartyNode(settings, store, self._ring)
            self._queue = self._make_queue()
            undo.callback(self._queue.close)
            self._budgets = undo.enter_context(QueryBudgets(settings.budget_file, **_budgets_of(settings)))
            self._audit = AuditLog(settings.audit_log)
            undo.callback(self._audit.close)
            self._client_handler = ClientHandler(
                settings,
                self._node,
                self._queue,
                self._budgets,
                access=self._access,
                limits=self._limits,
                audit=self._audit,
            )
            self._node.gallery()  # a damaged store is reported now
            self._listener = undo.enter_context(_listening(settings.listen))
            self._stack = undo.pop_all()
        self._is_closed = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the listening socket."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Listen, and connect to the other parties, in background threads."""
        _log.info("party %d listens at %s:%d", self._settings.party, *self.address)
        start_thread("accept", self._accept)
        self._queue.start()

    def reload(self, config: Path) -> None:
        """Read the configuration again: clients with their rights and limits, and revoked certificates.

        An invalid configuration is logged, and the one in force stays. The audit log is opened again in any case.
        """
        try:
            self._audit.reopen()
        except StorageError as error:
            _log.error("the audit log is continued in the old file: %s", error)
        try:
            settings = PartySettings.read(config)
        except (PpfrError, OSError) as error:
            _log.error("the configuration is not reloaded, the one in force stays: %s", error)
            return
        try:
            self._budgets.set_limits(**_budgets_of(settings))
        except PpfrError as error:
            _log.error("the configuration is not reloaded, the one in force stays: %s", error)
            return
        self._access.replace(settings)
        _log.info(
            "reloaded the configuration: %d clients, %d revoked certificates",
            len(settings.clients),
            len(settings.revoked),
        )

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
                refusal = self._access.admit(link)
                if refusal is not None:
                    raise refusal
                start_handshake(link, purpose, self._settings.parameters, session=session)
            except BaseException:
                link.close()
                raise
            return link

        return dial

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                plain, (host, *_) = self._listener.accept()
            except OSError as error:
                if self._is_closed:
                    return
                _log.warning("cannot accept connections: %s", error.strerror or type(error).__name__)
                time.sleep(_PAUSE_S)  # such as too many open files
                continue
            if not self._handshakes.begin(host):
                plain.close()
                continue
            try:
                threading.Thread(target=self._handle, args=(plain, host), name="ppfr-connection", daemon=True).start()
            except BaseException:  # such as too many threads
                self._handshakes.end(host)
                plain.close()
                raise

    def _handle(self, plain: socket.socket, host: str) -> None:
        """Serve one connection until it ends; every exception of the connection ends here."""
        with (
            contextlib.ExitStack() as closing,
            ending_connection(f"connection from {host}"),  # logs the reason before the peer sees the end
            contextlib.ExitStack() as in_handshake,
        ):
            closing.callback(plain.close)
            in_handshake.callback(self._handshakes.end, host)
            link = self._secured(plain)
            closing.callback(link.close)
            refusal = self._access.admit(link)
            if link.party is None or refusal is not None:
                in_handshake.close()  # from here on, the limits of the client apply
                self._serve_client(link, refusal)
                return
            handshake = receive_handshake(link, self._settings.parameters)
            in_handshake.close()
            if self._serve_party(link, handshake):
                closing.pop_all()

    def _secured(self, plain: socket.socket) -> Link:
        """Perform the TLS handshake of a new connection."""
        plain.settimeout(min(self._settings.timeout_s, _MAX_HANDSHAKE_S))
        connection = self._server_context.wrap_socket(plain, server_side=True)
        link = Link(connection, peer="a peer", party=None, timeout_s=self._settings.timeout_s)
        self._access.name(link)
        return link

    def _serve_party(self, link: Link, handshake: Handshake) -> bool:
        """Serve a connection of a party; return True at once if the ring takes it over, else False when it ends."""
        parameters = self._settings.parameters
        if handshake.purpose == "client":
            refuse_connection(link, f"{link.peer_at_start} is a party, not a client.")
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

    def _serve_client(self, link: Link, refusal: PpfrError | None) -> None:
        """Serve a connection of a client, or refuse it with a reason."""
        client = self._access.client_of(link)
        if client is None or refusal is not None:  # must not use the places of a client
            counted_as, max_connections = link.fingerprint, _MAX_REFUSED
        else:
            counted_as, max_connections = client, self._access.rights_of(client).max_connections
        with contextlib.ExitStack() as stack:
            try:
                limit = stack.enter_context(self._limits.connection(counted_as, max_connections))
            except LimitError as error:
                self._record_refused(link, error)
                raise
            handshake = receive_handshake(link, self._settings.parameters)
            if refusal is None and handshake.purpose != "client":
                refusal = PartyError(f"{link.peer_at_start} is not a party of this gallery.")
            refusal = refusal or limit or stack.enter_context(self._places.taken())
            if refusal is not None or client is None:
                self._record_refused(link, refusal)
                refuse_connection(link, str(refusal))
                return
            rights = self._access.rights_of(client)
            accept_connection(
                link,
                self._settings.parameters,
                max_request_bytes=min(self._settings.max_request_bytes, rights.max_bytes_in_flight // EXPANSION),
                max_comparisons=self._settings.max_comparisons,
                timeout_s=self._settings.timeout_s,
                idle_s=rights.idle_s,
            )
            _log.info("client %s connected", client)
            self._client_handler.serve(link, client)

    def _record_refused(self, link: Link, error: PpfrError | None) -> None:
        _log.warning("refused %s fingerprint=%s: %s", link.peer, link.fingerprint, error)
        name = next(iter(link.names), "")
        self._audit.record("connect", client=name, fingerprint=link.fingerprint, refusal=refusal_class(error))


def _budgets_of(settings: PartySettings) -> dict[str, Any]:
    return {
        "clients": {name: rights.budget_bits for name, rights in settings.clients.items()},
        "per_subject": settings.subject_budget_bits,
        "searches": settings.search_budget_bits,
    }


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
