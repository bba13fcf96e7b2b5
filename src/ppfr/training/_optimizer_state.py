"""The state of an optimizer as named tensors, so that checkpoints need no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppfr.core import CheckpointError


def optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """Every tensor of the state, named "PARAMETER_INDEX/STATE_NAME"."""
    found: dict[str, Tensor] = {}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                assert isinstance(value, Tensor), f"optimizer state {name} is not a tensor"
                found[f"{number}/{name}"] = value
    return found


def restore_optimizer(optimizer: Any, tensors: Mapping[str, Tensor], *, prefix: str, path: Path) -> None:
    """Load what `optimizer_tensors` returned. The loop sets the learning rates.

    Raises:
        CheckpointError: the state belongs to other parameters.
    """
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    parameters = [p for group in inner.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key in tensors:
        if key.startswith(prefix):
            number, name = key.removeprefix(prefix).split("/")
            if int(number) >= len(parameters):
                raise CheckpointError(f"{path} has the optimizer state of another model; choose another run directory")
            parameter, value = parameters[int(number)], tensors[key]
            if value.shape == parameter.shape:
                # Use the memory format of the parameter: sums must have the same order as in an uninterrupted run.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(number), {})[name] = value.detach()
    inner.load_state_dict({"state": state, "param_groups": inner.state_dict()["param_groups"]})
