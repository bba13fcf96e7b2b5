"""Worker processes: started, asked in parallel, and ended together when one of them fails.

What is said between this process and a worker is in `_worker`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from ppfr.core import PartyError
from ppfr.secure._backends._worker import Arrays, packed, unpacked

_LOOK_AROUND_S = 0.2
Message = tuple[dict[str, Any], Arrays]


@final
class Worker:
    """One process, with its pipes.

    Args:
        name: in errors, such as "party 1".
        command: what to run.
        directory: to run it in; what it prints goes to a file there.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self._printed = directory / f"{name.replace(' ', '-')}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(  # noqa: S603 - our own file, by the interpreter that the user named
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                cwd=directory,
                env=environment,
                bufsize=0,
            )

    def send(self, header: dict[str, Any], arrays: Arrays | None = None) -> None:
        """Hand over a message.

        Raises:
            PartyError: the process is gone.
        """
        assert self._process.stdin is not None
        data = memoryview(packed(header, arrays or {}))
        try:
            while data:
                data = data[self._process.stdin.write(data) :]
        except (BrokenPipeError, ValueError) as error:
            raise PartyError(f"{self.name} is gone; start a new matcher") from error

    def receive(self, timeout_s: float, others: Sequence[Worker] = ()) -> Message:
        """The worker's next message; `others` are those it may be waiting for itself.

        Raises:
            PartyError: the process is gone, late, or says that it could not do what it was asked.
        """
        deadline = time.monotonic() + timeout_s

        def read(num_bytes: int) -> bytes:
            return self._read(num_bytes, deadline, timeout_s, others)

        header, arrays = unpacked(read)
        if "error" in header:
            raise PartyError(f"{self.name} could not go on: {header['error']}")
        return header, arrays

    def has_ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raise PartyError if the process has ended."""
        if self.has_ended():
            raise self._ended()

    def hang_up(self) -> None:
        """Close its input: it ends by itself if it can."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self) -> None:
        """Wait a moment for it to end; then kill it."""
        assert self._process.stdout is not None
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def process_id(self) -> int:
        """Of the operating system."""
        return self._process.pid

    def _read(self, num_bytes: int, deadline: float, timeout_s: float, others: Sequence[Worker]) -> bytes:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        data, poll = bytearray(), select.poll()
        poll.register(source, select.POLLIN)
        while len(data) < num_bytes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise PartyError(f"{self.name} said nothing for {timeout_s:g} s; start a new matcher")
            if not poll.poll(1e3 * min(left, _LOOK_AROUND_S)):
                for other in others:
                    other.check()
                continue
            part = os.read(source, min(num_bytes - len(data), 1 << 20))
            if not part:
                raise self._ended()
            data += part
        return bytes(data)

    def _ended(self) -> PartyError:
        """How it ended, and the last that it printed."""
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = 0
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        lines = self._printed.read_text(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else "it printed nothing"
        return PartyError(f"{self.name} ended {how} ({last}); start a new matcher")


@final
class Workers:
    """Several processes and a directory of their own; all end when one fails, or at `close`."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory(prefix="ppfr-")  # mode 0700
        self.directory = Path(self._kept.name)
        self._all: list[Worker] = []

    def start(self, name: str, command: Sequence[str]) -> Worker:
        """One more process."""
        worker = Worker(name, command, self.directory)
        self._all.append(worker)
        return worker

    def ask(self, asked: Sequence[tuple[Worker, dict[str, Any], Arrays]], timeout_s: float) -> list[Message]:
        """Give each its message, then wait for all answers.

        Raises:
            PartyError: one is gone, late or failed; all processes are ended then.
        """
        if not self._all:
            raise PartyError("the matcher is closed, or one of its parties failed; start a new one")
        try:
            for worker, header, arrays in asked:
                worker.send(header, arrays)
            return [worker.receive(timeout_s, self._all) for worker, _, _ in asked]
        except PartyError as error:
            time.sleep(0.1)  # whoever closed its connections as it died is gone by then
            ended = next((worker for worker in self._all if worker.has_ended()), None)
            self.close()
            if ended is None or ended.name in str(error):
                raise
            raise PartyError(f"{ended.name} ended, and then {error}") from error  # the others' errors follow from it
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes; may be called twice."""
        for worker in self._all:
            worker.hang_up()
        for worker in self._all:
            worker.end()
        self._all = []
        self._kept.cleanup()


def free_ports(num: int) -> list[int]:
    """Ports of loopback that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(num):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(int(listener.getsockname()[1]))
        return found
