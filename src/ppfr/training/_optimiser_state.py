"""An optimiser's state as named tensors and back, so that checkpoints need no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppfr.core import CheckpointError


def optimiser_tensors(optimiser: Any) -> dict[str, Tensor]:
    """Every tensor of the state, named "<parameter number>/<state name>"."""
    found: dict[str, Tensor] = {}
    for number, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                assert isinstance(value, Tensor), f"optimiser state {name} is no tensor"
                found[f"{number}/{name}"] = value
    return found


def restore_optimiser(optimiser: Any, tensors: Mapping[str, Tensor], *, prefix: str, path: Path) -> None:
    """Load what `optimiser_tensors` gave; the groups' rates are the loop's business.

    Raises:
        CheckpointError: the state is of other parameters.
    """
    inner: torch.optim.Optimizer = getattr(optimiser, "optimizer", optimiser)
    parameters = [p for group in inner.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key in tensors:
        if key.startswith(prefix):
            number, name = key.removeprefix(prefix).split("/")
            if int(number) >= len(parameters):
                raise CheckpointError(f"{path} holds the optimiser of another model; choose another run directory")
            parameter, value = parameters[int(number)], tensors[key]
            if value.shape == parameter.shape:
                # The parameter's memory order: the order of a sum must be that of the uninterrupted run.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(number), {})[name] = value.detach()
    inner.load_state_dict({"state": state, "param_groups": inner.state_dict()["param_groups"]})
