"""What the training loop costs beside a bare loop: CPU time and wall time of the same steps, turn and turn about.

Run: python benchmarks/training_overhead.py --json benchmarks/training_overhead.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ppfr.core import ImageMasker, MaskSpec
from ppfr.models import ArcFace, MobileFaceNet
from ppfr.training import MarginObjective, OptimiserSettings, Plan, fit

BATCH_SIZE, STEPS = 16, 12


class Noise:
    """Random pixels; reading costs a copy, so that decoding does not hide the loop."""

    name = "noise"

    def __init__(self, num_images: int) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, size=(num_images, 112, 112, 3), dtype=np.uint8)
        self.subject_ids = [str(i % 10) for i in range(num_images)]

    def __len__(self) -> int:
        return len(self.subject_ids)

    def read(self, indices) -> np.ndarray:
        return self._pixels[list(indices)]


class Plain(ImageMasker):
    """The identity, so that only the loop is measured."""

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


def _objective() -> MarginObjective:
    network = MobileFaceNet(in_shape=(3, 112, 112), seed=1)
    settings = OptimiserSettings(optimiser="sgd", lr=0.01)
    return MarginObjective(Plain(), network, ArcFace(10, network.dim, seed=1), optimiser=settings)


def bare_loop(images: Noise) -> None:
    """The least that trains the same network on the same number of images."""
    objective = _objective().to(memory_format=torch.channels_last)
    objective.train()
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    labels = torch.tensor([int(s) for s in images.subject_ids])
    for step in range(STEPS):
        chosen = range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)
        pixels = torch.from_numpy(images.read(chosen)).permute(0, 3, 1, 2).float() / 255
        optimiser.zero_grad()
        objective.head.loss(objective.network(pixels), labels[list(chosen)]).backward()
        optimiser.step()


def our_loop(images: Noise) -> None:
    """`fit` with all that it does: logging, a progress line, a checkpoint at the end."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(passes=1, batch_size=BATCH_SIZE)
        fit(_objective(), images, plan=plan, seed=1, run_dir=Path(folder), device="cpu")


def _cost(loop, images: Noise) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    loop(images)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = Noise(STEPS * BATCH_SIZE)
    for loop in (bare_loop, our_loop):
        loop(images)
    pairs = [(_cost(bare_loop, images), _cost(our_loop, images)) for _ in range(options.rounds)]
    result = {
        "what": f"MobileFaceNet + ArcFace, {STEPS} steps of {BATCH_SIZE} images of 112x112, fit() over a bare loop",
        "machine": platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "rounds": options.rounds,
        "bare_cpu_s": statistics.median(bare[1] for bare, _ in pairs),
        "cpu_time_ratio": statistics.median(ours[1] / bare[1] for bare, ours in pairs),
        "wall_time_ratio": statistics.median(ours[0] / bare[0] for bare, ours in pairs),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
