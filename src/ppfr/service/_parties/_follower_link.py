"""Party 0's connections to a follower."""

from __future__ import annotations

import queue
import time
from typing import Any, final

from ppfr.core import PartyError
from ppfr.service._parties._links import Link, Sender
from ppfr.service._parties._messages import Message
from ppfr.service._parties._request_queue import error_from


@final
class FollowerLink:
    """The two connections to a follower: commands are written to one, reports are read from the other."""

    def __init__(self, party: int, commands: Sender, reports: Link, timeout_s: float) -> None:
        self.party = party
        self._commands, self._reports, self._timeout_s = commands, reports, timeout_s
        self._replies: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._serial = 0

    def command(self, fields: dict[str, Any]) -> None:
        """Send a command that the follower replies to."""
        self._serial += 1
        self._commands.send(Message(fields=fields | {"serial": self._serial}))

    def notify(self, fields: dict[str, Any]) -> None:
        """Send a command without a reply."""
        self._commands.send(Message(fields=fields))

    def add_reply(self, message: Message) -> None:
        self._replies.put(message)

    def reply(self, kind: str, *, more_s: float = 0.0) -> Message:
        """Wait for the reply to the latest command, `more_s` longer than for others.

        Raises:
            PartyError: the command failed there, or no reply arrived in time; names the party.
        """
        limit_s = self._timeout_s + more_s
        deadline = time.monotonic() + limit_s
        while True:
            try:
                message = self._replies.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.disconnect()
                raise PartyError(
                    f"Party {self.party} did not execute a command within {limit_s:g} s. Check that it runs, "
                    "then repeat the request.",
                    party=self.party,
                ) from None
            if message.fields.get("reply_to") != self._serial:
                continue
            if message.fields.get("type") == "failed":
                raise error_from(message)
            if message.fields.get("type") != kind:
                raise self._reports.protocol_error(f"Expected a reply of type {kind!r}.")
            return message

    def disconnect(self) -> None:
        self._commands.close()
        self._reports.interrupt()
