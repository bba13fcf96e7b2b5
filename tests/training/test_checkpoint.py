"""Checkpoint files: atomic writes, checksums, two kept, and a full disk."""

from __future__ import annotations

import resource

import pytest
import torch
from safetensors.torch import save_file

from ppfr.core import CheckpointError, StorageError
from ppfr.training._checkpoint import find_checkpoints, load_checkpoint, save_checkpoint

TENSORS = {
    "model/a": torch.arange(6.0).reshape(2, 3),
    "model/half": torch.ones(3, dtype=torch.bfloat16),
    "model/count": torch.tensor(7),
    "model/strided": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
}


def test_checkpoint_round_trip_keeps_two_files(tmp_path):
    tied = {**TENSORS, "model/tied": TENSORS["model/a"]}
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, step=step, tensors=tied, facts={"rate": 0.1, "step": step})
    assert [p.name for p in find_checkpoints(tmp_path)] == ["step-000000002.safetensors", "step-000000003.safetensors"]
    tensors, facts = load_checkpoint(path)
    assert facts == {"rate": 0.1, "step": 3}
    assert tensors.keys() == tied.keys()
    assert all(torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in tied.items())


def test_damaged_checkpoint_is_rejected_with_remedy(tmp_path):
    save_checkpoint(tmp_path, step=1, tensors=TENSORS, facts={})
    path = save_checkpoint(tmp_path, step=2, tensors=TENSORS, facts={})
    good = path.read_bytes()
    for place in (0, 5, 60, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    path.write_bytes(good[:-3])
    with pytest.raises(CheckpointError, match=r"is damaged .*delete it to resume from step-000000001"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        load_checkpoint(path)


def test_failed_write_keeps_only_the_earlier_checkpoint(tmp_path):
    save_checkpoint(tmp_path, step=1, tensors=TENSORS, facts={})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"Could not write[\s\S]*Free space"):
            save_checkpoint(tmp_path, step=2, tensors={"model/large": torch.zeros(10_000)}, facts={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.safetensors"]
    load_checkpoint(tmp_path / "step-000000001.safetensors")


def test_leftovers_of_a_killed_write_are_removed(tmp_path):
    (tmp_path / ".step-000000001.safetensors.x1.safetensors").write_bytes(b"half")
    save_checkpoint(tmp_path, step=2, tensors=TENSORS, facts={})
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000002.safetensors"]
