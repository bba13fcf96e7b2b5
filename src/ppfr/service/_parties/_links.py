"""TLS connections between parties, and between a client and a party: who is at the other end, time-outs, frames.

Certificates are checked both ways against the operators' authority. The dialler also checks that it reached the party
that it meant: a party's certificate names it ("party-1") whatever host it is on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import queue
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, final

from ppfr.core import InvalidInputError, PartyError
from ppfr.secure._channel import Buffer
from ppfr.service._parties._messages import LENGTH, MAX_HEAD_BYTES, MalformedError, Message, parsed_head

_BYTES_AT_ONCE = 1 << 20
_KEEP_ALIVE_S = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Files that say who a process is: PEM; its certificate, that certificate's key, the authority it trusts."""

    certificate: Path
    key: Path
    authority: Path

    def context(self, *, is_server: bool) -> ssl.SSLContext:
        """TLS 1.3, both ends known by certificate.

        Raises:
            InvalidInputError: a file is absent, or is not what it should be.
        """
        for path in (self.certificate, self.key, self.authority):
            if not path.is_file():
                raise InvalidInputError(f"{path} is not there; `ppfr party certify` makes keys and certificates")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(
                f"{self.certificate}, {self.key} and {self.authority} do not go together as certificate, its key and "
                f"authority ({getattr(error, 'reason', None) or type(error).__name__})"
            ) from error
        if is_server:
            context.num_tickets = 0  # sessions are not resumed, and a sender need never read
        return context


def _no_password() -> str:
    raise InvalidInputError("the key file is encrypted; give one without a password that only its owner may read")


def party_name(party: int) -> str:
    """The name in a party's certificate."""
    return f"party-{party}"


@final
class Link:
    """One TLS connection, used by one thread at a time.

    Args:
        connection: after its handshake.
        peer: whom errors name, as in "party 1" or "client 'desk'".
        party: the peer's index, if it is a party.
        timeout_s: how long a message may take.
    """

    def __init__(self, connection: ssl.SSLSocket, *, peer: str, party: int | None, timeout_s: float) -> None:
        self._connection = connection
        self.peer, self.party, self.timeout_s = peer, party, timeout_s
        self.bytes_sent = self.bytes_received = 0
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # firewalls forget idle connections; hosts vanish without a word
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE_S)

    @classmethod
    def dial(cls, address: tuple[str, int], context: ssl.SSLContext, *, party: int, timeout_s: float) -> Link:
        """Connect to a party.

        Raises:
            PartyError: it is not there, or whoever is there is not that party; names it.
        """
        where = f"party {party} at {address[0]}:{address[1]}"
        try:
            plain = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise PartyError(
                f"{where} cannot be reached ({_reason(error)}); see whether it is up, then ask again", party=party
            ) from error
        try:
            connection = context.wrap_socket(plain, server_hostname=party_name(party))
        except (OSError, ValueError) as error:
            plain.close()
            raise PartyError(
                f"{where} did not show a certificate of {party_name(party)!r} that this side's authority signed, or "
                f"ended the handshake ({_reason(error)}); compare certificates and addresses",
                party=party,
            ) from error
        return cls(connection, peer=f"party {party}", party=party, timeout_s=timeout_s)

    def fileno(self) -> int:
        """For selectors."""
        return self._connection.fileno()

    def peer_names(self) -> tuple[str, ...]:
        """Names in the peer's certificate."""
        found: Any = self._connection.getpeercert() or {}
        return tuple(value for kind, value in found.get("subjectAltName", ()) if kind == "DNS")

    def send_bytes(self, data: Buffer) -> None:
        """Send all of a buffer, without copying it.

        Raises:
            PartyError: the peer is gone or does not take it in time; names it.
        """
        with self._named_errors():
            self._connection.settimeout(self.timeout_s)
            self._connection.sendall(data)
        self.bytes_sent += memoryview(data).nbytes

    def send(self, message: Message) -> None:
        """Send a message; errors as for `send_bytes`."""
        head = message.head()
        small = sum(memoryview(buffer).nbytes for buffer in message.buffers) <= MAX_HEAD_BYTES
        if small:  # one record, one packet
            self.send_bytes(b"".join([head, *message.buffers]))
            return
        for part in (head, *message.buffers):
            if memoryview(part).nbytes:
                self.send_bytes(part)

    def receive_bytes(self, num_bytes: int, *, deadline: float | None = None) -> memoryview:
        """Exactly so many bytes.

        Args:
            num_bytes: how many.
            deadline: on `time.monotonic`'s clock; None for the link's time-out from now.

        Raises:
            PartyError: the peer is gone, or late; names it.
        """
        deadline = time.monotonic() + self.timeout_s if deadline is None else deadline
        data = memoryview(bytearray(num_bytes))
        done = 0
        with self._named_errors():
            while done < num_bytes:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._connection.settimeout(left_s if math.isfinite(left_s) else None)
                got = self._connection.recv_into(data[done : done + _BYTES_AT_ONCE])
                if got == 0:
                    raise EOFError
                done += got
        self.bytes_received += num_bytes
        return data

    def receive(self, limit_bytes: int, *, deadline: float | None = None, waits: bool = False) -> Message:
        """The next message.

        Args:
            limit_bytes: how large its buffers may be together.
            deadline: as in `receive_bytes`.
            waits: for its beginning without end, as a server for a client's next request.

        Raises:
            PartyError: as for `receive_bytes`, or it is no message; names the peer.
            InvalidInputError: it is larger than allowed.
        """
        start = self.receive_bytes(LENGTH.size, deadline=math.inf if waits else deadline)
        (length,) = LENGTH.unpack(start)
        if length > MAX_HEAD_BYTES:
            raise self.babbles("a head is too long")
        try:
            fields, sizes = parsed_head(bytes(self.receive_bytes(length, deadline=deadline)), limit_bytes)
        except MalformedError as error:
            raise self.babbles(str(error)) from error
        return Message(fields=fields, buffers=[self.receive_bytes(size, deadline=deadline) for size in sizes])

    def babbles(self, why: str) -> PartyError:
        """The error for bytes that are no message."""
        return PartyError(
            f"{self.peer} sent what is no message of the protocol ({why}); see which program is there",
            party=self.party,
        )

    def interrupt(self) -> None:
        """End the connection under whoever uses it, from any thread: both ends learn of it at once."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back; for the thread that uses it."""
        self.interrupt()
        self._connection.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Any:
        try:
            yield
        except TimeoutError as error:
            raise PartyError(
                f"{self.peer} sent nothing, or took nothing, for {self.timeout_s:g} s; see whether it is up, then ask "
                "again",
                party=self.party,
            ) from error
        except (OSError, EOFError, ValueError) as error:
            raise PartyError(
                f"{self.peer} closed the connection ({_reason(error)}); see whether it is up, then ask again",
                party=self.party,
            ) from error

    def __repr__(self) -> str:
        return f"Link({self.peer})"


@final
class Sender:
    """A thread that writes to a link what others hand over, so that nobody waits for the receiver.

    Args:
        link: written to by this thread alone from now on.
        beat_s: where nothing was written for so long, an empty message is; None for never.
    """

    def __init__(self, link: Link, *, beat_s: float | None = None) -> None:
        self.link = link
        self._beat_s = beat_s
        self._queue: queue.SimpleQueue[Message | Buffer | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"ppfr-to-{link.peer}", daemon=True)
        self._thread.start()

    def send(self, what: Message | Buffer) -> None:
        """Hand a message over; where the link is gone it is dropped, and whoever listens to the peer learns of it."""
        self._queue.put(what)

    def close(self) -> None:
        """End the link at once; what was not sent is not."""
        self.link.interrupt()
        self._queue.put(None)

    def _work(self) -> None:
        try:
            while True:
                try:
                    what = self._queue.get(timeout=self._beat_s)
                except queue.Empty:
                    what = BEAT
                if what is None:
                    return
                if isinstance(what, Message):
                    self.link.send(what)
                else:
                    self.link.send_bytes(what)
        except PartyError:
            pass  # the peer's own silence is told by whoever listens to it
        finally:
            self.link.close()


BEAT = Message(fields={"do": "beat"})


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS error").lower().replace("_", " ")
    if isinstance(error, EOFError):
        return "end of stream"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or type(error).__name__).lower()
