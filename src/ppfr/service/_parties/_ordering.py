"""Who does what when: party 0 numbers what clients ask, once all three parties have it; parties 1 and 2 follow.

Each of parties 1 and 2 dials party 0 to report ("this request is here", "done"), and party 0 dials back to order ("do
it as number 7"). A connection is written by one side alone, and where there is nothing to say an empty message is sent
now and then, so that silence means trouble. This file has what both sides share and the following side.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, final

from ppfr.core import PartyError, PpfrError
from ppfr.service._parties._links import Link, Sender
from ppfr.service._parties._member import Member
from ppfr.service._parties._messages import MalformedError, Message, identity_of

_log = logging.getLogger("ppfr.party")
_RETRY_S = 0.2
_LONGEST_BEAT_S = 5.0
MOST_IDS = 500
Dial = Callable[[int, str], Link]


class Desk(Protocol):
    """Where a party's clients' requests go once the party has them."""

    def ready(self, request_id: bytes, *, is_change: bool) -> None:
        """A request is here, checked and, if it is a change, on disk.

        Raises:
            PartyError: party 0 cannot be told.
        """
        ...

    def refused(self, request_id: bytes, why: str, *, is_change: bool) -> None:
        """A request was refused here, so that no other party waits for it."""
        ...

    def trouble(self) -> str:
        """Why nothing can be computed now; empty where it can."""
        ...

    def accept(self, link: Link, session: str) -> None:
        """Serve a connection of another party until it ends."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def close(self) -> None:
        """End."""
        ...


def beat_of(timeout_s: float) -> float:
    """How often an idle connection says that it is alive."""
    return min(timeout_s / 4, _LONGEST_BEAT_S)


def error_fields(error: BaseException) -> dict[str, Any]:
    """An error as it is sent; what is no error of ours is not told in words."""
    why = str(error) if isinstance(error, PpfrError) else f"an internal error ({type(error).__name__})"
    return {"why": why[:2000], "party": getattr(error, "party", None)}


def error_from(message: Message) -> PartyError:
    """The inverse of `error_fields`."""
    party = message.fields.get("party")
    return PartyError(str(message.fields.get("why")), party=party if isinstance(party, int) else None)


@final
class Follower:
    """Party 1's or 2's side.

    Args:
        party: 1 or 2.
        member: its work.
        dial: makes a greeted connection to party 0 for reports, under a token.
        timeout_s: how long silence is borne.
    """

    def __init__(self, party: int, member: Member, dial: Dial, *, timeout_s: float) -> None:
        self._party, self._member, self._dial, self._timeout_s = party, member, dial, timeout_s
        self._orders: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._reports: Sender | None = None
        self._token = ""
        self._ordered_by: Link | None = None
        self._trouble = "party 0 is not connected yet"
        self._in_session = False
        self._is_closed = False

    def start(self) -> None:
        """Begin to dial party 0, and to do what it orders."""
        for work in (self._keep_connected, self._follow):
            threading.Thread(target=work, name=f"ppfr-{work.__name__}", daemon=True).start()

    def ready(self, request_id: bytes, *, is_change: bool) -> None:
        """Report; errors as for `Desk`."""
        self._report({"do": "ready", "id": request_id.hex(), "is_change": is_change})

    def refused(self, request_id: bytes, why: str, *, is_change: bool) -> None:
        """Report; where party 0 is gone there is nobody to tell."""
        with contextlib.suppress(PartyError):
            self._report({"do": "refused", "id": request_id.hex(), "why": why, "is_change": is_change})

    def trouble(self) -> str:
        """As `Desk`."""
        with self._changed:
            return "" if self._in_session else self._trouble

    def accept(self, link: Link, session: str) -> None:
        """Take party 0's orders until the connection ends."""
        with self._changed:
            if session != self._token or link.party != 0:
                raise PartyError(f"{link.peer} gives orders that party {self._party} did not ask for", party=link.party)
            self._ordered_by = link
            self._changed.notify_all()
        try:
            while True:
                self._hear(link.receive(0))
        except PartyError as error:
            self._lose(link, error)
        except MalformedError as error:
            self._lose(link, link.babbles(str(error)))

    def close(self) -> None:
        """End: connections, threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._drop()
        self._orders.put(None)

    def _keep_connected(self) -> None:
        while not self._is_closed:
            token = secrets.token_hex(16)
            with self._changed:
                self._token, self._ordered_by = token, None
            try:
                reports = Sender(self._dial(0, token), beat_s=beat_of(self._timeout_s))
            except PartyError as error:
                with self._changed:
                    self._trouble = str(error)
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_S)
                continue
            with self._changed:
                self._reports = reports
                self._changed.wait_for(lambda: self._ordered_by is not None or self._is_closed, self._timeout_s)
                if self._ordered_by is not None:
                    _log.info("connected to party 0")
                    self._changed.wait_for(lambda: self._ordered_by is None or self._is_closed)
            self._drop()
            time.sleep(_RETRY_S)

    def _drop(self) -> None:
        with self._changed:
            reports, self._reports = self._reports, None
            ordered_by, self._ordered_by = self._ordered_by, None
        if reports is not None:
            reports.close()
        if ordered_by is not None:
            ordered_by.interrupt()

    def _lose(self, link: Link, error: PartyError) -> None:
        with self._changed:
            if self._ordered_by is not link:
                return
            self._ordered_by, self._in_session, self._trouble = None, False, str(error)
            self._changed.notify_all()
        _log.warning("lost party 0: %s", error)
        self._member.leave()
        self._member.give_up(error)

    def _report(self, fields: dict[str, Any]) -> None:
        with self._changed:
            reports = self._reports
        if reports is None:
            raise PartyError(f"party {self._party} cannot reach party 0 ({self._trouble}); ask again", party=0)
        reports.send(Message(fields=fields))

    def _hear(self, message: Message) -> None:
        """What cannot wait for what is under way is done at once, the rest in its order."""
        do = message.text("do")
        if do == "leave":
            with self._changed:
                self._in_session, self._trouble = False, str(message.fields.get("why"))
            self._member.leave()
        elif do == "cancel":
            aborts = bool(message.fields.get("aborts"))
            with _logged("cancel"):
                self._member.cancel(message.identity("id"), error_from(message), aborts=aborts)
        elif do != "beat":
            self._orders.put(message)

    def _follow(self) -> None:
        while (message := self._orders.get()) is not None:
            try:
                told = self._done(message)
            except Exception as error:
                told = {"do": "failed"} | error_fields(error)
                _log.warning("failed do=%s: %s", message.fields.get("do"), told["why"])
            with contextlib.suppress(PartyError):
                self._report(told | {"to": message.fields.get("serial")})

    def _done(self, message: Message) -> dict[str, Any]:
        do = message.text("do")
        if do == "run":
            self._member.run(message.identity("id"), message.integer("number"))
            return {"do": "done"}
        if do == "tell":
            asked = ids_of(message, "ids")
            return {"do": "told", "states": self._member.states(asked), "pending": hexes(self._member.pending())}
        if do == "settle":
            self._member.settle(ids_of(message, "commit"), ids_of(message, "abort"))
            return {"do": "settled", "digest": self._member.gallery().digest}
        if do == "join":
            self._member.join(message.text("session"))
            with self._changed:
                self._in_session = True
            return {"do": "joined"}
        raise MalformedError(f"{do[:20]!r} is no order")


def hexes(ids: list[bytes]) -> list[str]:
    """Ids as they are sent, as many as a message holds; the others' turn comes with the next session."""
    return [one.hex() for one in ids[:MOST_IDS]]


def ids_of(message: Message, name: str) -> list[bytes]:
    """The inverse of `hexes`.

    Raises:
        MalformedError: no ids.
    """
    given = message.fields.get(name)
    if not isinstance(given, list):
        raise MalformedError(f"{name} is no list")
    return [identity_of(str(one)) for one in given]


@contextlib.contextmanager
def _logged(what: str) -> Any:
    try:
        yield
    except PpfrError as error:
        _log.warning("failed do=%s: %s", what, error)
