"""Progress of a training run: progress bar or plain lines on stderr, `log.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ppfr.assets import write_atomically
from ppfr.core import StorageError

_PLAIN_LINE_EVERY_S = 30.0


class ProgressReport:
    """Images per second, remaining time and losses on stderr: a bar on a terminal, otherwise a line every 30 s."""

    def __init__(self, *, is_shown: bool, num_steps: int, done: int, batch_size: int, label: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._is_shown, self._label = is_shown, label
        self._num_steps, self._first, self._batch_size = num_steps, done, batch_size
        self._bar: Progress | None = None
        if is_shown and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} steps"),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self._console,
                refresh_per_second=2,
            )
            self._task = self._bar.add_task(label, total=num_steps, completed=done, facts="")

    def __enter__(self) -> Self:
        self._began = self._last_line = time.perf_counter()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, losses: Mapping[str, float]) -> None:
        """Report that `done` steps are complete. `losses` are those of the last step."""
        if not self._is_shown:
            return
        now = time.perf_counter()
        is_last = done == self._num_steps
        if self._bar is None and not is_last and now - self._last_line < _PLAIN_LINE_EVERY_S:
            return
        rate = (done - self._first) * self._batch_size / max(now - self._began, 1e-9)
        terms = "  ".join(f"{name} {value:.4g}" for name, value in losses.items() if name.endswith("/loss"))
        facts = f"{rate:.0f} images/s  {terms}"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=facts)
            return
        self._last_line = now
        left_s = (self._num_steps - done) * self._batch_size / max(rate, 1e-9)
        self._console.print(
            f"{self._label}: step {done}/{self._num_steps}  {facts}  {_clock(left_s)} left", soft_wrap=True
        )


class LossLog:
    """`log.jsonl` and optional TensorBoard scalars of a run directory. Resuming drops the steps that are repeated."""

    def __init__(self, run_dir: Path, *, first_step: int, every_steps: int, with_tensorboard: bool) -> None:
        self._every = every_steps
        self._writer: Any = None
        self._path = run_dir / "log.jsonl"
        self._file = self._reopened(first_step)
        if with_tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step)

    def _reopened(self, first_step: int) -> IO[str]:
        """The log, opened for appending, with only its lines before `first_step`."""
        kept: list[str] = []
        try:
            if self._path.exists():
                for line in self._path.read_text(encoding="utf-8").splitlines():
                    # A killed run can leave an incomplete last line.
                    if line.endswith("}") and json.loads(line)["step"] < first_step:
                        kept.append(line + "\n")
            with write_atomically(self._path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
            return self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise _log_failure(self._path, error) from error

    def write(self, step: int, losses: Mapping[str, float], *, rates: Mapping[str, float]) -> None:
        """Write one line per `every_steps` steps.

        Raises:
            StorageError: the disk is full.
        """
        if step % self._every:
            return
        row = {"step": step, **{name: _finite(value) for name, value in losses.items()}}
        row |= {f"{name}/rate": value for name, value in rates.items()}
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise _log_failure(self._path, error) from error
        if self._writer is not None:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def _log_failure(path: Path, error: OSError) -> StorageError:
    return StorageError(f"could not write {path}: {error.strerror or error}; free space or choose another directory")


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
