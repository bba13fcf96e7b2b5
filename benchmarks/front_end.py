"""Speed and memory of the collapsed x8 front end compared with straightforward ones, and of masking, in one run.

    python benchmarks/front_end.py --batch 64 --threads 2 --repeats 3

Two straightforward implementations are timed. "unfold" cuts blocks and multiplies each by the DCT matrix. It is the
reference in the tests, and the usual implementation in public code. "conv" computes the transform as a convolution with
stride 8. All implementations are measured alternately, so that other load affects all of them. Each is called several
times in a row, as in training. The first calls include the cost of new memory pages and are reported separately as
"first_call". Wall time and processor time are recorded. On a shared machine, processor time is the better measure of
cost. Peak memory is the growth of the peak resident size of a new process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ppfr.frequency import bdct_upsampled, inverse_bdct_upsampled
from ppfr.masking import PpfrFd

HERE = Path(__file__).parent


def straightforward() -> ModuleType:
    path = HERE.parent / "tests" / "reference" / "bdct_upsampled.py"
    spec = importlib.util.spec_from_file_location("reference_bdct_upsampled", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = straightforward()


def unfold_path(image_BCHW: Tensor) -> Tensor:
    return REFERENCE.bdct_upsampled(image_BCHW)


def conv_path(image_BCHW: Tensor) -> Tensor:
    batch, _, height, width = image_BCHW.shape
    planes = REFERENCE.upsampled_ycbcr(image_BCHW).reshape(batch * 3, 1, 8 * height, 8 * width)
    dct = REFERENCE.dct8()
    filters = torch.einsum("ui,vj->uvij", dct, dct).reshape(64, 1, 8, 8)
    return F.conv2d(planes, filters, stride=8).view(batch, 192, height, width)


def images(batch: int) -> Tensor:
    return torch.rand(batch, 3, 112, 112, generator=torch.Generator().manual_seed(0))


class Seconds(NamedTuple):
    wall: float
    cpu: float


def seconds(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def forward_and_backward(path: Callable[[Tensor], Tensor], image: Tensor) -> tuple[Seconds, Seconds]:
    """Time of the forward pass without gradients, and time of the backward pass alone."""
    with torch.no_grad():
        forward_s = seconds(lambda: path(image))
    result = path(image.requires_grad_())
    weight = torch.ones_like(result)
    backward_s = seconds(lambda: result.backward(weight))
    image.requires_grad_(False).grad = None
    return forward_s, backward_s


NUM_WARM_CALLS, NUM_TIMED_CALLS = 3, 3


def time_front_end(batch: int, repeats: int) -> dict[str, list[Seconds]]:
    image = images(batch)
    shape = (batch, 192, 112, 112)
    warm = torch.empty(shape).fill_(0.0)
    times: dict[str, list[Seconds]] = {}

    def note(name: str, value: Seconds) -> None:
        times.setdefault(name, []).append(value)

    paths = {"ours": bdct_upsampled, "unfold": unfold_path, "conv": conv_path}
    for _ in range(repeats):
        for name, path in paths.items():
            for call in range(NUM_WARM_CALLS + NUM_TIMED_CALLS):
                forward_s, backward_s = forward_and_backward(path, image)
                if call == 0:
                    note(f"{name}_forward_first_call", forward_s)
                if call >= NUM_WARM_CALLS:
                    note(f"{name}_forward", forward_s)
                    note(f"{name}_backward", backward_s)
        note("ours_forward_into_out", seconds(lambda: bdct_upsampled(image, out=warm)))
        note("write_output_fresh", seconds(lambda: torch.empty(shape).fill_(1.0)))
        note("write_output_warm", seconds(lambda: warm.fill_(1.0)))
        note("ours_inverse", seconds(lambda: inverse_bdct_upsampled(warm)))
    return times


def time_masking(batch: int, repeats: int) -> dict[str, list[Seconds]]:
    image, rng = images(batch), torch.Generator()
    settings: dict[str, dict[str, Any]] = {
        "block y 36x28x28": {},
        "block y 36x14x14": {"stride": 8},
        "block ycbcr 108x28x28": {"colours": "ycbcr"},
        "block y 36x28x28 per_image": {"permutation": "per_image"},
        "upsampled y 36x112x112": {"front_end": "upsampled"},
        "upsampled ycbcr 108x112x112": {"front_end": "upsampled", "colours": "ycbcr"},
    }
    maskers = {
        name: PpfrFd(secret=None if "per_image" in name else bytes(32), **setting) for name, setting in settings.items()
    }
    times: dict[str, list[Seconds]] = {name: [] for name in maskers}
    for repeat in range(repeats + 1):
        for name, masker in maskers.items():
            taken = seconds(lambda masker=masker: masker.mask(image, rng=rng))  # type: ignore[misc]
            if repeat:
                times[name].append(taken)
    return times


def peak_growth_bytes(path: str, batch: int, *, threads: int) -> int:
    """Peak resident size of a new process, minus its size before the transform."""
    command = [sys.executable, __file__, "--child", path, "--batch", str(batch), "--threads", str(threads)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(path: str, batch: int) -> None:
    image = images(batch)
    paths: dict[str, Callable[[Tensor], Tensor]] = {"ours": bdct_upsampled, "unfold": unfold_path, "conv": conv_path}
    with torch.no_grad():
        paths[path](image[:1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        paths[path](image)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def machine_facts(threads: int) -> dict[str, object]:
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average_at_start": os.getloadavg()[0],
    }


def median(values: list[Seconds], kind: str) -> float:
    return statistics.median(getattr(value, kind) for value in values)


def summarised(times: dict[str, list[Seconds]], batch: int) -> dict[str, dict[str, float]]:
    return {
        name: {
            "median_wall_s": round(median(values, "wall"), 5),
            "min_wall_s": round(min(value.wall for value in values), 5),
            "median_cpu_s": round(median(values, "cpu"), 5),
            "images_per_s": round(batch / median(values, "wall"), 1),
            "images_per_cpu_s": round(batch / median(values, "cpu"), 1),
        }
        for name, values in times.items()
    }


def ratios(times: dict[str, list[Seconds]], memory: dict[str, int], output_bytes: int) -> dict[str, dict[str, float]]:
    def ratio(slow: str, fast: str) -> dict[str, float]:
        wall = [min(value.wall for value in times[name]) for name in (slow, fast)]
        return {
            "of_median_wall_times": round(median(times[slow], "wall") / median(times[fast], "wall"), 2),
            "of_least_wall_times": round(wall[0] / wall[1], 2),
            "of_median_cpu_times": round(median(times[slow], "cpu") / median(times[fast], "cpu"), 2),
        }

    return {
        "forward_speedup_over_unfold": ratio("unfold_forward", "ours_forward"),
        "forward_speedup_over_conv": ratio("conv_forward", "ours_forward"),
        "backward_speedup_over_unfold": ratio("unfold_backward", "ours_backward"),
        "backward_speedup_over_conv": ratio("conv_backward", "ours_backward"),
        "forward_over_writing_fresh_output": ratio("ours_forward", "write_output_fresh"),
        "forward_into_out_over_writing_warm_output": ratio("ours_forward_into_out", "write_output_warm"),
        "peak_memory_over_output": {name: round(value / output_bytes, 3) for name, value in memory.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "front_end.json")
    parser.add_argument("--child", choices=["ours", "unfold", "conv"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.child:
        child(given.child, given.batch)
        return
    facts = machine_facts(given.threads)
    memory = {path: peak_growth_bytes(path, given.batch, threads=given.threads) for path in ("ours", "unfold", "conv")}
    times = time_front_end(given.batch, given.repeats)
    few = images(4)
    difference = float((bdct_upsampled(few) - unfold_path(few)).abs().max())
    masking = time_masking(given.batch, 3 * given.repeats)
    output_bytes = given.batch * 192 * 112 * 112 * 4
    record = {
        "command": f"python benchmarks/front_end.py --batch {given.batch} --threads {given.threads} "
        f"--repeats {given.repeats}",
        "machine": {**facts, "load_average_at_end": os.getloadavg()[0]},
        "batch": given.batch,
        "output_bytes": output_bytes,
        "largest_difference_from_unfold": difference,
        "ratios": ratios(times, memory, output_bytes),
        "front_end": summarised(times, given.batch),
        "peak_memory_growth_bytes": memory,
        "masking": summarised(masking, given.batch),
    }
    given.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["ratios"], indent=2))
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
