"""Labeled Faces in the Wild, aligned: images and the official 6,000 pairs ("View 2").

References:
    Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild, University of Massachusetts, TR 07-49, 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppfr.core import DatasetError, ProblemsError
from ppfr.data._image_sets import FileImageSet
from ppfr.data._layout import find_set, list_images
from ppfr.data._pairs import PairProtocol, divided_into_folds
from ppfr.data._text import read_lines, words_of

FOLDER = "lfw112"
_REMEDY = (
    "`ppfr data fetch lfw --data DIR` downloads and aligns it. Or pass --data DIR (or set PPFR_DATA), where DIR has"
    " lfw112/."
)


def read_lfw_images(root: Path) -> FileImageSet:
    """All aligned LFW images, ordered by subject; subject ids are the official names ("Aaron_Peirsol").

    Args:
        root: directory that contains `lfw112/`, or `lfw112` itself: `<Name>/<Name>_NNNN.jpg` and `pairs.txt`.

    Raises:
        MissingAssetError: the set was not found; the message names the directories and the download command.
        DatasetError: the folder contains no images.
    """
    folder = find_set(root, FOLDER, marker="pairs.txt", remedy=_REMEDY)
    paths = [path for directory in list_images(folder) for path in directory]
    if not paths:
        raise DatasetError(f"{folder} contains no image; expected <Name>/<Name>_NNNN.jpg. {_REMEDY}")
    return FileImageSet(paths, [path.parent.name for path in paths], name="lfw", root=folder)


def read_lfw(root: Path) -> PairProtocol:
    """The official 10 folds of 300 genuine and 300 impostor pairs.

    `images` of the result contains all of LFW, including people who are in no pair.

    Args:
        root: as for `read_lfw_images`.

    Raises:
        MissingAssetError: the data were not found.
        ProblemsError: lines of `pairs.txt` are malformed or refer to missing files; all are listed by line.
    """
    images = read_lfw_images(root)
    folder = find_set(root, FOLDER, marker="pairs.txt", remedy=_REMEDY)
    return parse_lfw_pairs(read_lines(folder / "pairs.txt"), images, name="lfw")


def parse_lfw_pairs(lines: Sequence[str], images: FileImageSet, *, name: str) -> PairProtocol:
    """Parse lines in the format of `pairs.txt` or of the development lists into a protocol over `images`.

    The first line is "folds pairs"; each fold then has that many genuine lines (name, number, number) and as many
    impostor lines (name, number, name, number). Words are separated by tabs or blanks. The development lists
    (`pairsDevTrain.txt`, `pairsDevTest.txt`) have one fold and begin with "pairs" alone; since accuracy needs several
    folds, their pairs are divided into ten.

    Args:
        lines: the lines of the file, as from a text file in any encoding that `read_lines` knows.
        images: the images that the pairs name.
        name: short name for records.

    Raises:
        DatasetError: the first line does not fit the others.
        ProblemsError: all malformed lines and missing images, by line number.
    """
    header = words_of(lines[0]) if lines else []
    if len(header) not in (1, 2) or not all(word.isdigit() for word in header):
        raise DatasetError(
            "the pair list's first line must be 'folds<TAB>pairs', or 'pairs' for a development list; download the"
            " official list again"
        )
    num_folds, num_pairs = (1, int(header[0])) if len(header) == 1 else (int(header[0]), int(header[1]))
    expected = num_folds * 2 * num_pairs
    if num_pairs == 0 or len(lines) - 1 != expected:
        raise DatasetError(
            f"the pair list announces {num_folds} folds of 2 x {num_pairs} pairs ({expected} lines) and has"
            f" {len(lines) - 1}; download the official list again"
        )
    index_of = {(path.parent.name, path.stem): index for index, path in enumerate(images.paths)}
    problems: list[str] = []
    first, second, genuine = [], [], []
    for number, line in enumerate(lines[1:], start=2):
        words = words_of(line)
        is_genuine = (number - 2) % (2 * num_pairs) < num_pairs
        if len(words) != (3 if is_genuine else 4) or not (words[1].isdigit() and words[-1].isdigit()):
            problems.append(f"line {number}: expected a {'genuine' if is_genuine else 'impostor'} pair")
            continue
        sides = ((words[0], words[1]), (words[0] if is_genuine else words[2], words[-1]))
        found = [index_of.get((person, f"{person}_{int(image):04d}")) for person, image in sides]
        for side, index in zip(("first", "second"), found, strict=True):
            if index is None:
                problems.append(f"line {number}: the {side} image is missing")
        first.append(found[0])
        second.append(found[1])
        genuine.append(is_genuine)
    if problems:
        raise ProblemsError(f"the pairs of {name!r} do not match the images; fetch the set again", problems)
    genuine_N = np.array(genuine, np.bool_)
    fold = np.repeat(np.arange(num_folds, dtype=np.int64), 2 * num_pairs)
    return PairProtocol(
        name=name,
        images=images,
        first=np.array(first, np.int64),
        second=np.array(second, np.int64),
        is_genuine=genuine_N,
        fold=divided_into_folds(genuine_N) if num_folds == 1 else fold,
    )
