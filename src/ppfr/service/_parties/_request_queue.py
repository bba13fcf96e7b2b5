"""Request ordering: party 0 assigns a sequence number once all three parties have received a request.

Parties 1 and 2 dial party 0 and report on this connection ("request received", "request executed"). Party 0 dials back
and sends commands on that connection ("execute the request under number 7"). Each connection is written by one side
only. An idle connection carries heartbeats, so that silence means a failure.

This file contains what both sides share. Party 0 is the `Sequencer`, parties 1 and 2 are `Follower`s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ppfr.core import PartyError, PpfrError
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import MalformedError, Message, id_from_hex
from ppfr.service._parties._requests import Request

MAX_IDS = 500
_MAX_HEARTBEAT_S = 5.0
_MAX_REASON_CHARS = 2000
Dial = Callable[[int, str], Link]
"""Connects to a party (index), under a session id or token, and performs the handshake."""


class RequestQueue(Protocol):
    """Where a party's client handler submits requests for execution by all three parties."""

    def ready(self, request: Request) -> None:
        """Submit a request that is valid and pending at this party.

        Raises:
            PartyError: party 0 cannot be reached.
        """
        ...

    def refused(self, request_id: bytes, reason: str, *, is_change: bool) -> None:
        """Announce that this party refused a request, so that no other party waits for it."""
        ...

    def problem(self) -> str:
        """Why requests cannot be executed now; empty if they can."""
        ...

    def accept(self, link: Link, session: str) -> None:
        """Serve a connection of another party until it ends."""
        ...

    def start(self) -> None:
        """Start the threads."""
        ...

    def close(self) -> None:
        """Close the connections and stop the threads."""
        ...


def heartbeat_interval_s(timeout_s: float) -> float:
    """Seconds between heartbeats on an idle connection."""
    return min(timeout_s / 4, _MAX_HEARTBEAT_S)


def error_fields(error: BaseException) -> dict[str, Any]:
    """An error as message fields. The text of an unexpected exception is left out: it could contain anything."""
    reason = str(error) if isinstance(error, PpfrError) else f"Internal error ({type(error).__name__})."
    return {"reason": reason[:_MAX_REASON_CHARS], "party": getattr(error, "party", None)}


def error_from(message: Message) -> PartyError:
    """The inverse of `error_fields`."""
    party = message.fields.get("party")
    return PartyError(str(message.fields.get("reason")), party=party if isinstance(party, int) else None)


def ids_to_hex(ids: list[bytes]) -> list[str]:
    """Ids as a message field. At most `MAX_IDS` fit into a message; the others follow in the next session."""
    return [one.hex() for one in ids[:MAX_IDS]]


def ids_from(message: Message, name: str) -> list[bytes]:
    """The inverse of `ids_to_hex`.

    Raises:
        MalformedError: not a list of ids.
    """
    given = message.fields.get(name)
    if not isinstance(given, list):
        raise MalformedError(f"Field {name!r} is not a list of ids.")
    return [id_from_hex(str(one)) for one in given]
