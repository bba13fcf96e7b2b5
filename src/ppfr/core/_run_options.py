"""Where and on what a training or a run executes."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where and on what one training runs; no figure depends on these.

    Attributes:
        run_dir: for checkpoints and logs, kept between sessions.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: processes side by side that train a recogniser.
        resumes: take up what lies in `run_dir`, be it complete or cut short.
        shows_progress: print progress.
    """

    run_dir: Path
    device: str = "auto"
    num_devices: int = 1
    resumes: bool = False
    shows_progress: bool = True
