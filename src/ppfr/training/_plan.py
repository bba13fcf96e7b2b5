"""The training plan: epochs, batch size, learning-rate schedule and precision."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from ppfr.core import ProblemsError

SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

# These fields may differ between a run and its resumption, since no computed number depends on them.
_WITHOUT_EFFECT = ("checkpoint_every_steps", "num_prefetch", "log_every_steps")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Length, schedule and precision of a training run, independent of the task.

    Attributes:
        epochs: number of times that every image is used. The last, incomplete batch of an epoch is dropped.
        batch_size: images per step, over all devices together.
        schedule: "cosine" (down to `end_factor` at the last step), "step" (multiplied by `gamma` at each milestone) or
            "constant".
        milestones: for "step": epochs after which the learning rate drops, in increasing order, such as (10, 18, 22).
        gamma: for "step": factor of each drop.
        end_factor: for "cosine": final learning rate, as a share of the full learning rate.
        warmup_steps: steps over which the learning rate rises linearly from 1 / warmup_steps of the full rate to the
            full rate.
        precision: "32-true", "16-mixed" (GPU only) or "bf16-mixed".
        clip_norm: maximum L2 norm of the gradients of one optimizer group; None does not clip.
        channels_last: use the channels-last memory format, which is faster on most GPUs and CPUs.
        flip: probability that an image is mirrored.
        checkpoint_every_steps: steps between checkpoints; 0 writes one checkpoint, at the end.
        log_every_steps: steps between lines of `log.jsonl`.
        num_prefetch: number of batches that a background thread decodes ahead; 0 decodes in the loop.
        max_steps: maximum number of steps, to which the schedule is fitted; None runs all epochs.
        is_deterministic: use deterministic kernels. Without them, a resumed run on a GPU is close to an uninterrupted
            run, but not bit-identical.
        sync_batchnorm: share batch statistics between GPUs. Requires CUDA and several devices.

    Raises:
        ProblemsError: fields are out of range; lists all of them.
    """

    epochs: int
    batch_size: int
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    end_factor: float = 0.0
    warmup_steps: int = 0
    precision: str = "32-true"
    clip_norm: float | None = None
    channels_last: bool = True
    flip: float = 0.5
    checkpoint_every_steps: int = 500
    log_every_steps: int = 10
    num_prefetch: int = 2
    max_steps: int | None = None
    is_deterministic: bool = True
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        milestones = tuple(self.milestones)
        is_increasing = all(a < b for a, b in itertools.pairwise(milestones))
        requirements = [
            (self.epochs >= 1, f"epochs={self.epochs}; must be 1 or more"),
            (self.batch_size >= 1, f"batch_size={self.batch_size}; must be 1 or more"),
            (self.schedule in SCHEDULES, f"schedule={self.schedule!r}; allowed: {', '.join(SCHEDULES)}"),
            (
                bool(milestones) == (self.schedule == "step"),
                f"milestones={milestones} with schedule={self.schedule!r}; give milestones for 'step', and only "
                "for 'step'",
            ),
            (
                is_increasing and all(0 < m < self.epochs for m in milestones),
                f"milestones={milestones}; must be increasing epochs between 0 and {self.epochs}, exclusive",
            ),
            (0 < self.gamma < 1, f"gamma={self.gamma}; must satisfy 0 < gamma < 1"),
            (0 <= self.end_factor <= 1, f"end_factor={self.end_factor}; must be from 0 to 1"),
            (self.warmup_steps >= 0, f"warmup_steps={self.warmup_steps}; must be 0 or more"),
            (self.precision in PRECISIONS, f"precision={self.precision!r}; allowed: {', '.join(PRECISIONS)}"),
            (
                self.clip_norm is None or 0 < self.clip_norm < math.inf,
                f"clip_norm={self.clip_norm}; must be None or a positive number",
            ),
            (0 <= self.flip <= 1, f"flip={self.flip}; must be a probability, from 0 to 1"),
            (
                self.checkpoint_every_steps >= 0,
                f"checkpoint_every_steps={self.checkpoint_every_steps}; must be 0 or more",
            ),
            (self.log_every_steps >= 1, f"log_every_steps={self.log_every_steps}; must be 1 or more"),
            (self.num_prefetch >= 0, f"num_prefetch={self.num_prefetch}; must be 0 or more"),
            (self.max_steps is None or self.max_steps >= 1, f"max_steps={self.max_steps}; must be None, or 1 or more"),
        ]
        problems = [text for holds, text in requirements if not holds]
        if problems:
            raise ProblemsError("invalid training plan", problems)
        object.__setattr__(self, "milestones", milestones)

    def num_steps(self, num_images: int) -> int:
        """Number of steps of the run over `num_images` images; 0 if they do not fill one batch."""
        total = self.epochs * (num_images // self.batch_size)
        return total if self.max_steps is None else min(total, self.max_steps)

    def rate_factor(self, step: int, *, num_images: int) -> float:
        """The factor of every learning rate at `step`, which counts from 0. A closed-form function of its arguments.

        Examples:
            >>> plan = Plan(epochs=2, batch_size=10, warmup_steps=4)
            >>> [plan.rate_factor(step, num_images=60) for step in (0, 3, 4, 8)]
            [0.25, 1.0, 1.0, 0.5]
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            share = (step - self.warmup_steps) / max(1, self.num_steps(num_images) - self.warmup_steps)
            return self.end_factor + (1 - self.end_factor) * 0.5 * (1 + math.cos(math.pi * share))
        if self.schedule == "step":
            seen = step / (num_images // self.batch_size)
            return float(self.gamma ** sum(seen >= milestone for milestone in self.milestones))
        return 1.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**dataclasses.asdict(self), "milestones": list(self.milestones)}

    def fingerprint(self) -> dict[str, Any]:
        """The fields that a run and its resumption must share."""
        return {name: value for name, value in self.as_dict().items() if name not in _WITHOUT_EFFECT}
