"""The folder of a run: one file per finished stage, so that no result is lost and a run can be resumed.

record.json      the record, written again after each stage
run.json         the run fingerprint: configuration, its checksum, a probe of each masker
parts/           the result of each stage
locks/           held by the process that works on a stage; the operating system releases them when the process ends
errors/          tracebacks of unexpected errors; not for publication
state/           scores for paired intervals; not for publication
training/        checkpoints of recognisers and attacks
pictures/        strips of faces for the report
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from ppfr.assets import write_atomically, write_json
from ppfr.core import CheckpointError, Json


class Workspace:
    """Reads and writes the folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.record_path = self.folder / "record.json"
        self.pictures = self.folder / "pictures"
        self._done: dict[str, Json] = {}

    def claim(self, fingerprint: Json, *, resume: bool) -> None:
        """Start a run in this folder, or resume the run that is in it.

        Raises:
            CheckpointError: the folder holds a run and `resume` is false, or the configuration or a secret differs.
        """
        path = self.folder / "run.json"
        if not path.exists():
            if resume and self.record_path.exists():
                raise CheckpointError(f"{self.folder} holds a record, but not the run; choose another folder")
            write_json(fingerprint, path)
            return
        if not resume:
            raise CheckpointError(f"{self.folder} holds an earlier run; resume it, or choose another folder")
        earlier = _read(path)
        different = _differences(earlier["config"], fingerprint["config"])
        if different:
            raise CheckpointError(
                f"{self.folder} holds a run of another configuration, which differs in {', '.join(different[:6])}; "
                "resume with the same settings and data, or choose another folder"
            )
        for name, probe in fingerprint["probes"].items():
            if not np.allclose(probe, earlier["probes"].get(name, np.nan), rtol=1e-3, atol=1e-3):
                raise CheckpointError(
                    f"{self.folder} holds a run with another secret of system {name!r}; resume with that secret, "
                    "or choose another folder"
                )

    def part(self, stage: str) -> Json | None:
        """The result of a stage, or None if it has not run. The result of a finished stage is read once and cached.

        Raises:
            CheckpointError: the file is damaged.
        """
        if stage not in self._done:
            path = self._part_path(stage)
            part = _read(path) if path.exists() else None
            if part is None or part.get("status") != "done":
                return part
            self._done[stage] = part
        return self._done[stage]

    def write_part(self, stage: str, part: Mapping[str, Any]) -> None:
        """Store the result of a stage."""
        write_json(dict(part), self._part_path(stage))

    @contextlib.contextmanager
    def working_on(self, stage: str) -> Iterator[bool]:
        """Lock a stage. Yields whether this process has the lock; it is released at the end of the block."""
        path = self.folder / "locks" / f"{_slug(stage)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def write_traceback(self, stage: str, text: str) -> str:
        """Store the traceback of an unexpected error; returns the name of the file within the folder."""
        name = f"errors/{_slug(stage)}.txt"
        with write_atomically(self.folder / name) as temporary:
            temporary.write_text(text, "utf-8")
        return name

    def training_dir(self, kind: str, name: str) -> Path:
        """Directory of the checkpoints of a system or an attack."""
        return self.folder / "training" / f"{kind}-{name}"

    def write_scores(self, system: str, protocol: str, scores_N: np.ndarray) -> None:
        """Store the scores of a system for paired intervals."""
        with write_atomically(self._scores_path(system, protocol)) as temporary, temporary.open("wb") as file:
            np.save(file, scores_N)

    def read_scores(self, system: str, protocol: str) -> np.ndarray:
        """The scores of a system.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        path = self._scores_path(system, protocol)
        try:
            scores_N: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"state/{path.name} is missing or damaged; run the experiment in a new folder"
            ) from error
        return scores_N

    def _part_path(self, stage: str) -> Path:
        return self.folder / "parts" / f"{_slug(stage)}.json"

    def _scores_path(self, system: str, protocol: str) -> Path:
        return self.folder / "state" / f"scores--{system}--{protocol}.npy"


def _slug(stage: str) -> str:
    return stage.replace("/", "--")


def json_sha256(config: Any) -> str:
    """Checksum of a JSON value that does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _read(path: Path) -> Json:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.parent.name}/{path.name} is damaged; delete it to run its stage again, or use a new folder"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path.parent.name}/{path.name} is damaged; delete it to run its stage again, or use a new folder"
        )
    return value


def _differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Keys at which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted({*one, *other})
            for found in _differences(one.get(key), other.get(key), f"{place}.{key}" if place else key)
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found
            for index, (a, b) in enumerate(zip(one, other, strict=True))
            for found in _differences(a, b, f"{place}[{index}]")
        ]
    return [] if one == other else [place or "everything"]
