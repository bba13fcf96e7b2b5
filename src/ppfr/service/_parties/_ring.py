"""Sessions of the three parties: each has two TLS connections of a ring, and keys agreed over them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

from ppfr.core import PartyError
from ppfr.secure import NUM_PARTIES, Buffer, PairwiseKeys
from ppfr.service._parties._links import Link, Sender


@final
class TlsChannel:
    """The two ring connections of a party in one session; see `Channel`.

    Args:
        to_previous: writes to the previous party.
        from_next: the connection that the next party dialled.
    """

    def __init__(self, to_previous: Sender, from_next: Link) -> None:
        self._to_previous, self._from_next = to_previous, from_next

    def send(self, data: Buffer) -> None:
        """See `Channel.send`."""
        self._to_previous.send(data)

    def receive(self, num_bytes: int) -> Buffer:
        """See `Channel.receive`."""
        return self._from_next.receive_bytes(num_bytes)

    def close(self) -> None:
        """Shut both connections down, from any thread; the neighbours get an error at once."""
        self._to_previous.close()
        self._from_next.interrupt()

    def release(self) -> None:
        """Release the connections after `close`; must be called from the thread that receives."""
        self._from_next.close()

    @property
    def bytes_moved(self) -> tuple[int, int]:
        """Bytes sent and received, without the overhead of TLS."""
        return self._to_previous.link.bytes_sent, self._from_next.bytes_received


@final
class Ring:
    """Starts sessions: dials the previous party and waits for the connection of the next party.

    Args:
        party: own index.
        dial: connects to a party for a session.
        timeout_s: time limit for the connection of the next party.
    """

    def __init__(self, party: int, dial: Callable[[int, str], Link], *, timeout_s: float) -> None:
        self._previous, self._next = (party - 1) % NUM_PARTIES, (party + 1) % NUM_PARTIES
        self._dial, self._timeout_s = dial, timeout_s
        self._arrived: dict[str, Link] = {}
        self._changed = threading.Condition()
        self._channel: TlsChannel | None = None
        self._ended: list[TlsChannel] = []
        self._is_closed = False

    def arrive(self, session: str, link: Link) -> None:
        """Take over a connection that the next party dialled.

        Raises:
            PartyError: the connection is that of another party.
        """
        if link.party != self._next:
            raise PartyError(
                f"{link.peer_at_start} is not the next party, which is {self._next}. Compare the addresses.",
                party=link.party,
            )
        with self._changed:
            for stale in self._arrived.values():
                stale.close()
            if self._is_closed:
                link.close()
                return
            self._arrived = {session: link}
            self._changed.notify_all()

    def join(self, session: str) -> tuple[TlsChannel, PairwiseKeys]:
        """Open a channel with new keys; the previous channel ends.

        Raises:
            PartyError: a neighbour cannot be reached or timed out; names it.
        """
        self.leave()
        self._release()
        sender = Sender(self._dial(self._previous, session))
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: session in self._arrived, self._timeout_s):
                    raise PartyError(
                        f"Party {self._next} did not connect within {self._timeout_s:g} s. Check that it runs, then "
                        "repeat the request.",
                        party=self._next,
                    )
                from_next = self._arrived.pop(session)
        except PartyError:
            sender.close()
            raise
        channel = TlsChannel(sender, from_next)
        with self._changed:
            if self._is_closed:
                channel.close()
                channel.release()
                raise PartyError("This party is shutting down.")
            self._channel = channel
        return channel, PairwiseKeys.agree(channel)

    def leave(self) -> None:
        """End the session if there is one, from any thread."""
        with self._changed:
            channel, self._channel = self._channel, None
            if channel is not None:
                channel.close()
                self._ended.append(channel)

    def close(self) -> None:
        """End the session and close all connections, also those that arrive later."""
        with self._changed:
            self._is_closed = True
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
