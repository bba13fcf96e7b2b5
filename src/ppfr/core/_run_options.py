"""Options of a run that no result depends on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ppfr.core._errors import InvalidInputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where a training runs and what it keeps on disk.

    On one device, no result depends on these options.

    Attributes:
        run_dir: directory for checkpoints and logs. None keeps nothing, so the run cannot be resumed.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: number of processes that train in parallel.
        resumes: continue from the last checkpoint in `run_dir`, if there is one. Otherwise an earlier run in `run_dir`
            is an error.
        shows_progress: print progress to stderr.
    """

    run_dir: Path | None = None
    device: str = "auto"
    num_devices: int = 1
    resumes: bool = False
    shows_progress: bool = True

    @property
    def directory(self) -> Path:
        """`run_dir`, of a run that needs one.

        Raises:
            InvalidInputError: it is None.
        """
        if self.run_dir is None:
            raise InvalidInputError("This run keeps its results on disk. Give `RunOptions(run_dir=...)`.")
        return self.run_dir
