"""Party 0's side of the order: which request is next, and the sessions of the three."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import queue
import secrets
import threading
import time
from typing import Any, final

from ppfr.core import PartyError, PpfrError
from ppfr.secure._changes import State, settle
from ppfr.secure._channel import NUM_PARTIES
from ppfr.service._parties._links import Link, Sender
from ppfr.service._parties._member import Member
from ppfr.service._parties._messages import MalformedError, Message, identity_of
from ppfr.service._parties._ordering import MOST_IDS, Dial, beat_of, error_fields, error_from, hexes, ids_of

_log = logging.getLogger("ppfr.party")
_OTHERS = range(1, NUM_PARTIES)
_RETRY_S, _LOOK_S = 0.3, 0.25


@final
class _Other:
    """Party 1 or 2, as party 0 holds on to it."""

    def __init__(self, party: int, orders: Sender, reports: Link, timeout_s: float) -> None:
        self.party = party
        self._orders, self._reports, self._timeout_s = orders, reports, timeout_s
        self._replies: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._serial = 0

    def order(self, fields: dict[str, Any]) -> None:
        self._serial += 1
        self._orders.send(Message(fields=fields | {"serial": self._serial}))

    def tell(self, fields: dict[str, Any]) -> None:
        """An order that is not replied to."""
        self._orders.send(Message(fields=fields))

    def replied(self, message: Message) -> None:
        self._replies.put(message)

    def reply(self, do: str) -> Message:
        """To the latest order.

        Raises:
            PartyError: it failed there, or nothing came; names the party.
        """
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                message = self._replies.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.drop()
                raise PartyError(
                    f"party {self.party} did not do what was ordered for {self._timeout_s:g} s; see whether it is up, "
                    "then ask again",
                    party=self.party,
                ) from None
            if message.fields.get("to") != self._serial:
                continue
            if message.fields.get("do") == "failed":
                raise error_from(message)
            if message.fields.get("do") != do:
                raise self._reports.babbles("a reply is to another order")
            return message

    def drop(self) -> None:
        self._orders.close()
        self._reports.interrupt()


@dataclasses.dataclass(slots=True)
class _Waiting:
    """A request on its way: which parties have it."""

    is_change: bool
    since: float
    at: set[int]


@final
class Coordinator:
    """Numbers and orders; see `Desk` for what the party's own clients' connections call.

    Args:
        member: party 0's own work.
        dial: makes a greeted connection to a party for orders, under the token that it reported with.
        timeout_s: how long a request waits for all parties to have it, and silence is borne.
    """

    def __init__(self, member: Member, dial: Dial, *, timeout_s: float) -> None:
        self._member, self._dial, self._timeout_s = member, dial, timeout_s
        self._changed = threading.Condition()
        self._others: dict[int, _Other] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._next: collections.deque[bytes] = collections.deque()
        self._trouble: str = "parties 1 and 2 are not connected yet"
        self._is_up = self._is_closed = False
        self._number = 0

    def start(self) -> None:
        """Begin to order."""
        threading.Thread(target=self._work, name="ppfr-order", daemon=True).start()

    def ready(self, request_id: bytes, *, is_change: bool) -> None:
        """Party 0's own."""
        self._ready(0, request_id, is_change=is_change)

    def refused(self, request_id: bytes, why: str, *, is_change: bool) -> None:
        """Party 0's own."""
        self._refused(0, request_id, why, is_change=is_change)

    def trouble(self) -> str:
        """As `Desk`."""
        with self._changed:
            return "" if self._is_up else self._trouble

    def accept(self, link: Link, session: str) -> None:
        """Hear party 1's or 2's reports until the connection ends."""
        party = link.party
        if party is None or party not in _OTHERS:
            raise PartyError(f"{link.peer} does not report to party 0", party=party)
        other = _Other(
            party, Sender(self._dial(party, session), beat_s=beat_of(self._timeout_s)), link, self._timeout_s
        )
        with self._changed:
            before, self._others[party] = self._others.get(party), other
        if before is not None:
            self._lose(before, PartyError(f"party {party} connected anew", party=party), is_replaced=True)
        _log.info("connected to party %d", party)
        with self._changed:
            self._changed.notify_all()
        try:
            while True:
                self._hear(other, link.receive(0))
        except PartyError as error:
            self._lose(other, error)
        except MalformedError as error:
            self._lose(other, link.babbles(str(error)))

    def close(self) -> None:
        """End: connections, threads."""
        with self._changed:
            self._is_closed = True
            others, self._others = list(self._others.values()), {}
            self._changed.notify_all()
        for other in others:
            other.drop()

    def _hear(self, other: _Other, message: Message) -> None:
        do = message.text("do")
        if do == "ready":
            self._ready(other.party, message.identity("id"), is_change=bool(message.fields.get("is_change")))
        elif do == "refused":
            is_change = bool(message.fields.get("is_change"))
            self._refused(other.party, message.identity("id"), message.text("why"), is_change=is_change)
        elif do != "beat":
            other.replied(message)

    def _ready(self, party: int, request_id: bytes, *, is_change: bool) -> None:
        with self._changed:
            waiting = self._waiting.setdefault(request_id, _Waiting(is_change, time.monotonic(), set()))
            if waiting.is_change != is_change:
                raise PartyError(f"party {party} has another request under this id", party=party)
            waiting.at.add(party)
            if len(waiting.at) == NUM_PARTIES:
                self._next.append(request_id)
                self._changed.notify_all()

    def _refused(self, party: int, request_id: bytes, why: str, *, is_change: bool) -> None:
        with self._changed:
            self._waiting.pop(request_id, None)
        self._cancel(request_id, PartyError(f"party {party} refused the request: {why}", party=party), is_change)

    def _cancel(self, request_id: bytes, error: PpfrError, aborts: bool) -> None:
        """At party 0 first: what its store says decides."""
        try:
            if not self._member.cancel(request_id, error, aborts=aborts):
                return
        except PpfrError as refusal:  # what becomes of the change is settled with the next session
            _log.warning("failed do=cancel: %s", refusal)
            self._member.cancel(request_id, error, aborts=False)
            aborts = False
        fields = {"do": "cancel", "id": request_id.hex(), "aborts": aborts} | error_fields(error)
        with self._changed:
            others = list(self._others.values())
        for other in others:
            other.tell(fields)

    def _cancel_waiting(self, error: PpfrError) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, {}
        for request_id, one in waiting.items():
            self._cancel(request_id, error, one.is_change)

    def _lose(self, other: _Other, error: PartyError, *, is_replaced: bool = False) -> None:
        with self._changed:
            if not is_replaced and self._others.get(other.party) is not other:
                return
            if not is_replaced:
                del self._others[other.party]
            self._is_up, self._trouble = False, str(error)
        _log.warning("lost party %d: %s", other.party, error)
        other.drop()
        self._member.leave()
        self._cancel_waiting(error)

    def _work(self) -> None:
        not_before = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or (self._is_up and bool(self._next)), self._look_s())
                if self._is_closed:
                    return
                others = [self._others[party] for party in _OTHERS if party in self._others]
                is_up = self._is_up
                request_id = self._next.popleft() if is_up and self._next else None
                waiting = None if request_id is None else self._waiting.pop(request_id, None)
            self._expire()
            if not is_up and len(others) == len(_OTHERS) and time.monotonic() >= not_before:
                self._try(self._begin_session, others)
                not_before = time.monotonic() + _RETRY_S
            elif request_id is not None and waiting is not None:
                self._try(self._run, others, request_id, waiting.is_change)

    def _look_s(self) -> float:
        return _LOOK_S if self._is_up else _RETRY_S / 6

    def _expire(self) -> None:
        now = time.monotonic()
        with self._changed:
            late = [(i, w) for i, w in self._waiting.items() if now - w.since > self._timeout_s]
            for request_id, _ in late:
                del self._waiting[request_id]
            trouble = "" if self._is_up else self._trouble
        for request_id, waiting in late:
            missing = sorted(set(range(NUM_PARTIES)) - waiting.at)
            error = (
                PartyError(f"party {missing[0]} did not get the request; ask again", party=missing[0])
                if missing
                else PartyError(f"nothing was computed: {trouble or 'others were served before'}; ask again")
            )
            self._cancel(request_id, error, waiting.is_change)

    def _try(self, action: Any, others: list[_Other], *arguments: Any) -> None:
        """Do something with the others; a failure ends the session, and drops whoever did not answer."""
        try:
            action(others, *arguments)
        except Exception as error:
            told = error_fields(error)
            _log.warning("session ended: %s", told["why"])
            with self._changed:
                if self._is_up or told["party"] not in _OTHERS or told["party"] in self._others:
                    self._trouble = told["why"]
                self._is_up = False
            self._member.leave()
            for other in others:
                with contextlib.suppress(PpfrError):
                    other.tell({"do": "leave", "why": told["why"]})

    def _run(self, others: list[_Other], request_id: bytes, is_change: bool) -> None:
        number, self._number = self._number, self._number + 1
        order = {"do": "run", "id": request_id.hex(), "number": number}
        if is_change:  # party 0 first: what its store says decides
            try:
                self._member.run(request_id, number)
            except BaseException as error:
                for other in others:  # what becomes of the change is settled with the next session
                    other.tell({"do": "cancel", "id": request_id.hex(), "aborts": False} | error_fields(error))
                raise
        for other in others:
            other.order(order)
        if not is_change:
            self._member.run(request_id, number)
        for other in others:
            other.reply("done")

    def _begin_session(self, others: list[_Other]) -> None:
        """Settle what an interrupted session left, compare galleries, connect the ring.

        Raises:
            PpfrError: it did not come to that; names the party.
        """
        with self._changed:
            self._trouble = "the parties are agreeing on a new session"
        for other in others:
            other.tell({"do": "leave", "why": self._trouble})
        self._member.leave()
        self._settle(others)
        session = secrets.token_hex(16)
        for other in others:
            other.order({"do": "join", "session": session})
        self._member.join(session)
        for other in others:
            other.reply("joined")
        with self._changed:
            if any(self._others.get(other.party) is not other for other in others):
                raise PartyError("a party left while the session began")
            self._is_up = True
            self._changed.notify_all()
        _log.info("session begun, %d references", len(self._member.gallery().subjects))

    def _settle(self, others: list[_Other]) -> None:
        told = self._told(others, [])
        pending = [*hexes(self._member.pending()), *(one for message in told for one in message.fields["pending"])]
        with self._changed:  # what a client still waits for is no leftover: it is done or refused in its turn
            waiting = set(self._waiting)
        change_ids = [one for one in map(identity_of, dict.fromkeys(pending)) if one not in waiting][:MOST_IDS]
        theirs = [message.fields["states"] for message in self._told(others, change_ids)]
        ends: dict[str, list[bytes]] = {"commit": [], "abort": []}
        for change_id, *states in zip(change_ids, self._member.states(change_ids), *theirs, strict=True):
            ends[settle(states)].append(change_id)
        self._member.settle(ends["commit"], ends["abort"])
        if change_ids:
            _log.info("settled: %d committed, %d aborted", len(ends["commit"]), len(ends["abort"]))
        for other in others:
            other.order({"do": "settle", "commit": hexes(ends["commit"]), "abort": hexes(ends["abort"])})
        digest = self._member.gallery().digest
        for other in others:
            if other.reply("settled").text("digest") != digest:
                raise PartyError(
                    f"party {other.party} holds other references than party 0: its store is of another time or "
                    "gallery; restore all three from one time, or enrol again into three new ones",
                    party=other.party,
                )

    def _told(self, others: list[_Other], change_ids: list[bytes]) -> list[Message]:
        for other in others:
            other.order({"do": "tell", "ids": hexes(change_ids)})
        told = [other.reply("told") for other in others]
        for message in told:
            states: list[State] = message.fields.get("states", [])
            if len(states) != len(change_ids):
                raise MalformedError("states are not those that were asked for")
            ids_of(message, "pending")
        return told
