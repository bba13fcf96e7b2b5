"""A TCP relay that adds latency, for machines whose kernel cannot delay packets. It also counts bytes."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from pathlib import Path


class Relay:
    """Forwards connections to an address, with a constant delay in each direction.

    `num_bytes` counts the forwarded bytes: TLS records including handshakes, without TCP and IP headers.
    """

    def __init__(self, address: str, delay_s: float) -> None:
        host, _, port = address.rpartition(":")
        self.target, self.delay_s, self.num_bytes = (host, int(port)), delay_s, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                delayed: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                threading.Thread(target=self.read, args=(source, delayed), daemon=True).start()
                threading.Thread(target=self.write, args=(sink, delayed), daemon=True).start()

    def read(self, source: socket.socket, delayed: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.num_bytes += len(data)
                delayed.put((time.monotonic() + self.delay_s, data))
        delayed.put((time.monotonic() + self.delay_s, b""))

    @staticmethod
    def write(sink: socket.socket, delayed: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = delayed.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

    def close(self) -> None:
        self.listener.close()
        for end in self.ends:
            end.close()


def put_between(directory: Path, addresses: list[str], delay_s: float) -> list[Relay]:
    """Rewrite the configurations of `write_trial` so that parties are reached through relays, and return the relays."""
    made = []
    for name in ("party-0", "party-1", "party-2", "client"):
        relays = [Relay(address, delay_s) for address in addresses]
        made += relays
        path = directory / f"{name}.toml"
        listed = ", ".join(f'"127.0.0.1:{relay.port}"' for relay in relays)
        lines = [f"parties = [{listed}]" if x.startswith("parties") else x for x in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
    return made
