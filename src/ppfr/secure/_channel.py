"""What the engine needs of a network: a ring in which every party sends to the one before it."""

from __future__ import annotations

import queue
from typing import Protocol, TypeAlias, final

from ppfr.core import PartyError

NUM_PARTIES = 3
Buffer: TypeAlias = bytes | bytearray | memoryview


class Channel(Protocol):
    """A party's two connections: to the previous party, which it sends to, and from the next, which it hears.

    Every message of the protocol goes this way, and its length follows from the query alone, never from what is shared;
    so that a message carries no header: the receiver knows how much to ask for.
    """

    def send(self, data: Buffer) -> None:
        """Hand a message to the connection to the previous party; must not wait for the receiver.

        The sender does not change the buffer afterwards, so that a channel need not copy it.
        """
        ...

    def receive(self, num_bytes: int) -> Buffer:
        """The next message of the next party.

        Raises:
            PartyError: names the party that is gone, late, or sent a message of another length.
        """
        ...

    def close(self) -> None:
        """Give up: whoever waits for this party learns of it at once."""
        ...


@final
class InMemoryChannel:
    """Queues between three parties in one process, for tests, measurements and servers of one operator.

    Args:
        index: the party's, 0..2.
        inboxes: the three parties' queues.
        timeout_s: how long a party waits for a message.
    """

    def __init__(self, index: int, inboxes: list[queue.SimpleQueue[Buffer | None]], *, timeout_s: float) -> None:
        self._next = (index + 1) % NUM_PARTIES
        self._to_previous = inboxes[(index - 1) % NUM_PARTIES]
        self._inbox = inboxes[index]
        self._timeout_s = timeout_s

    @classmethod
    def ring(cls, *, timeout_s: float = 60.0) -> list[InMemoryChannel]:
        """Three connected channels."""
        inboxes: list[queue.SimpleQueue[Buffer | None]] = [queue.SimpleQueue() for _ in range(NUM_PARTIES)]
        return [cls(index, inboxes, timeout_s=timeout_s) for index in range(NUM_PARTIES)]

    def send(self, data: Buffer) -> None:
        """Put a message into the previous party's queue."""
        self._to_previous.put(data)

    def receive(self, num_bytes: int) -> Buffer:
        """Take one from the own queue; errors as for `Channel`."""
        try:
            data = self._inbox.get(timeout=self._timeout_s)
        except queue.Empty:
            raise PartyError(
                f"party {self._next} sent nothing for {self._timeout_s} s; see whether it is up, then ask again",
                party=self._next,
            ) from None
        if data is None:
            raise PartyError(f"party {self._next} gave up; its own error says why", party=self._next)
        if len(data) != num_bytes:
            raise PartyError(
                f"party {self._next} sent {len(data)} bytes where the protocol has {num_bytes}; "
                "all parties must run the same version on the same query",
                party=self._next,
            )
        return data

    def close(self) -> None:
        """Tell the previous party that nothing follows."""
        self._to_previous.put(None)
