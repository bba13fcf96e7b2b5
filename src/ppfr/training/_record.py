"""What a training leaves for the report."""

from __future__ import annotations

import dataclasses
from typing import Any

from ppfr.training._objective import as_json


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """Facts of one training, JSON-ready through `as_dict`.

    Attributes:
        objective: `Objective.describe()`; names under "knowledge" what pretrained or distilled networks went in.
        plan: the plan's fields.
        data: name, counts and checksums of the training set.
        seed: root of every draw.
        steps: optimiser steps of each player.
        images_seen: images over all steps and devices.
        wall_s: seconds of training, over all resumptions, less set-up.
        images_per_s: images_seen / wall_s.
        losses: mean of each loss over the last 50 steps, named "player/term".
        curve: [step, sum of the charted players' losses], at most 200 points.
        outcome: `Objective.outcome()`.
        device: as in "cpu", "cuda:0".
        device_name: what the device calls itself.
        num_devices: processes that trained side by side.
        precision: the plan's precision.
        peak_memory_bytes: on CUDA the most that torch allocated on the first device, else the process's largest
            resident size so far, other work included.
        num_parameters: trainable parameters, by player.
        resumed_at_steps: steps at which the run was taken up again.
    """

    objective: dict[str, Any]
    plan: dict[str, Any]
    data: dict[str, Any]
    seed: int
    steps: int
    images_seen: int
    wall_s: float
    images_per_s: float
    losses: dict[str, float]
    curve: list[list[float]]
    outcome: dict[str, Any]
    device: str
    device_name: str
    num_devices: int
    precision: str
    peak_memory_bytes: int
    num_parameters: dict[str, int]
    resumed_at_steps: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        plain: dict[str, Any] = as_json(self)
        return plain
