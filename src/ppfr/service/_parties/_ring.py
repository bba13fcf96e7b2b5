"""A session of the three parties: two TLS connections of a ring at each, and the keys agreed over them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

from ppfr.core import PartyError
from ppfr.secure._channel import NUM_PARTIES, Buffer
from ppfr.secure._keystream import PairwiseKeys
from ppfr.service._parties._links import Link, Sender


@final
class TlsChannel:
    """A party's two connections: one that it writes to the previous party, one that it reads from the next.

    Args:
        to_previous: its writer's thread.
        from_next: the connection that the next party dialled.
    """

    def __init__(self, to_previous: Sender, from_next: Link) -> None:
        self._to_previous, self._from_next = to_previous, from_next

    def send(self, data: Buffer) -> None:
        """Hand a message to the writer; returns at once."""
        self._to_previous.send(data)

    def receive(self, num_bytes: int) -> Buffer:
        """The next message; errors as for `Channel`."""
        return self._from_next.receive_bytes(num_bytes)

    def close(self) -> None:
        """End both connections, from any thread: the neighbours learn of it at once."""
        self._to_previous.close()
        self._from_next.interrupt()

    def release(self) -> None:
        """Give the connections back; for the thread that receives, after `close`."""
        self._from_next.close()

    @property
    def bytes_moved(self) -> tuple[int, int]:
        """Sent and received, without TLS's own."""
        return self._to_previous.link.bytes_sent, self._from_next.bytes_received


@final
class Ring:
    """Builds sessions: dials the previous party, and takes the connection that the next one dials.

    Args:
        party: the own index.
        dial: makes a greeted connection to a party for a session.
        timeout_s: how long the next party's connection is waited for.
    """

    def __init__(self, party: int, dial: Callable[[int, str], Link], *, timeout_s: float) -> None:
        self._previous, self._next = (party - 1) % NUM_PARTIES, (party + 1) % NUM_PARTIES
        self._dial, self._timeout_s = dial, timeout_s
        self._arrived: dict[str, Link] = {}
        self._changed = threading.Condition()
        self._channel: TlsChannel | None = None
        self._ended: list[TlsChannel] = []

    def arrive(self, session: str, link: Link) -> None:
        """Take a connection that the next party dialled.

        Raises:
            PartyError: it is another party's.
        """
        if link.party != self._next:
            raise PartyError(f"{link.peer} is not the next party, {self._next}; compare addresses", party=link.party)
        with self._changed:
            for stale in self._arrived.values():
                stale.close()
            self._arrived = {session: link}
            self._changed.notify_all()

    def join(self, session: str) -> tuple[TlsChannel, PairwiseKeys]:
        """A new channel with new keys, in place of the one before.

        Raises:
            PartyError: a neighbour is gone, or late; names it.
        """
        self.leave()
        self._release()
        sender = Sender(self._dial(self._previous, session))
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: session in self._arrived, self._timeout_s):
                    raise PartyError(
                        f"party {self._next} did not connect for {self._timeout_s:g} s; see whether it is up, then ask "
                        "again",
                        party=self._next,
                    )
                heard = self._arrived.pop(session)
        except PartyError:
            sender.close()
            raise
        channel = TlsChannel(sender, heard)
        with self._changed:
            self._channel = channel
        return channel, PairwiseKeys.agree(channel)

    def leave(self) -> None:
        """End the session, if there is one, from any thread."""
        with self._changed:
            channel, self._channel = self._channel, None
            if channel is not None:
                channel.close()
                self._ended.append(channel)

    def close(self) -> None:
        """End everything."""
        self.leave()
        self._release()
        with self._changed:
            for link in self._arrived.values():
                link.close()
            self._arrived.clear()

    def _release(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
        for channel in ended:
            channel.release()
