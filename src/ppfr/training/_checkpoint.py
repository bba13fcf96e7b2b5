"""Checkpoints: one safetensors file each, whole or absent, tied to the run's configuration, checksummed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ppfr.assets import write_atomically
from ppfr.core import CheckpointError

_FORMAT = "ppfr-checkpoint-1"
_NUM_KEPT = 2


def save_checkpoint(directory: Path, *, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps; keep this file and the one before, remove older ones.

    Args:
        directory: made if absent.
        step: steps that are done.
        tensors: any devices and layouts.
        facts: JSON-ready.

    Raises:
        StorageError: the disk is full or the directory cannot be written; earlier checkpoints are untouched.
    """
    # Own copies: safetensors refuses tensors that share storage, as tied weights do.
    plain = {name: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach()) for name, value in tensors.items()}
    text = json.dumps(dict(facts))
    metadata = {"format": _FORMAT, "facts": text, "sha256": _digest(plain, text)}
    path = Path(directory) / f"step-{step:09d}.safetensors"
    with write_atomically(path) as temporary:
        # As bytes through Python: a failing write is an OSError with a reason, which the file writer inside the
        # safetensors library hides.
        temporary.write_bytes(safetensors.torch.save(plain, metadata=metadata))
    unfinished = Path(directory).glob(".step-*")  # of a run that was killed while it wrote
    for old in [*find_checkpoints(directory)[:-_NUM_KEPT], *unfinished]:
        old.unlink(missing_ok=True)
    return path


def find_checkpoints(directory: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(Path(directory).glob("step-*.safetensors"))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of one checkpoint.

    Raises:
        CheckpointError: the file is damaged, or is not a checkpoint of this program.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but no training checkpoint; choose another run directory")
    if metadata.get("sha256") != _digest(tensors, metadata.get("facts", "")):
        raise _damaged(path)
    return tensors, json.loads(metadata["facts"])


def check_configuration(now: Mapping[str, Any], then: Mapping[str, Any], *, path: Path) -> None:
    """Refuse to go on from a checkpoint of another configuration.

    Raises:
        CheckpointError: names every entry that differs, with both values.
    """
    differences = list(_differences(json.loads(json.dumps(dict(now))), dict(then), ""))
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences[:20])
        raise CheckpointError(
            f"{path} belongs to another configuration; go back to it, or choose another run directory:\n{lines}"
        )


def _differences(now: Any, then: Any, where: str) -> list[str]:
    if isinstance(now, dict) and isinstance(then, dict):
        found: list[str] = []
        for key in sorted(now.keys() | then.keys()):
            name = f"{where}.{key}" if where else key
            found += _differences(now.get(key, "(absent)"), then.get(key, "(absent)"), name)
        return found
    return [] if now == then else [f"{where}: {_short(then)} in the checkpoint, {_short(now)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_digest(tensors: Mapping[str, Tensor]) -> str:
    """Checksum of named tensors, for knowing whether two networks hold the same weights."""
    return _digest({name: value.detach().cpu() for name, value in tensors.items()}, "")


def _damaged(path: Path) -> CheckpointError:
    earlier = [p for p in find_checkpoints(path.parent) if p < path]
    remedy = f"delete it to go on from {earlier[-1].name}" if earlier else "delete it to begin again"
    return CheckpointError(f"{path} is damaged (truncated or altered); {remedy}")
