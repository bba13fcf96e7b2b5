"""Generated crops and small data sets in the official layouts: no real face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def smooth_crop(seed: int, size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """(H, W, 3) uint8 of soft colour, so that JPEG keeps it nearly."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def crop() -> Callable[..., np.ndarray]:
    """Makes a crop from a seed."""
    return smooth_crop


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth_crop(seed)).save(path, quality=90)


@pytest.fixture
def tiny_lfw(tmp_path: Path) -> Path:
    """A data root whose lfw112 has 2 folds of 2 + 2 pairs over 6 people (3 images each), one of them in no pair."""
    root = tmp_path / "root"
    people = ["Ann_Lee", "Bob_Ray", "Cy_Fox", "Di_Oak", "Ed_Elm", "Flo_Ash"]
    for number, person in enumerate(people):
        for image in (1, 2, 3):
            save(root / "lfw112" / person / f"{person}_{image:04d}.jpg", 10 * number + image)
    lines = ["2\t2"]
    for offset in (0, 2):
        one, other = people[offset : offset + 2]
        lines += [f"{one}\t1\t2", f"{other}\t2\t3", f"{one}\t1\t{other}\t3", f"{people[4]}\t2\t{other}\t1"]
    (root / "lfw112" / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def tiny_cfp(tiny_lfw: Path) -> Path:
    """The same root with a cfp112 of 4 people (2 frontal, 2 profile): one of LFW, one of LFW under another spelling."""
    folder = tiny_lfw / "cfp112"
    names = ["Ann Lee", "ED ELM", "Guy Bay", "Hal Ivy"]
    for person in range(1, 5):
        for pose in ("frontal", "profile"):
            for image in (1, 2):
                save(folder / f"{person:03d}" / pose / f"{image:02d}.jpg", 1000 + 10 * person + image)
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    (folder / "also_in_lfw.txt").write_text("001\tAnn Lee\n")
    for letter, pose in (("F", "frontal"), ("P", "profile")):
        listed = [f"{2 * p + i - 2} ../Data/Images/{p:03d}/{pose}/{i:02d}.jpg" for p in range(1, 5) for i in (1, 2)]
        (folder / "Protocol").mkdir(exist_ok=True)
        (folder / "Protocol" / f"Pair_list_{letter}.txt").write_text("\n".join(listed) + "\n")
    for fold in range(1, 11):
        for kind in ("FF", "FP"):
            split = folder / "Protocol" / "Split" / kind / f"{fold:02d}"
            split.mkdir(parents=True)
            (split / "same.txt").write_text("1,2\n3,4\n")
            (split / "diff.txt").write_text("1,8\n6,2\n")
    return tiny_lfw
