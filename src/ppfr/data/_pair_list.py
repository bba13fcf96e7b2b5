"""Lists of pairs over a folder of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ppfr.core import DatasetError, MissingAssetError, ProblemsError
from ppfr.data._folder import read_folder
from ppfr.data._image_sets import CROP_SIZE
from ppfr.data._lfw import parse_lfw_pairs
from ppfr.data._pairs import PairProtocol, divided_into_folds
from ppfr.data._text import read_lines, words_of

_FLAG_OF = {"1": True, "true": True, "same": True, "0": False, "false": False, "diff": False}


def read_pair_list(
    path: Path, *, folder: Path | None = None, name: str | None = None, crop_size: tuple[int, int] = CROP_SIZE
) -> PairProtocol:
    """Pairs over the aligned crops of a folder.

    The list is a text file in UTF-8 or UTF-16. It has either the format of LFW (`parse_lfw_pairs`), or lines of two
    paths relative to the folder and a flag: "ann/1.png<TAB>bob/2.png<TAB>0". The flag is 1, true or same for a genuine
    pair, 0, false or diff for an impostor pair. Words are separated by tabs, commas or blanks; empty lines and lines
    that begin with # are skipped. Pairs of such a list are divided into ten folds.

    Args:
        path: the list.
        folder: `<subject>/<image>`; default: the folder that contains the list.
        name: short name for records; default: file name of the list without suffix.
        crop_size: (H, W) of every image.

    Raises:
        MissingAssetError: the list or the folder does not exist.
        DatasetError: the list is empty or has another encoding.
        ProblemsError: lines are malformed, name missing images, or contradict the folders; all are listed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingAssetError(path.name, looked_in=[str(path.parent)], remedy="Pass the path of a list of pairs.")
    root, name = Path(folder) if folder is not None else path.parent, name or path.stem
    lines = read_lines(path)
    images = read_folder(root, name=name, crop_size=crop_size, check=False)
    if lines and all(word.isdigit() for word in words_of(lines[0])):
        return parse_lfw_pairs(lines, images, name=name)
    index_of = {image.relative_to(root).as_posix(): index for index, image in enumerate(images.paths)}
    problems: list[str] = []
    pairs: list[tuple[int, int, bool]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = words_of(line if "\t" in line else line.replace(",", " "))
        flag = _FLAG_OF.get(words[2].lower()) if len(words) == 3 else None
        if flag is None:
            problems.append(f"line {number}: expected 'path path flag' with a flag of {', '.join(_FLAG_OF)}")
            continue
        first, second = (index_of.get(word.replace("\\", "/").removeprefix("./"), -1) for word in words[:2])
        problems += [
            f"line {number}: the {side} image is missing"
            for side, index in (("first", first), ("second", second))
            if index < 0
        ]
        pairs.append((first, second, flag))
    if problems:
        raise ProblemsError(f"{path} does not match the images in {root}; correct the listed lines", problems)
    if not pairs:
        raise DatasetError(f"{path} contains no pairs; write one 'path path flag' per line")
    first_N, second_N, is_genuine = (np.array(column) for column in zip(*pairs, strict=True))
    return PairProtocol(
        name=name,
        images=images,
        first=first_N.astype(np.int64),
        second=second_N.astype(np.int64),
        is_genuine=is_genuine,
        fold=divided_into_folds(is_genuine),
    )
