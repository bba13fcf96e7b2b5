"""Cost of mixing: a mixture compared with a training step, and AdaMixUp compared with fixed MixUp.

Three comparisons on one network (MobileFaceNet on 36x28x28 PPFR-FD channels, ArcFace of 1,000 classes), measured
alternately in one process, medians over rounds:

- the mixture of a batch (weights, partners, weighted sums) as a share of a whole training step;
- the same mixture in a straightforward implementation: a loop over rows that draws weights until the cap holds;
- a step of AdaMixUp as a multiple of the mean step of fixed MixUp over the candidate numbers of images. The strategy
  network chooses at every step, and is updated with a look-ahead at every fourth step.

Run: python benchmarks/mixing.py --json benchmarks/mixing.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppfr.masking import MixUp, PpfrFd
from ppfr.models import ArcFace, MobileFaceNet, StrategyNetwork
from ppfr.training import (
    AdaptiveMixingTask,
    Batch,
    MarginTask,
    OptimizerSettings,
    StrategySettings,
    TrainingTask,
)

BATCH_SIZE, NUM_CLASSES, CANDIDATES = 64, 1000, (2, 3, 4, 5)


def straightforward(masked_BKPQ: Tensor, num_images: int, max_weight: float, rng: np.random.Generator) -> Tensor:
    """MixUp row by row: weights are drawn until the cap holds, then images are multiplied one by one."""
    mixed = torch.zeros_like(masked_BKPQ)
    partners = [np.arange(len(masked_BKPQ)), *(rng.permutation(len(masked_BKPQ)) for _ in range(num_images - 1))]
    for row in range(len(masked_BKPQ)):
        while True:
            weights = np.abs(rng.normal(size=num_images))
            weights /= weights.sum()
            if weights.max() <= max_weight:
                break
        for place in range(num_images):
            mixed[row] += float(weights[place]) * masked_BKPQ[partners[place][row]]
    return mixed


class Trainer:
    """The steps of the training loop without the loop: one update per optimizer group that is due."""

    def __init__(self, task: TrainingTask) -> None:
        self.task = task.train()
        self.groups = task.optimizer_groups()
        self.optimizers = {group.name: group.make_optimizer() for group in self.groups}
        self.steps = 0

    def step(self, batch: Batch) -> None:
        rng = torch.Generator().manual_seed(self.steps)
        self.task.begin_step(self.steps, 0.5)
        for group in self.groups:
            if self.steps % group.every_steps:
                continue
            others = [p for o in self.groups if o is not group for p in o.all_parameters()]
            for parameter in others:
                parameter.requires_grad_(False)
            loss = self.task.loss(group.name, batch, rng=rng, progress=0.5)["loss"]
            self.optimizers[group.name].zero_grad(set_to_none=True)
            loss.backward()
            for parameter in others:
                parameter.requires_grad_(True)
            self.optimizers[group.name].step()
        self.task.end_step(self.steps, 0.5)
        self.steps += 1


def recogniser(masker: PpfrFd, *, mixer: MixUp | None) -> MarginTask:
    network = MobileFaceNet(in_shape=masker.spec.out_shape, dim=128, seed=1)
    head = ArcFace(NUM_CLASSES, 128, seed=1)
    return MarginTask(masker, network, head, mixer=mixer, optimizer=OptimizerSettings(lr=0.01))


def adaptive(masker: PpfrFd, *, width: int) -> AdaptiveMixingTask:
    strategy = StrategyNetwork(masker.spec.out_shape, len(CANDIDATES), width=width, seed=1)
    mixers = [MixUp(num_images=k) for k in CANDIDATES]
    settings = StrategySettings(every_steps=4)
    return AdaptiveMixingTask(recogniser(masker, mixer=None), mixers, strategy, settings=settings)


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def measure(rounds: int) -> dict[str, object]:
    masker = PpfrFd(secret=bytes(32))
    generator = torch.Generator().manual_seed(1)
    image_BCHW = torch.rand(BATCH_SIZE, 3, 112, 112, generator=generator)
    labels_B = torch.randint(0, NUM_CLASSES, (BATCH_SIZE,), generator=generator)
    batch = Batch(images_BCHW=image_BCHW, labels_B=labels_B, indices_B=torch.arange(BATCH_SIZE))
    masked_BKPQ = masker.mask(image_BCHW, rng=generator)
    slow_rng = np.random.default_rng(1)
    trainers = {f"fixed {k}": Trainer(recogniser(masker, mixer=MixUp(num_images=k))) for k in CANDIDATES}
    trainers |= {f"adaptive, width {width}": Trainer(adaptive(masker, width=width)) for width in (16, 64)}
    times: dict[str, list[float]] = {}
    for round_number in range(rounds + 1):
        for k in CANDIDATES:
            mixer = MixUp(num_images=k)
            found = {
                f"mix {k}": timed(lambda mixer=mixer: mixer.mix(masked_BKPQ, labels_B, rng=generator)),
                f"straightforward mix {k}": timed(lambda k=k: straightforward(masked_BKPQ, k, 0.55, slow_rng)),
            }
            for name, seconds in found.items():
                times.setdefault(name, []).append(seconds)
        for name, trainer in trainers.items():
            # Four steps at a time, so that each measurement contains one step of the strategy.
            for_four = timed(lambda trainer=trainer: [trainer.step(batch) for _ in range(4)])
            times.setdefault(name, []).append(for_four / 4)
        if round_number == 0:
            times = {}  # the first round warms up
    medians = {name: statistics.median(values) for name, values in times.items()}
    fixed = statistics.fmean(medians[f"fixed {k}"] for k in CANDIDATES)
    return {
        "median_s": {name: round(value, 6) for name, value in medians.items()},
        "mix_share_of_step": {k: round(medians[f"mix {k}"] / medians[f"fixed {k}"], 4) for k in CANDIDATES},
        "mix_speedup_over_straightforward": {
            k: round(medians[f"straightforward mix {k}"] / medians[f"mix {k}"], 1) for k in CANDIDATES
        },
        "adaptive_over_fixed": {
            name: round(medians[name] / fixed, 3) for name in medians if name.startswith("adaptive")
        },
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        **measure(arguments.rounds),
        "batch_size": BATCH_SIZE,
        "num_threads": arguments.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
