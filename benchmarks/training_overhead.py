"""Overhead of the training loop compared with a bare loop: CPU time of the same steps, measured alternately.

The overhead is measured with a network of negligible cost. With a real network it would be smaller than the noise of
the machine. It is reported as a share of the step of a real network.

Run: python benchmarks/training_overhead.py --json benchmarks/training_overhead.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ppfr.core import ImageMasker, MaskSpec, RunOptions
from ppfr.models import ArcFace, Backbone, MobileFaceNet
from ppfr.training import MarginTask, OptimizerSettings, Plan, fit

BATCH_SIZE, SHAPE = 32, (3, 112, 112)


class Noise:
    """Random pixels. Reading is a copy, so that decoding does not dominate the measurement."""

    name = "noise"

    def __init__(self, num_images: int) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, size=(num_images, 112, 112, 3), dtype=np.uint8)
        self.subject_ids = [str(i % 10) for i in range(num_images)]

    def __len__(self) -> int:
        return len(self.subject_ids)

    def read(self, indices) -> np.ndarray:
        return self._pixels[list(indices)]


class Plain(ImageMasker):
    """The identity function, so that only the loop is measured."""

    name = "plain"
    spec = MaskSpec(
        in_shape=(3, 112, 112),
        out_shape=(3, 112, 112),
        value_range=(0.0, 1.0),
        is_stochastic=False,
        is_keyed=False,
        is_trainable=False,
        is_differentiable=True,
        bytes_per_face=2 * 3 * 112 * 112,
    )

    def mask(self, image_BCHW, *, rng):
        return image_BCHW

    def public_config(self):
        return {}


class Tiny(Backbone):
    """One 1x1 convolution with stride 16."""

    def __init__(self) -> None:
        head = nn.Sequential(nn.Flatten(), nn.Linear(49, 8))
        parts = {"only": nn.Conv2d(3, 1, 1, stride=16)}
        super().__init__(in_shape=SHAPE, dim=8, takes_image=True, entry=nn.Identity(), parts=parts, head=head)

    def config(self):
        return {}


def _task(network: Backbone) -> MarginTask:
    settings = OptimizerSettings(optimizer="sgd", lr=0.01)
    return MarginTask(Plain(), network, ArcFace(10, network.dim, seed=1), optimizer=settings)


def bare_loop(images: Noise, network: Backbone) -> None:
    """A minimal loop that trains the same network on the same number of images."""
    task = _task(network).to(memory_format=torch.channels_last)
    task.train()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    labels = torch.tensor([int(s) for s in images.subject_ids])
    for step in range(len(images) // BATCH_SIZE):
        chosen = range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)
        pixels = torch.from_numpy(images.read(chosen)).permute(0, 3, 1, 2).float() / 255
        optimizer.zero_grad()
        task.head.loss(task.network(pixels), labels[list(chosen)]).backward()
        optimizer.step()


def our_loop(images: Noise, network: Backbone) -> None:
    """`fit` with mirroring and logging, without a checkpoint."""
    plan = Plan(epochs=1, batch_size=BATCH_SIZE)
    fit(_task(network), images, plan=plan, seed=1, options=RunOptions(device="cpu", shows_progress=False))


def _cpu_s(loop, images: Noise, network: Backbone) -> float:
    began = time.process_time()
    loop(images, network)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    many, few = Noise(100 * BATCH_SIZE), Noise(3 * BATCH_SIZE)
    for loop in (bare_loop, our_loop):
        loop(few, Tiny())
    pairs = [(_cpu_s(bare_loop, many, Tiny()), _cpu_s(our_loop, many, Tiny())) for _ in range(options.rounds)]
    overhead_s = statistics.median(ours - bare for bare, ours in pairs) / 100
    network = MobileFaceNet(in_shape=SHAPE, seed=1)
    step_s = min(_cpu_s(bare_loop, few, network) for _ in range(3)) / 3
    result = {
        "what": f"CPU time of a step of {BATCH_SIZE} images of 112x112: fit() compared with a bare loop",
        "machine": platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "rounds": options.rounds,
        "overhead_ms_per_step": round(1000 * overhead_s, 3),
        "mobilefacenet_step_ms": round(1000 * step_s, 1),
        "overhead_share": round(overhead_s / step_s, 4),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
