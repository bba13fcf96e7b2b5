"""Worker processes: started together, queried in parallel, and ended together when one of them fails.

The message format is in `_worker`.
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

_POLL_S = 0.2
Message = tuple[dict[str, Any], Arrays]


@final
class Worker:
    """One process with its pipes.

    Args:
        name: for errors, such as "party 1".
        command: command line.
        directory: working directory; the log of the process is written there.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self._log = directory / f"{name.replace(' ', '-')}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own file, run by the configured interpreter
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
                env=environment,
                bufsize=0,
            )

    def send(self, header: dict[str, Any], arrays: Arrays | None = None) -> None:
        """Send a message.

        Raises:
            PartyError: the process ended.
        """
        assert self._process.stdin is not None
        data = memoryview(packed(header, arrays or {}))
        try:
            while data:
                data = data[self._process.stdin.write(data) :]
        except (BrokenPipeError, ValueError) as error:
            raise PartyError(f"{self.name} has ended. Create a new matcher.") from error

    def receive(self, timeout_s: float, others: Sequence[Worker] = ()) -> Message:
        """Receive the worker's next message; `others` are workers that it may depend on.

        Raises:
            PartyError: the process or one of the others ended, timed out, or reported an error.
        """
        deadline = time.monotonic() + timeout_s

        def read(num_bytes: int) -> bytes:
            return self._read(num_bytes, deadline, timeout_s, others)

        header, arrays = unpacked(read)
        if "error" in header:
            raise PartyError(f"{self.name} failed: {header['error']}")
        return header, arrays

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raise PartyError if the process has ended."""
        if self.has_ended():
            raise self._ended()

    def close_input(self) -> None:
        """Close the input of the process, which then ends by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self) -> None:
        """Wait briefly for the process to end, then kill it."""
        assert self._process.stdout is not None
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def process_id(self) -> int:
        """Process id."""
        return self._process.pid

    def _read(self, num_bytes: int, deadline: float, timeout_s: float, others: Sequence[Worker]) -> bytes:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        data, poll = bytearray(), select.poll()
        poll.register(source, select.POLLIN)
        while len(data) < num_bytes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise PartyError(f"{self.name} did not answer within {timeout_s:g} s. Create a new matcher.")
            if not poll.poll(1e3 * min(left, _POLL_S)):
                for other in others:
                    other.check()
                continue
            part = os.read(source, min(num_bytes - len(data), 1 << 20))
            if not part:
                raise self._ended()
            data += part
        return bytes(data)

    def _ended(self) -> PartyError:
        """The error that states how the process ended and the last line of its log."""
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = 0
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else "empty log"
        return PartyError(f"{self.name} ended {how} ({last}). Create a new matcher.")


@final
class Workers:
    """Several processes with a common directory; all are ended when one fails, or by `close`."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="ppfr-")  # mode 0700
        self.directory = Path(self._temporary.name)
        self._all: list[Worker] = []

    def start(self, name: str, command: Sequence[str]) -> Worker:
        """Start one more process."""
        worker = Worker(name, command, self.directory)
        self._all.append(worker)
        return worker

    def query(self, requests: Sequence[tuple[Worker, dict[str, Any], Arrays]], timeout_s: float) -> list[Message]:
        """Send each worker its message, then wait for all answers.

        Raises:
            PartyError: a worker ended, timed out or failed; all processes are ended then.
        """
        if not self._all:
            raise PartyError("The matcher is closed, or one of its parties failed. Create a new matcher.")
        try:
            for worker, header, arrays in requests:
                worker.send(header, arrays)
            return [worker.receive(timeout_s, self._all) for worker, _, _ in requests]
        except PartyError as error:
            time.sleep(0.1)  # gives a worker that closed its connections time to end
            ended = next((worker for worker in self._all if worker.has_ended()), None)
            self.close()
            if ended is None or ended.name in str(error):
                raise
            raise PartyError(f"{ended.name} ended; then {error}") from error  # a consequence of that
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes; may be called repeatedly."""
        for worker in self._all:
            worker.close_input()
        for worker in self._all:
            worker.end()
        self._all = []
        self._temporary.cleanup()


def free_ports(num: int) -> list[int]:
    """Loopback ports that are currently free."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(num):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(int(listener.getsockname()[1]))
        return found
