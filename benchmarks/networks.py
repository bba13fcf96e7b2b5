"""Images per second of the networks, forward and training step, by memory layout and precision, on this CPU.

Run: python benchmarks/networks.py --threads 2 --json benchmarks/networks.json

Weights are random, since they do not affect the speed. "folded" is `for_inference`. "nn.PReLU" uses the activation of
torch instead of ours, to show the gain of our vectorised backward pass. The best round counts, because slower rounds on
a shared machine include other work.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ppfr.models import ArcFace, Backbone, MobileFaceNet, StemAdapter, conv_stem, for_inference, ir18
from ppfr.models._prelu import PReLU

NUM_CLASSES = 1000


def networks() -> dict[str, Backbone]:
    """The networks of the table."""
    y1 = MobileFaceNet(seed=0)
    return {
        "MobileFaceNet y1, 3x112x112": y1,
        "MobileFaceNet small, 3x112x112": MobileFaceNet(variant="small", seed=0),
        "y1 with stem adapter, 36x28x28": StemAdapter(conv_stem((36, 28, 28), (64, 28, 28), seed=0), y1, "down28"),
        "IR-18, 3x112x112": ir18(seed=0),
    }


def with_torch_prelu(network: Backbone) -> Backbone:
    """A copy whose activations are `torch.nn.PReLU`."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if type(module) is PReLU:
            module.__class__ = nn.PReLU
    return copied


def rate(step: Callable[[], None], num: int, rounds: int) -> float:
    """Images per second, best of the rounds after one warm-up round."""
    step()
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return round(num / best, 1)


def measure(network: Backbone, *, batch_size: int, layout: torch.memory_format, bf16: bool, rounds: int) -> dict:
    """One row: forward, forward folded, training step, training step with torch's PReLU."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, *network.in_shape, generator=rng).contiguous(memory_format=layout)
    labels = torch.randint(0, NUM_CLASSES, (batch_size,), generator=rng)

    def forward(model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                model(x)

        return run

    def training(model: Backbone) -> Callable[[], None]:
        head = ArcFace(NUM_CLASSES, model.dim, seed=0)
        optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=1e-3, momentum=0.9)

        def run() -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = head.loss(model(x), labels)
            loss.backward()
            optimizer.step()

        return run

    placed = copy.deepcopy(network).to(memory_format=layout)
    folded = for_inference(network, channels_last=layout is torch.channels_last)
    return {
        "forward": rate(forward(placed.eval()), batch_size, rounds),
        "forward_folded": rate(forward(folded), batch_size, rounds),
        "train": rate(training(placed.train()), batch_size, rounds),
        "train_nn_prelu": rate(training(with_torch_prelu(placed).train()), batch_size, rounds),
    }


def main() -> None:
    """Measure, print, and optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="substring of the network's name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, network in networks().items():
        if options.only not in name:
            continue
        for layout, layout_name in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels last")):
            for bf16 in (False, True):
                found = measure(network, batch_size=options.batch_size, layout=layout, bf16=bf16, rounds=options.rounds)
                precision = "bfloat16" if bf16 else "float32"
                rows.append({"network": name, "layout": layout_name, "precision": precision, **found})
                print(rows[-1], flush=True)
    result = {
        "what": "images per second: forward, forward with folded BatchNorm, training step, the same with nn.PReLU",
        "machine": platform.machine(),
        "threads": options.threads,
        "batch_size": options.batch_size,
        "torch": torch.__version__,
        "rows": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
