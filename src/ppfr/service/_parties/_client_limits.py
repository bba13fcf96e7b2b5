"""How much of a party each client may use: connections, memory of requests, idle time, rate of requests.

One client must not take the places, the memory or the time of all others. A refusal names the limit and its key.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import final

from ppfr.core import InvalidInputError
from ppfr.service._parties._links import Head, Link
from ppfr.service._parties._messages import Message
from ppfr.service._parties._settings import ClientRights

_MAX_WAIT_S = 1.0


class LimitError(InvalidInputError):
    """A client exceeded a limit of the party.

    Args:
        message: names the limit and what to do.
        key: of the limit in the configuration.
    """

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


@dataclasses.dataclass(slots=True)
class _Usage:
    """What a client uses at present.

    Attributes:
        num_connections: open connections, including those that are being refused.
        bytes_in_flight: memory of its requests.
        tokens: requests that may follow without a pause; negative while requests wait.
        counted_s: time of `tokens`, on the clock of `time.monotonic`; None before the first request.
    """

    num_connections: int = 0
    bytes_in_flight: int = 0
    tokens: float = 0.0
    counted_s: float | None = None


@final
class ClientLimits:
    """Counts what each client uses.

    Args:
        rights_of: the current rights of a client.
        row_bytes: memory of one expanded row of shares.
    """

    def __init__(self, rights_of: Callable[[str], ClientRights], *, row_bytes: int) -> None:
        self._rights_of, self._row_bytes = rights_of, row_bytes
        self._lock = threading.Lock()
        self._usage: dict[str, _Usage] = {}

    @contextlib.contextmanager
    def connection(self, client: str, max_connections: int) -> Iterator[LimitError | None]:
        """Count a connection; yield the reason for refusing it, or None.

        A refusal needs a handshake, which takes a while. A client that has as many connections again as it may have is
        refused without one.

        Raises:
            LimitError: the connection must be closed at once.
        """
        error = LimitError(
            f"Client {client!r} already has {max_connections} connections (max_connections of the client, or "
            "max_connections_per_client). Close some, or have the operator of the party raise the limit.",
            key="max_connections",
        )
        with self._lock:
            usage = self._usage.setdefault(client, _Usage())
            num_before = usage.num_connections
            if num_before >= 2 * max_connections:
                raise error
            usage.num_connections += 1
        try:
            yield error if num_before >= max_connections else None
        finally:
            with self._lock:
                usage.num_connections -= 1
                if usage.num_connections == 0 and usage.counted_s is None:
                    del self._usage[client]  # it may be unknown here: the names of certificates are not limited

    @contextlib.contextmanager
    def next_request(
        self, link: Link, client: str, max_request_bytes: int
    ) -> Iterator[tuple[Message, LimitError | None]]:
        """Receive a client's next request; its memory counts until the end of the block.

        Yields:
            The request, and why it exceeds a limit, or None. A request that exceeds a limit has no buffers.

        Raises:
            IdleError: no request arrived in time.
            PartyError, InvalidInputError: as `Link.receive`, or the client is not configured any more.
        """
        head = link.receive_head(max_request_bytes, idle_s=self._rights_of(client).idle_s)
        rights, num_bytes = self._rights_of(client), self._memory_of(head)
        try:
            self._wait_for_turn(client, rights)
            self._reserve(client, rights, num_bytes)
        except LimitError as error:
            yield link.skip_buffers(head), error
            return
        try:
            yield link.receive_buffers(dataclasses.replace(head, deadline=time.monotonic() + link.timeout_s)), None
        finally:
            with self._lock:
                self._usage[client].bytes_in_flight -= num_bytes

    def _memory_of(self, head: Head) -> int:
        """Bytes of a request and of the rows that are expanded from it."""
        num = head.fields.get("num")
        return sum(head.sizes) + (num * self._row_bytes if isinstance(num, int) and num > 0 else 0)

    def _reserve(self, client: str, rights: ClientRights, num_bytes: int) -> None:
        with self._lock:
            usage = self._usage.setdefault(client, _Usage())
            if usage.bytes_in_flight + num_bytes > rights.max_bytes_in_flight:
                raise LimitError(
                    f"The request needs {num_bytes} bytes, and other requests of client {client!r} need "
                    f"{usage.bytes_in_flight} bytes; the limit is {rights.max_bytes_in_flight} "
                    "(max_bytes_in_flight). Send less at the same time, or have the operator of the party raise the "
                    "limit.",
                    key="max_bytes_in_flight",
                )
            usage.bytes_in_flight += num_bytes

    def _wait_for_turn(self, client: str, rights: ClientRights) -> None:
        """Delay a request of a client that sends too many; refuse it if it would wait too long.

        The parties measure time separately. A short delay instead of a refusal avoids that one party refuses a request
        which the others accept.
        """
        rate, now_s = rights.max_requests_per_s, time.monotonic()
        burst = max(1.0, rate)
        with self._lock:
            usage = self._usage.setdefault(client, _Usage())
            passed_s = 0.0 if usage.counted_s is None else now_s - usage.counted_s
            usage.tokens = burst if usage.counted_s is None else min(burst, usage.tokens + rate * passed_s)
            usage.counted_s = now_s
            wait_s = (1.0 - usage.tokens) / rate
            is_refused = wait_s > _MAX_WAIT_S
            if not is_refused:
                usage.tokens -= 1.0
        if wait_s > 0:
            time.sleep(min(wait_s, _MAX_WAIT_S))
        if is_refused:
            raise LimitError(
                f"Client {client!r} sends more than {rate:g} requests per second (max_requests_per_s). Send fewer, or "
                "have the operator of the party raise the limit.",
                key="max_requests_per_s",
            )


@final
class ClientPlaces:
    """The places of all clients together.

    Args:
        party: for the message of the refusal.
        max_connections: their number.
    """

    def __init__(self, party: int, max_connections: int) -> None:
        self._party, self._max_connections = party, max_connections
        self._free = threading.BoundedSemaphore(max_connections)

    @contextlib.contextmanager
    def taken(self) -> Iterator[LimitError | None]:
        """Take a place until the end of the block; yield the reason if none is free, else None."""
        if not self._free.acquire(blocking=False):
            yield LimitError(
                f"Party {self._party} already serves {self._max_connections} connections of clients "
                "(max_connections). Try again later, or have the operator of the party raise the limit.",
                key="max_connections",
            )
            return
        try:
            yield None
        finally:
            self._free.release()


@final
class HandshakePlaces:
    """The places for connections whose certificate is not known yet; one host can take at most half of them.

    Args:
        max_connections: number of places.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._by_host: collections.Counter[str] = collections.Counter()

    def begin(self, host: str) -> bool:
        """Take a place; False if none is free. `end` must follow if True."""
        with self._lock:
            of_host = self._by_host[host]
            if self._by_host.total() >= self._max_connections or of_host >= self._max_connections // 2:
                return False
            self._by_host[host] += 1
            return True

    def end(self, host: str) -> None:
        """Release a place."""
        with self._lock:
            self._by_host[host] -= 1
            if self._by_host[host] <= 0:
                del self._by_host[host]
