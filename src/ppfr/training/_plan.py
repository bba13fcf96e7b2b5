"""How long, in what batches, under which schedule and precision a training runs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from ppfr.core import ProblemsError

SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

# What may differ between a run and its resumption, since no computed number depends on it.
_WITHOUT_EFFECT = ("checkpoint_every_steps", "num_prefetch", "log_every_steps")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The length and manner of a training; what is trained is the objective's business.

    Attributes:
        passes: times every image is seen (the last, incomplete batch of a pass is dropped).
        batch_size: images a step, over all devices together.
        schedule: "cosine" (to `end_factor` at the last step), "step" (times `gamma` at each milestone) or "constant".
        milestones: for "step": passes after which the rate drops, increasing, as in (10, 18, 22).
        gamma: for "step": the factor of each drop.
        end_factor: for "cosine": the rate at the end, as a share of the player's rate.
        warmup_steps: steps over which the rate rises linearly from rate / warmup_steps to the full rate.
        precision: "32-true", "16-mixed" (GPU only) or "bf16-mixed".
        clip_norm: largest L2 norm of one player's gradients; None does not clip.
        channels_last: keep images and convolutions in channels-last order, which most GPUs and CPUs prefer.
        flip: probability that an image is mirrored.
        checkpoint_every_steps: steps between checkpoints; 0 writes one at the end alone.
        log_every_steps: steps between lines of `log.jsonl`.
        num_prefetch: batches that are decoded ahead in a background thread; 0 decodes in the loop.
        max_steps: stop after so many steps (the schedule is fitted to them); None runs all passes.
        is_deterministic: ask torch for deterministic kernels. Without it a resumed run on a GPU is close to an
            uninterrupted one, not bit-identical.
        sync_batchnorm: share batch statistics between GPUs; CUDA with several devices only.

    Raises:
        ProblemsError: fields out of range, all of them at once.
    """

    passes: int
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
        is_rising = all(a < b for a, b in itertools.pairwise(milestones))
        requirements = [
            (self.passes >= 1, f"passes={self.passes}; allowed is 1 or more"),
            (self.batch_size >= 1, f"batch_size={self.batch_size}; allowed is 1 or more"),
            (self.schedule in SCHEDULES, f"schedule={self.schedule!r}; allowed is {', '.join(SCHEDULES)}"),
            (
                bool(milestones) == (self.schedule == "step"),
                f"milestones={milestones} with schedule={self.schedule!r}; 'step' needs them, the others have none",
            ),
            (
                is_rising and all(0 < m < self.passes for m in milestones),
                f"milestones={milestones}; allowed are rising passes between 0 and {self.passes}, exclusive",
            ),
            (0 < self.gamma < 1, f"gamma={self.gamma}; allowed is 0 < gamma < 1"),
            (0 <= self.end_factor <= 1, f"end_factor={self.end_factor}; allowed is 0 to 1"),
            (self.warmup_steps >= 0, f"warmup_steps={self.warmup_steps}; allowed is 0 or more"),
            (self.precision in PRECISIONS, f"precision={self.precision!r}; allowed is {', '.join(PRECISIONS)}"),
            (
                self.clip_norm is None or 0 < self.clip_norm < math.inf,
                f"clip_norm={self.clip_norm}; allowed is None or a positive number",
            ),
            (0 <= self.flip <= 1, f"flip={self.flip}; allowed is a probability, 0 to 1"),
            (
                self.checkpoint_every_steps >= 0,
                f"checkpoint_every_steps={self.checkpoint_every_steps}; allowed is >= 0",
            ),
            (self.log_every_steps >= 1, f"log_every_steps={self.log_every_steps}; allowed is 1 or more"),
            (self.num_prefetch >= 0, f"num_prefetch={self.num_prefetch}; allowed is 0 or more"),
            (self.max_steps is None or self.max_steps >= 1, f"max_steps={self.max_steps}; allowed is None or >= 1"),
        ]
        problems = [text for holds, text in requirements if not holds]
        if problems:
            raise ProblemsError("the training plan cannot be used", problems)
        object.__setattr__(self, "milestones", milestones)

    def num_steps(self, num_images: int) -> int:
        """Steps of the whole run over `num_images` images; 0 if they do not fill one batch."""
        total = self.passes * (num_images // self.batch_size)
        return total if self.max_steps is None else min(total, self.max_steps)

    def rate_factor(self, step: int, *, num_images: int) -> float:
        """What every learning rate is multiplied by at `step` (from 0), in closed form.

        Examples:
            >>> plan = Plan(passes=2, batch_size=10, warmup_steps=4)
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

    def identity(self) -> dict[str, Any]:
        """The fields that a resumed run must share with the run it goes on with."""
        return {name: value for name, value in self.as_dict().items() if name not in _WITHOUT_EFFECT}
