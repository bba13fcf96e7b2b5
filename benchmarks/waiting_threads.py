"""Speed of training steps by how the threads of OpenMP wait, on a quiet machine and next to busy processes.

Each setting is measured in a process of its own, since OpenMP reads it once. The settings take turns. "busy" adds
processes that compute without pause: one by default, so on two cores one of PyTorch's two threads has to share. Run it
on a machine that is otherwise idle; the load average before the first measurement is part of the result.

Run: python benchmarks/waiting_threads.py --json benchmarks/waiting_threads.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from ppfr.models import MobileFaceNet

SETTINGS = {
    "default of OpenMP": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000, as ppfr sets on Linux": {"GOMP_SPINCOUNT": "1000"},
    "both": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
}
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
BATCH = 32


def train(num_threads: int, seconds: float) -> None:
    """Print the images per second of training steps of MobileFaceNet."""
    torch.set_num_threads(num_threads)
    network = MobileFaceNet(seed=1).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    image_BCHW = torch.rand(BATCH, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    begun, num_steps = 0.0, -1  # the first step is not timed
    while num_steps < 1 or time.perf_counter() - begun < seconds:
        optimizer.zero_grad()
        network(image_BCHW).square().mean().backward()
        optimizer.step()
        num_steps += 1
        if num_steps == 0:
            begun = time.perf_counter()
    print(num_steps * BATCH / (time.perf_counter() - begun))


def measured(setting: dict[str, str], *, num_threads: int, seconds: float, num_busy: int) -> float:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"], env=clean) for _ in range(num_busy)]
    command = [sys.executable, __file__, "--child", "--threads", str(num_threads), "--seconds", str(seconds)]
    try:
        done = subprocess.run(command, env=clean | setting, capture_output=True, text=True, check=True)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--busy", type=int, default=1, help="processes that compute without pause")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        train(arguments.threads, arguments.seconds)
        return
    load = os.getloadavg()[0]
    rates: dict[str, dict[str, list[float]]] = {state: {name: [] for name in SETTINGS} for state in ("quiet", "busy")}
    for _ in range(arguments.turns):
        for state, by_setting in rates.items():
            for name, setting in SETTINGS.items():
                num_busy = arguments.busy if state == "busy" else 0
                by_setting[name].append(
                    measured(setting, num_threads=arguments.threads, seconds=arguments.seconds, num_busy=num_busy)
                )
    result = {
        "command": (
            f"python benchmarks/waiting_threads.py --threads {arguments.threads} --seconds {arguments.seconds:g} "
            f"--turns {arguments.turns} --busy {arguments.busy}"
        ),
        "machine": {"architecture": platform.machine(), "num_cores": os.cpu_count(), "load_average_before": load},
        "images_per_s": {
            state: {
                name: {"median": round(statistics.median(each), 1), "all": [round(rate, 1) for rate in each]}
                for name, each in by_setting.items()
            }
            for state, by_setting in rates.items()
        },
        "over_default": {
            state: {
                name: round(statistics.median(each) / statistics.median(by_setting["default of OpenMP"]), 2)
                for name, each in by_setting.items()
            }
            for state, by_setting in rates.items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
