"""TLS connections between two parties, and between a client and a party: authentication, time-outs, framing.

Both sides verify the certificate of the other against the authority of the operators. The dialler also verifies that it
reached the intended party: the certificate of a party contains its name ("party-1"), independently of its host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Collection
from typing import Any, final

from ppfr.core import PartyError
from ppfr.secure import Buffer
from ppfr.service._parties._credentials import fingerprint_of, party_name
from ppfr.service._parties._messages import LENGTH, MAX_HEAD_BYTES, MalformedError, Message, parsed_head
from ppfr.service._parties._supervision import log_unexpected

_MAX_RECEIVE_BYTES = 1 << 20
_FIRST_PART_BYTES = 1 << 16
_KEEP_ALIVE_S = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a message whose buffers have not been received yet.

    Attributes:
        fields: JSON values.
        sizes: of the buffers, in bytes.
        deadline: for the buffers, on the clock of `time.monotonic`.
    """

    fields: dict[str, Any]
    sizes: list[int]
    deadline: float


class IdleError(PartyError):
    """A client sent no request for longer than the party allows."""

    key = "idle_s"


class RevokedError(PartyError):
    """The certificate of the peer is revoked."""

    key = "revoked"


@final
class Link:
    """One TLS connection; each direction is used by one thread at a time.

    Args:
        connection: after the TLS handshake.
        peer: name of the other side in errors, such as "party 1" or "client 'front-desk'".
        party: index of the other side, if it is a party.
        timeout_s: time limit per message.

    Attributes:
        names: DNS names in the certificate of the peer.
        fingerprint: of the certificate of the peer, as `fingerprint_of` returns it.
        bytes_sent, bytes_received: without the overhead of TLS.
    """

    def __init__(self, connection: ssl.SSLSocket, *, peer: str, party: int | None, timeout_s: float) -> None:
        self._connection = connection
        self.peer, self.party, self.timeout_s = peer, party, timeout_s
        self.bytes_sent = self.bytes_received = 0
        certificate: Any = connection.getpeercert() or {}
        self.names = tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
        self.fingerprint = fingerprint_of(connection.getpeercert(binary_form=True) or b"")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # firewalls drop idle connections, and hosts can vanish without closing
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE_S)

    @classmethod
    def dial(cls, address: tuple[str, int], context: ssl.SSLContext, *, party: int, timeout_s: float) -> Link:
        """Connect to a party.

        Raises:
            PartyError: it cannot be reached, or the other side is not this party; names the party.
        """
        where = f"Party {party} at {address[0]}:{address[1]}"
        try:
            plain = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise PartyError(
                f"{where} cannot be reached ({_reason(error)}). Check that it runs, then repeat the request.",
                party=party,
            ) from error
        try:
            connection = context.wrap_socket(plain, server_hostname=party_name(party))
        except (OSError, ValueError) as error:
            plain.close()
            raise PartyError(
                f"{where} ended the TLS handshake, or has no certificate of the configured authority for "
                f"{party_name(party)!r} ({_reason(error)}). Compare certificates and addresses.",
                party=party,
            ) from error
        return cls(connection, peer=f"party {party}", party=party, timeout_s=timeout_s)

    @property
    def peer_at_start(self) -> str:
        """`peer`, capitalised for the start of a sentence."""
        return self.peer[:1].upper() + self.peer[1:]

    def fileno(self) -> int:
        """File descriptor, for selectors."""
        return self._connection.fileno()

    def send_bytes(self, data: Buffer) -> None:
        """Send a whole buffer without copying it.

        Raises:
            PartyError: the peer disconnected or does not receive in time; names the peer.
        """
        with self._named_errors():
            self._connection.settimeout(self.timeout_s)
            self._connection.sendall(data)
        self.bytes_sent += memoryview(data).nbytes

    def send(self, message: Message) -> None:
        """Send a message; raises as `send_bytes`."""
        head = message.head()
        is_small = sum(memoryview(buffer).nbytes for buffer in message.buffers) <= MAX_HEAD_BYTES
        if is_small:  # one TLS record, one packet
            self.send_bytes(b"".join([head, *message.buffers]))
            return
        for part in (head, *message.buffers):
            if memoryview(part).nbytes:
                self.send_bytes(part)

    def receive_bytes(self, num_bytes: int, *, deadline: float | None = None) -> memoryview:
        """Receive exactly `num_bytes` bytes; their memory is allocated at once.

        Args:
            num_bytes: how many; not a number that the peer announced.
            deadline: on the clock of `time.monotonic`; None for `timeout_s` from now.

        Raises:
            PartyError: the peer disconnected or timed out; names the peer.
        """
        deadline = time.monotonic() + self.timeout_s if deadline is None else deadline
        data = memoryview(bytearray(num_bytes))
        done = 0
        with self._named_errors():
            while done < num_bytes:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._connection.settimeout(left_s)
                num_new = self._connection.recv_into(data[done : done + _MAX_RECEIVE_BYTES])
                if num_new == 0:
                    raise EOFError
                done += num_new
        self.bytes_received += num_bytes
        return data

    def receive(self, limit_bytes: int, *, deadline: float | None = None) -> Message:
        """Receive the next message.

        Args:
            limit_bytes: maximum size of all buffers together.
            deadline: as in `receive_bytes`.

        Raises:
            PartyError: as `receive_bytes`, or a protocol error; names the peer.
            InvalidInputError: the message is larger than `limit_bytes`.
        """
        return self.receive_buffers(self.receive_head(limit_bytes, deadline=deadline))

    def receive_head(self, limit_bytes: int, *, deadline: float | None = None, idle_s: float | None = None) -> Head:
        """Receive the head of the next message; `receive_buffers` or `skip_buffers` must follow.

        Args:
            limit_bytes: maximum size of all buffers together.
            deadline: as in `receive_bytes`.
            idle_s: time limit for the start of the message, as a server for the next request of a client; the time
                limit for the rest starts then.

        Raises:
            IdleError: the message did not start within `idle_s`.
            PartyError, InvalidInputError: as `receive`.
        """
        if idle_s is not None:
            start = self._start_within(idle_s)
            deadline = time.monotonic() + self.timeout_s
        else:
            deadline = time.monotonic() + self.timeout_s if deadline is None else deadline
            start = self.receive_bytes(LENGTH.size, deadline=deadline)
        (length,) = LENGTH.unpack(start)
        if length > MAX_HEAD_BYTES:
            raise self.protocol_error(f"The head has {length} bytes, the limit is {MAX_HEAD_BYTES}.")
        try:
            fields, sizes = parsed_head(bytes(self.receive_bytes(length, deadline=deadline)), limit_bytes)
        except MalformedError as error:
            raise self.protocol_error(str(error)) from error
        return Head(fields=fields, sizes=sizes, deadline=deadline)

    def receive_buffers(self, head: Head) -> Message:
        """Receive the rest of a message; raises as `receive_bytes`."""
        return Message(fields=head.fields, buffers=[self._receive_buffer(size, head.deadline) for size in head.sizes])

    def skip_buffers(self, head: Head) -> Message:
        """Receive the rest of a message without keeping its buffers; raises as `receive_bytes`."""
        left = sum(head.sizes)
        while left:
            left -= len(self.receive_bytes(min(left, _FIRST_PART_BYTES), deadline=head.deadline))
        return Message(fields=head.fields)

    def _receive_buffer(self, num_bytes: int, deadline: float) -> memoryview:
        """Receive a buffer of an announced size. Its memory grows with the bytes that have arrived, at most twofold."""
        parts, done = [], 0
        while done < num_bytes:
            parts.append(self.receive_bytes(min(num_bytes - done, max(done, _FIRST_PART_BYTES)), deadline=deadline))
            done += len(parts[-1])
        return parts[0] if len(parts) == 1 else memoryview(bytearray().join(parts))

    @property
    def is_closed_by_peer(self) -> bool:
        """Whether the peer has closed the connection, or has sent something while no message was expected."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            return bool(selector.select(0))

    def _start_within(self, idle_s: float) -> memoryview:
        try:
            return self.receive_bytes(LENGTH.size, deadline=time.monotonic() + idle_s)
        except PartyError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            raise IdleError(
                f"{self.peer_at_start} sent no request for {idle_s:g} s (idle_s), so the connection was closed. "
                "Connect again."
            ) from error

    def check_certificate(self, revoked: Collection[str]) -> None:
        """Refuse a peer whose certificate is revoked.

        Args:
            revoked: fingerprints of revoked certificates, as `fingerprint_of` returns them.

        Raises:
            RevokedError: its certificate is among them; names the fingerprint.
        """
        if self.fingerprint in revoked:
            raise RevokedError(
                f"The certificate of {self.peer} with fingerprint {self.fingerprint} is revoked. Issue another one, or "
                "remove the fingerprint from `revoked`.",
                party=self.party,
            )

    def protocol_error(self, reason: str) -> PartyError:
        """The error for received bytes that violate the protocol."""
        return PartyError(
            f"Protocol error of {self.peer}: {reason} Check which program runs there, and its version.",
            party=self.party,
        )

    def interrupt(self) -> None:
        """Shut the connection down, from any thread. A thread that uses it, at either end, gets an error at once."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the connection; must be called from the thread that uses it."""
        self.interrupt()
        with contextlib.suppress(OSError):
            self._connection.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Any:
        """Convert errors of the socket into errors that name the peer."""
        try:
            yield
        except TimeoutError as error:
            raise PartyError(
                f"{self.peer_at_start} sent or received nothing for {self.timeout_s:g} s. Check that it runs, then "
                "repeat the request.",
                party=self.party,
            ) from error
        except (OSError, EOFError, ValueError) as error:
            raise PartyError(
                f"{self.peer_at_start} closed the connection ({_reason(error)}). Check that it runs, then repeat the "
                "request.",
                party=self.party,
            ) from error

    def __repr__(self) -> str:
        return f"Link({self.peer})"


HEARTBEAT = Message(fields={"type": "heartbeat"})


@final
class Sender:
    """A thread that writes queued messages to a link, so that no caller waits for the receiver.

    Args:
        link: no other thread may write to it.
        heartbeat_s: idle time after which a heartbeat is sent; None for no heartbeats.
    """

    def __init__(self, link: Link, *, heartbeat_s: float | None = None) -> None:
        self.link = link
        self._heartbeat_s = heartbeat_s
        self._queue: queue.SimpleQueue[Message | Buffer | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"ppfr-to-{link.peer}", daemon=True)
        self._thread.start()

    def send(self, item: Message | Buffer) -> None:
        """Queue a message. If the link has failed it is dropped; the reader of the peer reports the failure."""
        self._queue.put(item)

    def close(self) -> None:
        """Shut the link down at once; queued messages are dropped."""
        self.link.interrupt()
        self._queue.put(None)

    def _work(self) -> None:
        try:
            while True:
                try:
                    item = self._queue.get(timeout=self._heartbeat_s)
                except queue.Empty:
                    item = HEARTBEAT
                if item is None:
                    return
                if isinstance(item, Message):
                    self.link.send(item)
                else:
                    self.link.send_bytes(item)
        except PartyError:
            pass  # the thread that reads from the peer reports the failure
        except Exception as error:
            log_unexpected(f"the thread that sends to {self.link.peer}", error)
        finally:
            self.link.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS error").lower().replace("_", " ")
    if isinstance(error, EOFError):
        return "end of stream"
    if isinstance(error, TimeoutError):
        return "time-out"
    return (getattr(error, "strerror", None) or type(error).__name__).lower()
