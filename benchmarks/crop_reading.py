"""Speed of reading aligned crops from JPEG files, compared with Pillow and OpenCV called directly.

`ppfr` is `FileImageSet.read`, which checks every file (size in the header, EXIF orientation, colour mode, crop size).
Pillow and OpenCV decode the same files without these checks. All take turns, on synthetic crops in a temporary folder
unless `--images` gives a folder of <subject>/<image>. Times are processor time of one process.

Run: python benchmarks/crop_reading.py --json benchmarks/crop_reading.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ppfr.data import FileImageSet, read_folder, write_crop
from ppfr.synthetic import SyntheticFaces


def written_crops(num: int, folder: Path) -> FileImageSet:
    faces = SyntheticFaces(num, 1, seed=1)
    for index in range(num):
        path = folder / f"{index:05d}" / "0.jpg"
        path.parent.mkdir()
        write_crop(faces.read([index])[0], path, quality=90)
    return read_folder(folder, check=False)


def with_pillow(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def with_opencv(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=500, help="crops per turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--images", type=Path, help="folder of <subject>/<image> with aligned crops")
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = (
            written_crops(arguments.num, Path(folder))
            if arguments.images is None
            else read_folder(arguments.images, check=False)
        )
        paths = images.paths[: arguments.num]
        readers: dict[str, Callable[[], np.ndarray]] = {
            "ppfr": lambda: images.read(range(len(paths))),
            "pillow": lambda: with_pillow(paths),
            "opencv": lambda: with_opencv(paths),
        }
        assert np.array_equal(readers["ppfr"](), readers["pillow"]())
        used: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(arguments.turns):
            for name, read in readers.items():
                begun = time.process_time()
                read()
                used[name].append(time.process_time() - begun)
    ms = {name: 1e3 * statistics.median(times) / len(paths) for name, times in used.items()}
    result = {
        "command": "python benchmarks/crop_reading.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
        "num_crops": len(paths),
        "ms_per_crop": {name: round(value, 4) for name, value in ms.items()},
        "ppfr_over": {name: round(ms["ppfr"] / ms[name], 2) for name in ("pillow", "opencv")},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
