"""Finding a data set below a data root, and listing subject/image folders in a fixed order."""

from __future__ import annotations

import os
from pathlib import Path

from ppfr.core import MissingAssetError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})
"""Suffixes of image files in folders, lower case."""


def find_set(root: Path, folder: str, *, marker: str, remedy: str) -> Path:
    """`root/folder`, or `root` if it is the folder of the set itself: the first that contains `marker`.

    Raises:
        MissingAssetError: neither contains it; the message names both directories and the remedy.
    """
    places = [Path(root) / folder, Path(root)]
    for place in places:
        if (place / marker).exists():
            return place
    raise MissingAssetError(f"{folder}/{marker}", looked_in=[str(place) for place in places], remedy=remedy)


def list_images(folder: Path) -> list[list[Path]]:
    """The image files of each direct subfolder, both sorted by name; other files are ignored."""
    with os.scandir(folder) as entries:
        subfolders = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    listed = []
    for subfolder in subfolders:
        with os.scandir(subfolder) as entries:
            names = sorted(entry.path for entry in entries if _is_image(entry))
        listed.append([Path(name) for name in names])
    return listed


def _is_image(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (a Path for each of millions of entries is slow)
    return suffix in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
