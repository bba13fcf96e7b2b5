"""Checkpoints: one checksummed safetensors file each, written atomically, with the configuration of the run."""

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
    """Write the state after `step` steps. Keep this file and the previous one, and remove older files.

    Args:
        directory: created if absent.
        step: number of completed steps.
        tensors: on any device, in any memory format.
        facts: JSON-ready.

    Raises:
        StorageError: the disk is full or the directory is not writable. Earlier checkpoints are not changed.
    """
    # Copy the tensors: safetensors rejects tensors that share storage, such as tied weights.
    plain = {name: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach()) for name, value in tensors.items()}
    text = json.dumps(dict(facts))
    metadata = {"format": _FORMAT, "facts": text, "sha256": _digest(plain, text)}
    path = Path(directory) / f"step-{step:09d}.safetensors"
    with write_atomically(path) as temporary:
        # Write the bytes from Python: a failing write raises an OSError with a reason, which the writer of safetensors
        # hides.
        temporary.write_bytes(safetensors.torch.save(plain, metadata=metadata))
    unfinished = Path(directory).glob(".step-*")  # left by a run that was killed while writing
    for old in [*find_checkpoints(directory)[:-_NUM_KEPT], *unfinished]:
        old.unlink(missing_ok=True)
    return path


def find_checkpoints(directory: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(Path(directory).glob("step-*.safetensors"))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of one checkpoint.

    Raises:
        CheckpointError: the file is damaged, or is not a checkpoint of ppfr.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a training checkpoint; choose another run directory"
        )
    if metadata.get("sha256") != _digest(tensors, metadata.get("facts", "")):
        raise _damaged(path)
    return tensors, json.loads(metadata["facts"])


def check_configuration(now: Mapping[str, Any], then: Mapping[str, Any], *, path: Path) -> None:
    """Check that a checkpoint has the current configuration.

    Raises:
        CheckpointError: it differs; lists every difference with both values.
    """
    differences = list(_differences(json.loads(json.dumps(dict(now))), dict(then), ""))
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences[:20])
        raise CheckpointError(
            f"{path} has another configuration. Restore that configuration, or choose another run directory:\n{lines}"
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
    """Checksum of named tensors, to compare the weights of two networks."""
    return _digest({name: value.detach().cpu() for name, value in tensors.items()}, "")


def _damaged(path: Path) -> CheckpointError:
    earlier = [p for p in find_checkpoints(path.parent) if p < path]
    remedy = f"delete it to resume from {earlier[-1].name}" if earlier else "delete it to start again"
    return CheckpointError(f"{path} is damaged (truncated or altered); {remedy}")
