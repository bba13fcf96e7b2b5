"""Speed of masking with HFCF and DCTDP compared with the bare front end that they share, in one run.

    python benchmarks/hfcf.py --batch 16 --threads 1 --repeats 9
    python benchmarks/hfcf.py --batch 4 --threads 1 --repeats 25 --json benchmarks/system_noise.json

"bare front end" is only `bdct_upsampled` (or `block_dct` of Y, Cb and Cr) with the 63 channels of each colour that are
not DC: no check of the image, no scaling, no noise. Noise is seeded, except in the rows that name the operating system.
All variants are measured alternately, so that other load affects all of them. Wall time and processor time are
recorded. On a shared machine, processor time is the better measure of cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ppfr.core import ImageMasker
from ppfr.frequency import bdct_upsampled, block_dct, rgb_to_ycbcr
from ppfr.masking import Dctdp, FrequencyChannels, Hfcf

WITHOUT_DC = tuple(range(1, 64))


def upsampled(image_BCHW: Tensor) -> Tensor:
    return bdct_upsampled(image_BCHW, channels=WITHOUT_DC, checks_range=False)


def block(image_BCHW: Tensor) -> Tensor:
    return block_dct(rgb_to_ycbcr(image_BCHW * 255.0), stride=4, channels=WITHOUT_DC)


def paths(front_end: str, image_BCHW: Tensor, rng: torch.Generator) -> dict[str, Callable[[], object]]:
    shared = {"front_end": front_end}
    plain = FrequencyChannels(colours="ycbcr", num_channels=63, keeps_dc=False, **shared)  # type: ignore[arg-type]
    maskers: dict[str, ImageMasker] = {
        "FrequencyChannels, same channels": plain,
        "HFCF": Hfcf(**shared),  # type: ignore[arg-type]
        "HFCF without noise": Hfcf(eps_mean="inf", **shared),  # type: ignore[arg-type]
        "HFCF without colour": Hfcf(colour="none", **shared),  # type: ignore[arg-type]
        "HFCF, colour under randomised response": Hfcf(colour_eps=1.0, **shared),  # type: ignore[arg-type]
        "HFCF without fusion": Hfcf(fuses=False, **shared),  # type: ignore[arg-type]
        "DCTDP": Dctdp(**shared),  # type: ignore[arg-type]
    }
    bare = upsampled if front_end == "upsampled" else block
    found: dict[str, Callable[[], object]] = {"bare front end": lambda: bare(image_BCHW)}
    found |= {
        name: lambda masker=masker: masker.mask(image_BCHW, rng=rng)  # type: ignore[misc]
        for name, masker in maskers.items()
    }
    return found | {
        f"{name}, noise of the operating system": lambda name=name: maskers[name].mask(image_BCHW)  # type: ignore[misc]
        for name in ("HFCF", "DCTDP")
    }


def timed(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    with torch.no_grad():
        for repeat in range(repeats + 2):  # the first repeats compile, measure built-in ranges and warm up memory
            for name, run in work.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                if repeat >= 2:
                    times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def summary(times: dict[str, list[tuple[float, float]]], batch: int) -> dict[str, dict[str, float]]:
    def rates(name: str) -> dict[str, float]:
        wall, cpu = zip(*times[name], strict=True)
        bare_wall, bare_cpu = zip(*times["bare front end"], strict=True)
        return {
            "ms_per_image_median": round(1e3 * statistics.median(wall) / batch, 2),
            "cpu_ms_per_image_median": round(1e3 * statistics.median(cpu) / batch, 2),
            "images_per_s_median": round(batch / statistics.median(wall), 1),
            "images_per_s_best": round(batch / min(wall), 1),
            "images_per_cpu_s_median": round(batch / statistics.median(cpu), 1),
            "of_bare_front_end_median": round(statistics.median(bare_wall) / statistics.median(wall), 3),
            "of_bare_front_end_best": round(min(bare_wall) / min(wall), 3),
            "of_bare_front_end_cpu": round(statistics.median(bare_cpu) / statistics.median(cpu), 3),
        }

    return {name: rates(name) for name in times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rng = torch.Generator().manual_seed(0)
    image_BCHW = torch.rand(given.batch, 3, 112, 112, generator=rng)
    load = os.getloadavg()[0]
    record = {
        "command": "python benchmarks/hfcf.py " + shlex.join(sys.argv[1:]),
        "note": given.note,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": given.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "load_average_at_start": round(load, 2),
        },
        "front_ends": {
            name: summary(timed(paths(name, image_BCHW, rng), given.repeats), given.batch)
            for name in ("upsampled", "block")
        },
    }
    for front_end, rows in record["front_ends"].items():  # type: ignore[attr-defined]
        for name, row in rows.items():
            times = f"{row['ms_per_image_median']:7} ms/image (median) {row['images_per_s_best']:8} images/s (best)"
            ratios = [row[f"of_bare_front_end_{kind}"] for kind in ("median", "best", "cpu")]
            print(f"{front_end:10} {name:40} {times}; ratio to the bare front end (median, best, cpu)", ratios)
    if given.json is not None:
        given.json.write_text(json.dumps(record, indent=2) + "\n")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


if __name__ == "__main__":
    main()
