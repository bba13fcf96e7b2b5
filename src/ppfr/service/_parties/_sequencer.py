"""Request queue of party 0: assigns sequence numbers to requests and starts the sessions of the three parties."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, final

from ppfr.core import InvalidInputError, PartyError, PpfrError
from ppfr.secure import CHALLENGE_BYTES, NUM_PARTIES, State, settle
from ppfr.service._parties._follower_link import FollowerLink
from ppfr.service._parties._links import Link, Sender
from ppfr.service._parties._messages import MalformedError, Message, id_from_hex
from ppfr.service._parties._node import PartyNode
from ppfr.service._parties._request_queue import (
    MAX_IDS,
    Dial,
    error_fields,
    heartbeat_interval_s,
    ids_from,
    ids_to_hex,
)
from ppfr.service._parties._requests import Request
from ppfr.service._parties._supervision import start_thread

_log = logging.getLogger("ppfr.party")
_FOLLOWERS = range(1, NUM_PARTIES)
_RETRY_S, _CHECK_S = 0.3, 0.25


@dataclasses.dataclass(slots=True)
class _Waiting:
    """A request that not all parties have received yet.

    Attributes:
        is_change: whether it changes the gallery.
        client: name in the client's certificate.
        digest: of the request's public content, as the first party reported it.
        since_s: time of the first report, on the clock of `time.monotonic`.
        received_by: parties that have received it.
    """

    is_change: bool
    client: str
    digest: str
    since_s: float
    received_by: set[int]


@final
class Sequencer:
    """The request queue of party 0; see `RequestQueue`.

    Args:
        node: executes party 0's part of requests.
        dial: connects to a follower for commands, under the token that it reported with.
        timeout_s: time limit until all parties have received a request; silence after which a follower counts as lost.
    """

    def __init__(self, node: PartyNode, dial: Dial, *, timeout_s: float) -> None:
        self._node, self._dial, self._timeout_s = node, dial, timeout_s
        self._changed = threading.Condition()
        self._followers: dict[int, FollowerLink] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._next: collections.deque[bytes] = collections.deque()
        self._problem: str = "Parties 1 and 2 are not connected yet."
        self._is_up = self._is_closed = False
        self._number = 0

    def start(self) -> None:
        """Start to execute requests."""
        start_thread("sequencer", self._work)

    def ready(self, request: Request) -> None:
        """See `RequestQueue.ready`."""
        self._ready(
            0,
            request.request_id,
            is_change=request.is_change,
            client=request.client,
            digest=request.digest().hex(),
        )

    def refused(self, request_id: bytes, reason: str, *, is_change: bool) -> None:
        """See `RequestQueue.refused`."""
        self._refused(0, request_id, reason, is_change=is_change)

    def problem(self) -> str:
        """See `RequestQueue.problem`."""
        with self._changed:
            return "" if self._is_up else self._problem

    def accept(self, link: Link, session: str) -> None:
        """Receive the reports of party 1 or 2 until the connection ends."""
        party = link.party
        if party is None or party not in _FOLLOWERS:
            raise PartyError(f"{link.peer_at_start} must not report to party 0.", party=party)
        commands = Sender(self._dial(party, session), heartbeat_s=heartbeat_interval_s(self._timeout_s))
        follower = FollowerLink(party, commands, link, self._timeout_s)
        with self._changed:
            before, self._followers[party] = self._followers.get(party), follower
        if before is not None:
            self._lose(before, PartyError(f"Party {party} has reconnected.", party=party), is_replaced=True)
        _log.info("connected to party %d", party)
        with self._changed:
            self._changed.notify_all()
        try:
            while True:
                self._receive(follower, link.receive(0))
        except PartyError as error:
            self._lose(follower, error)
        except MalformedError as error:
            self._lose(follower, link.protocol_error(str(error)))
        except Exception as error:
            self._lose(follower, link.protocol_error(f"A report caused an internal error ({type(error).__name__})."))
            raise

    def close(self) -> None:
        """See `RequestQueue.close`."""
        with self._changed:
            self._is_closed = True
            followers, self._followers = list(self._followers.values()), {}
            self._changed.notify_all()
        for follower in followers:
            follower.disconnect()

    def _receive(self, follower: FollowerLink, message: Message) -> None:
        kind = message.text("type")
        if kind == "ready":
            self._ready(
                follower.party,
                message.id("id"),
                is_change=bool(message.fields.get("is_change")),
                client=message.text("client"),
                digest=message.text("digest"),
            )
        elif kind == "refused":
            is_change = bool(message.fields.get("is_change"))
            self._refused(follower.party, message.id("id"), message.text("reason"), is_change=is_change)
        elif kind != "heartbeat":
            follower.add_reply(message)

    def _ready(self, party: int, request_id: bytes, *, is_change: bool, client: str, digest: str) -> None:
        """Count a report. A request that differs between parties is refused before anything is computed with it."""
        with self._changed:
            first = _Waiting(is_change, client, digest, time.monotonic(), set())
            waiting = self._waiting.setdefault(request_id, first)
            if waiting.digest == digest:
                waiting.received_by.add(party)
                if len(waiting.received_by) == NUM_PARTIES:
                    self._next.append(request_id)
                    self._changed.notify_all()
                return
            others = sorted(waiting.received_by)
        _log.warning(
            "refused client=%s: other content at party %d than at %s (client=%s)", client, party, others, waiting.client
        )
        error = InvalidInputError(
            f"Client {client!r} sent party {party} another request than party {others[0]} under the same id. Nothing "
            "was executed. Check which program the client runs."
        )
        with self._changed:
            self._waiting.pop(request_id, None)
        self._cancel(request_id, error, is_change or waiting.is_change)

    def _refused(self, party: int, request_id: bytes, reason: str, *, is_change: bool) -> None:
        with self._changed:
            self._waiting.pop(request_id, None)
        self._cancel(request_id, PartyError(f"Party {party} refused the request. {reason}", party=party), is_change)

    def _cancel(self, request_id: bytes, error: PpfrError, aborts: bool) -> None:
        """Cancel a request at all parties, at party 0 first: its store decides about changes."""
        try:
            if not self._node.cancel(request_id, error, aborts=aborts):
                return
        except PpfrError as refusal:  # the change is settled at the start of the next session
            _log.warning("failed type=cancel: %s", refusal)
            self._node.cancel(request_id, error, aborts=False)
            aborts = False
        fields = {"type": "cancel", "id": request_id.hex(), "aborts": aborts} | error_fields(error)
        with self._changed:
            followers = list(self._followers.values())
        for follower in followers:
            follower.notify(fields)

    def _cancel_waiting(self, error: PpfrError) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, {}
        for request_id, one in waiting.items():
            self._cancel(request_id, error, one.is_change)

    def _lose(self, follower: FollowerLink, error: PartyError, *, is_replaced: bool = False) -> None:
        with self._changed:
            if not is_replaced and self._followers.get(follower.party) is not follower:
                return
            if not is_replaced:
                del self._followers[follower.party]
            self._is_up, self._problem = False, str(error)
        _log.warning("lost party %d: %s", follower.party, error)
        follower.disconnect()
        self._node.leave()
        self._cancel_waiting(error)

    def _work(self) -> None:
        """Start sessions and execute requests, one at a time."""
        not_before = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or (self._is_up and bool(self._next)), self._check_s())
                if self._is_closed:
                    return
                followers = [self._followers[party] for party in _FOLLOWERS if party in self._followers]
                is_up = self._is_up
                request_id = self._next.popleft() if is_up and self._next else None
                waiting = None if request_id is None else self._waiting.pop(request_id, None)
            self._expire()
            if not is_up and len(followers) == len(_FOLLOWERS) and time.monotonic() >= not_before:
                self._try(followers, self._start_session, followers)
                not_before = time.monotonic() + _RETRY_S
            elif request_id is not None and waiting is not None:
                self._try(followers, self._run, followers, request_id, waiting.is_change)

    def _check_s(self) -> float:
        return _CHECK_S if self._is_up else _RETRY_S / 6

    def _expire(self) -> None:
        """Cancel requests that have waited longer than the time-out."""
        now_s = time.monotonic()
        with self._changed:
            expired = [(i, w) for i, w in self._waiting.items() if now_s - w.since_s > self._timeout_s]
            for request_id, _ in expired:
                del self._waiting[request_id]
            problem = "" if self._is_up else self._problem
        for request_id, waiting in expired:
            missing = sorted(set(range(NUM_PARTIES)) - waiting.received_by)
            error = (
                PartyError(f"Party {missing[0]} did not receive the request. Repeat it.", party=missing[0])
                if missing
                else PartyError(
                    f"The request timed out before it was executed. {problem or 'Earlier requests took too long.'} "
                    "Repeat it."
                )
            )
            self._cancel(request_id, error, waiting.is_change)

    def _try(self, followers: list[FollowerLink], action: Callable[..., None], *arguments: Any) -> None:
        """Run an action; a failure ends the session at all parties."""
        try:
            action(*arguments)
        except Exception as error:
            fields = error_fields(error)
            _log.warning("session ended: %s", fields["reason"])
            with self._changed:
                # The loss of a follower is a better explanation than an error that follows from it.
                if self._is_up or fields["party"] not in _FOLLOWERS or fields["party"] in self._followers:
                    self._problem = fields["reason"]
                self._is_up = False
            self._node.leave()
            for follower in followers:
                with contextlib.suppress(PpfrError):
                    follower.notify({"type": "leave", "reason": fields["reason"]})

    def _run(self, followers: list[FollowerLink], request_id: bytes, is_change: bool) -> None:
        """Execute a request at all parties."""
        if is_change and not self._prepare(followers, request_id):
            return
        command = {"type": "run"} | self._head(request_id)
        number, challenge = command["number"], bytes.fromhex(command["challenge"])
        more_s = self._node.time_to_commit_s(request_id)
        if is_change:  # at party 0 first: its store decides
            try:
                self._node.run(request_id, number, challenge)
            except BaseException as error:
                for follower in followers:  # the change is settled at the start of the next session
                    follower.notify({"type": "cancel", "id": request_id.hex(), "aborts": False} | error_fields(error))
                raise
        for follower in followers:
            follower.command(command)
        if not is_change:
            self._node.run(request_id, number, challenge)
        for follower in followers:
            follower.reply("done", more_s=more_s)

    def _prepare(self, followers: list[FollowerLink], request_id: bytes) -> bool:
        """Have all parties check a change and prepare it on disk; False if one of them refuses it."""
        command = {"type": "prepare"} | self._head(request_id)
        for follower in followers:
            follower.command(command)
        refusal = self._node.prepare(request_id, command["number"], bytes.fromhex(command["challenge"]))
        problems = [] if refusal is None else [PartyError(f"Party 0 refused the request. {refusal}", party=0)]
        for follower in followers:
            reason = follower.reply("prepared").fields.get("refusal")
            if reason is not None:
                error = PartyError(f"Party {follower.party} refused the request. {reason}", party=follower.party)
                problems.append(error)
        if problems:
            self._cancel(request_id, problems[0], aborts=True)
        return not problems

    def _head(self, request_id: bytes) -> dict[str, Any]:
        """The fields of a command to execute something: the next number, and a challenge that no client can know."""
        number, self._number = self._number, self._number + 1
        return {"id": request_id.hex(), "number": number, "challenge": secrets.token_hex(CHALLENGE_BYTES)}

    def _start_session(self, followers: list[FollowerLink]) -> None:
        """Settle changes that an interrupted session left, compare galleries, and connect the ring.

        Raises:
            PpfrError: the session cannot start; names the party.
        """
        with self._changed:
            self._problem = "The parties are starting a new session."
        for follower in followers:
            follower.notify({"type": "leave", "reason": self._problem})
        self._node.leave()
        self._settle(followers)
        session = secrets.token_hex(16)
        for follower in followers:
            follower.command({"type": "join", "session": session})
        self._node.join(session)
        for follower in followers:
            follower.reply("joined")
        with self._changed:
            if any(self._followers.get(follower.party) is not follower for follower in followers):
                raise PartyError("A party disconnected while the session started.")
            self._is_up = True
            self._changed.notify_all()
        _log.info("session started, %d references", len(self._node.gallery().subjects))

    def _settle(self, followers: list[FollowerLink]) -> None:
        reports = self._reported_changes(followers, [])
        prepared = [
            *ids_to_hex(self._node.prepared_changes()),
            *(one for message in reports for one in message.fields["prepared"]),
        ]
        with (
            self._changed
        ):  # a request that a client still waits for is not a leftover: it is executed or refused later
            waiting = set(self._waiting)
        change_ids = [one for one in map(id_from_hex, dict.fromkeys(prepared)) if one not in waiting][:MAX_IDS]
        at_followers = [message.fields["states"] for message in self._reported_changes(followers, change_ids)]
        decided: dict[str, list[bytes]] = {"commit": [], "abort": []}
        for change_id, *states in zip(change_ids, self._node.states(change_ids), *at_followers, strict=True):
            decided[settle(states)].append(change_id)
        self._node.settle(decided["commit"], decided["abort"])
        if change_ids:
            _log.info("settled: %d committed, %d aborted", len(decided["commit"]), len(decided["abort"]))
        for follower in followers:
            follower.command(
                {"type": "settle", "commit": ids_to_hex(decided["commit"]), "abort": ids_to_hex(decided["abort"])}
            )
        own = self._node.public_state()
        for follower in followers:
            settled = follower.reply("settled")
            if settled.text("digest") != own["digest"]:
                raise PartyError(
                    f"Party {follower.party} has other references than party 0, or shares of another epoch: its store "
                    "is from another time, or of another gallery. Stop the parties and run `ppfr party repair` at each "
                    f"or, if its store has another epoch, `ppfr party rebuild` at party {follower.party}.",
                    party=follower.party,
                )
            if settled.fields.get("thresholds") != own["thresholds"]:
                raise PartyError(
                    f"Party {follower.party} has other hidden thresholds than party 0. Give all three parties the "
                    "files of one run of `ppfr party thresholds`.",
                    party=follower.party,
                )

    def _reported_changes(self, followers: list[FollowerLink], change_ids: list[bytes]) -> list[Message]:
        """The states of changes at the followers, and the ids of all changes that are prepared there."""
        for follower in followers:
            follower.command({"type": "report_changes", "ids": ids_to_hex(change_ids)})
        reports = [follower.reply("changes") for follower in followers]
        for message in reports:
            states: list[State] = message.fields.get("states", [])
            if len(states) != len(change_ids):
                raise MalformedError("The number of states differs from the number of changes.")
            ids_from(message, "prepared")
        return reports
