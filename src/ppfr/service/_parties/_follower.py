"""Request queue of parties 1 and 2: report received requests to party 0 and execute its commands."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
import time
from typing import Any, final

from ppfr.core import PartyError, PpfrError
from ppfr.service._parties._links import Link, Sender
from ppfr.service._parties._messages import MalformedError, Message
from ppfr.service._parties._node import PartyNode
from ppfr.service._parties._request_queue import (
    Dial,
    error_fields,
    error_from,
    heartbeat_interval_s,
    ids_from,
    ids_to_hex,
)
from ppfr.service._parties._requests import Request
from ppfr.service._parties._supervision import start_thread

_log = logging.getLogger("ppfr.party")
_RETRY_S = 0.2


@final
class Follower:
    """The request queue of party 1 or 2; see `RequestQueue`.

    Args:
        party: 1 or 2.
        node: executes requests.
        dial: connects to party 0 for reports, under a token.
        timeout_s: silence after which party 0 counts as lost.
    """

    def __init__(self, party: int, node: PartyNode, dial: Dial, *, timeout_s: float) -> None:
        self._party, self._node, self._dial, self._timeout_s = party, node, dial, timeout_s
        self._commands: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._reports: Sender | None = None
        self._token = ""
        self._command_link: Link | None = None
        self._problem = "Party 0 is not connected yet."
        self._in_session = False
        self._is_closed = False

    def start(self) -> None:
        """Start to connect to party 0 and to execute its commands."""
        start_thread("reports", self._keep_connected)
        start_thread("commands", self._execute_commands)

    def ready(self, request: Request) -> None:
        """See `RequestQueue.ready`."""
        self._report(
            {
                "type": "ready",
                "id": request.request_id.hex(),
                "is_change": request.is_change,
                "client": request.client,
                "digest": request.digest().hex(),
            }
        )

    def refused(self, request_id: bytes, reason: str, *, is_change: bool) -> None:
        """See `RequestQueue.refused`; without a connection to party 0 there is nothing to announce."""
        with contextlib.suppress(PartyError):
            self._report({"type": "refused", "id": request_id.hex(), "reason": reason, "is_change": is_change})

    def problem(self) -> str:
        """See `RequestQueue.problem`."""
        with self._changed:
            return "" if self._in_session else self._problem

    def accept(self, link: Link, session: str) -> None:
        """Receive the commands of party 0 until the connection ends."""
        with self._changed:
            if session != self._token or link.party != 0:
                raise PartyError(
                    f"{link.peer_at_start} sends commands that party {self._party} did not request.", party=link.party
                )
            self._command_link = link
            self._changed.notify_all()
        try:
            while True:
                self._receive(link.receive(0))
        except PartyError as error:
            self._lose(link, error)
        except MalformedError as error:
            self._lose(link, link.protocol_error(str(error)))
        except Exception as error:
            self._lose(link, link.protocol_error(f"A command caused an internal error ({type(error).__name__})."))
            raise

    def close(self) -> None:
        """See `RequestQueue.close`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._disconnect()
        self._commands.put(None)

    def _keep_connected(self) -> None:
        self._disconnect()  # after an unexpected exception, a connection may be left
        while not self._is_closed:
            token = secrets.token_hex(16)
            with self._changed:
                self._token, self._command_link = token, None
            try:
                reports = Sender(self._dial(0, token), heartbeat_s=heartbeat_interval_s(self._timeout_s))
            except PpfrError as error:
                with self._changed:
                    self._problem = str(error)
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_S)
                continue
            with self._changed:
                self._reports = reports
                self._changed.wait_for(lambda: self._command_link is not None or self._is_closed, self._timeout_s)
                if self._command_link is not None:
                    _log.info("connected to party 0")
                    self._changed.wait_for(lambda: self._command_link is None or self._is_closed)
            self._disconnect()
            time.sleep(_RETRY_S)

    def _disconnect(self) -> None:
        with self._changed:
            reports, self._reports = self._reports, None
            command_link, self._command_link = self._command_link, None
        if reports is not None:
            reports.close()
        if command_link is not None:
            command_link.interrupt()

    def _lose(self, link: Link, error: PartyError) -> None:
        with self._changed:
            if self._command_link is not link:
                return
            self._command_link, self._in_session, self._problem = None, False, str(error)
            self._changed.notify_all()
        _log.warning("lost party 0: %s", error)
        self._node.leave()
        self._node.fail_pending(error)

    def _report(self, fields: dict[str, Any]) -> None:
        with self._changed:
            reports = self._reports
        if reports is None:
            raise PartyError(
                f"Party {self._party} has no connection to party 0. Repeat the request. Cause: {self._problem}", party=0
            )
        reports.send(Message(fields=fields))

    def _receive(self, message: Message) -> None:
        """Execute urgent commands at once and queue the others."""
        kind = message.text("type")
        if kind == "leave":
            with self._changed:
                self._in_session, self._problem = False, str(message.fields.get("reason"))
            self._node.leave()
        elif kind == "cancel":
            aborts = bool(message.fields.get("aborts"))
            try:
                self._node.cancel(message.id("id"), error_from(message), aborts=aborts)
            except PpfrError as error:
                _log.warning("failed type=cancel: %s", error)
        elif kind != "heartbeat":
            self._commands.put(message)

    def _execute_commands(self) -> None:
        while (message := self._commands.get()) is not None:
            try:
                reply = self._execute(message)
            except Exception as error:
                reply = {"type": "failed"} | error_fields(error)
                _log.warning("failed type=%s: %s", message.fields.get("type"), reply["reason"])
            with contextlib.suppress(PartyError):
                self._report(reply | {"reply_to": message.fields.get("serial")})

    def _execute(self, message: Message) -> dict[str, Any]:
        """Execute a command and return the reply."""
        kind = message.text("type")
        if kind == "prepare":
            refusal = self._node.prepare(message.id("id"), message.integer("number"), message.challenge())
            return {"type": "prepared", "refusal": None if refusal is None else error_fields(refusal)["reason"]}
        if kind == "run":
            self._node.run(message.id("id"), message.integer("number"), message.challenge())
            return {"type": "done"}
        if kind == "report_changes":
            states = self._node.states(ids_from(message, "ids"))
            return {"type": "changes", "states": states, "prepared": ids_to_hex(self._node.prepared_changes())}
        if kind == "settle":
            self._node.settle(ids_from(message, "commit"), ids_from(message, "abort"))
            return {"type": "settled"} | self._node.public_state()
        if kind == "join":
            self._node.join(message.text("session"))
            with self._changed:
                self._in_session = True
            return {"type": "joined"}
        raise MalformedError(f"Unknown command {kind[:20]!r}.")
