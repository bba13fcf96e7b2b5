"""The record of a training run."""

from __future__ import annotations

import dataclasses
from typing import Any

from ppfr.core import as_json


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """Facts about one training run, JSON-ready through `as_dict`.

    Attributes:
        task: `TrainingTask.describe()`. Its "provenance" lists the pretrained networks that the run used.
        plan: the fields of the plan.
        data: name, counts and checksums of the training set.
        seed: seed of every random draw.
        steps: number of steps.
        images_seen: images over all steps and devices.
        wall_s: seconds of training over all resumptions, without set-up.
        images_per_s: images_seen / wall_s.
        losses: mean of each loss over the last 50 steps, named "group/term".
        curve: [step, sum of the losses of the charted optimizer groups], at most 200 points.
        outcome: `TrainingTask.outcome()`.
        device: for example "cpu" or "cuda:0".
        device_name: name of the hardware.
        num_devices: number of processes that trained in parallel.
        precision: precision of the plan.
        peak_memory_bytes: on CUDA, the maximum that torch allocated on the first device; otherwise the maximum resident
            size of the process so far, including other work.
        num_parameters: number of trainable parameters per optimizer group.
        resumed_at_steps: steps at which the run was resumed.
    """

    task: dict[str, Any]
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
