"""Folders of images: <subject>/<image>."""

from __future__ import annotations

import os
from pathlib import Path

from ppfr.core import DatasetError, MissingAssetError, ProblemsError
from ppfr.data._image_sets import CROP_SIZE, FileImageSet
from ppfr.data._layout import is_image, list_images, list_photos


def read_folder(
    root: Path, *, name: str | None = None, crop_size: tuple[int, int] = CROP_SIZE, check: bool = True
) -> FileImageSet:
    """Aligned crops in `root/<subject>/<image>`; subject ids are the names of the folders.

    Args:
        root: the folder.
        name: short name for records; default: name of the folder.
        crop_size: (H, W) that every image must have.
        check: decode every image once now, to report all problems together. With False, errors are raised on reading.

    Raises:
        MissingAssetError: the folder does not exist.
        DatasetError: it contains no image.
        ProblemsError: there are subjects without images, images outside a subject's folder, or images that cannot be
            read or have another size; all are listed.
        InvalidInputError: a folder without images contains links that form a cycle.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingAssetError(str(root), looked_in=[str(root.parent)], remedy="Pass a folder of <subject>/<image>.")
    with os.scandir(root) as entries:
        stray = sorted(entry.name for entry in entries if is_image(entry))
    problems = [f"{stray_name} is outside a subject's folder" for stray_name in stray]
    listed = list_images(root)
    paths = [path for directory in listed for path in directory]
    if not paths:
        raise DatasetError(
            f"{root} contains no image in <subject>/<image>"
            + (f"; {len(stray)} are directly in it: move them to one folder per person" if stray else "; add images")
            + f". Files left out: {list_photos(root).describe_left_out(read=[root / name for name in stray])}"
        )
    subfolders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    problems += [
        f"{subfolder}/ contains no image; files left out: {list_photos(root / subfolder).describe_left_out(read=[])}"
        for subfolder, found in zip(subfolders, listed, strict=True)
        if not found
    ]
    images = FileImageSet(
        paths, [path.parent.name for path in paths], name=name or root.resolve().name, root=root, crop_size=crop_size
    )
    if check:
        problems += images.problems()
    if problems:
        raise ProblemsError(f"{root} has problems; fix or remove the listed files", problems)
    return images
