"""Speed of `ppfr.metrics.ssim` and `psnr`, compared with scikit-image called once per pair, and the largest difference.

All take turns on the same synthetic faces with noise. Times are processor time of one process with one thread.

Run: python benchmarks/image_similarity.py --json benchmarks/image_similarity.json
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

import cv2
import numpy as np
import skimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ppfr.metrics import psnr, ssim
from ppfr.synthetic import SyntheticFaces

OPTIONS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=128, help="pairs per turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    a = SyntheticFaces(arguments.num, 1, seed=1).read(range(arguments.num)).transpose(0, 3, 1, 2).astype(np.float32)
    a /= 255
    b = np.clip(a + 0.1 * np.random.default_rng(0).normal(size=a.shape), 0, 1).astype(np.float32)
    pairs = list(zip(a, b, strict=True))
    measures: dict[str, Callable[[], np.ndarray]] = {
        "ssim, ppfr": lambda: ssim(a, b),
        "ssim, scikit-image": lambda: np.array(
            [structural_similarity(x, y, channel_axis=0, **OPTIONS) for x, y in pairs]
        ),
        "psnr, ppfr": lambda: psnr(a, b),
        "psnr, scikit-image": lambda: np.array([peak_signal_noise_ratio(x, y, data_range=1) for x, y in pairs]),
    }
    used: dict[str, list[float]] = {name: [] for name in measures}
    values = {}
    for _ in range(arguments.turns):
        for name, measure in measures.items():
            begun = time.process_time()
            values[name] = measure()
            used[name].append(time.process_time() - begun)
    ms = {name: 1e3 * statistics.median(times) / arguments.num for name, times in used.items()}
    result = {
        "command": "python benchmarks/image_similarity.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
        "scikit-image": skimage.__version__,
        "num_pairs": arguments.num,
        "ms_per_pair": {name: round(value, 4) for name, value in ms.items()},
        "scikit-image_over_ppfr": {
            kind: round(ms[f"{kind}, scikit-image"] / ms[f"{kind}, ppfr"], 2) for kind in ("ssim", "psnr")
        },
        "largest_difference": {
            kind: float(np.abs(values[f"{kind}, scikit-image"] - values[f"{kind}, ppfr"]).max())
            for kind in ("ssim", "psnr")
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
