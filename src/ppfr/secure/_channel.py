"""The network interface of the engine: a ring in which every party sends to the previous one."""

from __future__ import annotations

import queue
from typing import Protocol, TypeAlias, final

from ppfr.core import PartyError

NUM_PARTIES = 3
Buffer: TypeAlias = bytes | bytearray | memoryview


class Channel(Protocol):
    """A party's two connections: it sends to the previous party and receives from the next one.

    All messages of the protocol use these connections. The length of a message follows from the query alone, never from
    shared values. Messages therefore have no header: the receiver knows how many bytes to expect.
    """

    def send(self, data: Buffer) -> None:
        """Send a message to the previous party without waiting for the receiver.

        The sender does not change the buffer afterwards, so a channel need not copy it.
        """
        ...

    def receive(self, num_bytes: int) -> Buffer:
        """Return the next message from the next party.

        Raises:
            PartyError: the party disconnected, timed out, or sent a message of another length; the error names it.
        """
        ...

    def close(self) -> None:
        """Close the connection; a party that waits for this one gets an error at once."""
        ...


@final
class InMemoryChannel:
    """Queues between three parties in one process, for tests and measurements.

    Args:
        index: of the party, 0..2.
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
        """Put a message into the queue of the previous party."""
        self._to_previous.put(data)

    def receive(self, num_bytes: int) -> Buffer:
        """Take the next message from the own queue. Raises as `Channel.receive`."""
        try:
            data = self._inbox.get(timeout=self._timeout_s)
        except queue.Empty:
            raise PartyError(
                f"Party {self._next} sent nothing for {self._timeout_s} s. Check that it runs, then repeat the query.",
                party=self._next,
            ) from None
        if data is None:
            raise PartyError(
                f"Party {self._next} closed the connection. See its error for the cause.", party=self._next
            )
        if len(data) != num_bytes:
            raise PartyError(
                f"Party {self._next} sent {len(data)} bytes, expected {num_bytes}. "
                "All parties must run the same version on the same query.",
                party=self._next,
            )
        return data

    def close(self) -> None:
        """Signal the end of messages to the previous party."""
        self._to_previous.put(None)
