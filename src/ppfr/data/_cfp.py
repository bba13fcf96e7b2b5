"""Celebrities in Frontal-Profile, aligned: images and the official frontal-frontal and frontal-profile pairs.

References:
    Sengupta, Chen, Castillo, Patel, Chellappa, Jacobs: Frontal to Profile Face Verification in the Wild, WACV 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ppfr.core import DatasetError, InvalidInputError, ProblemsError
from ppfr.data._image_sets import FileImageSet
from ppfr.data._layout import find_set
from ppfr.data._pairs import PairProtocol
from ppfr.data._spellings import LFW_NAME_OF_CFP_NAME
from ppfr.data._text import read_lines

FOLDER = "cfp112"
_NUM_FOLDS = 10
_POSES = ("frontal", "profile")
_REMEDY = (
    "CFP is distributed by its authors (cfpw.io). Align it with `ppfr align`, and pass --data DIR (or set PPFR_DATA),"
    " where DIR contains cfp112/."
)


def read_cfp_images(root: Path) -> FileImageSet:
    """All aligned CFP images, ordered by person, frontal before profile.

    Subject ids are the names in `names.txt`, in the spelling of LFW ("Adam_Sandler"), so that the same
    person has the same id in both sets.

    Args:
        root: directory that contains `cfp112/`, or `cfp112` itself: `<id>/{frontal,profile}/NN.jpg`, `names.txt`.

    Raises:
        MissingAssetError: the set was not found; the message names the directories and how to get it.
        DatasetError: names and folders do not match.
    """
    folder = find_set(root, FOLDER, marker="names.txt", remedy=_REMEDY)
    names = read_lines(folder / "names.txt")
    subjects = [LFW_NAME_OF_CFP_NAME.get(name.strip(), name.strip().replace(" ", "_")) for name in names]
    if len(set(subjects)) != len(subjects):
        raise DatasetError(f"names.txt of {folder} contains a person twice; download the official list again")
    paths, ids = [], []
    for number, subject in enumerate(subjects, start=1):
        for pose in _POSES:
            found = sorted((folder / f"{number:03d}" / pose).glob("*.jpg"))
            paths += found
            ids += [subject] * len(found)
    if not paths:
        raise DatasetError(
            f"{folder} contains no image; expected <id>/frontal/NN.jpg and <id>/profile/NN.jpg. {_REMEDY}"
        )
    return FileImageSet(paths, ids, name="cfp", root=folder)


def read_listed_in_lfw(root: Path) -> set[str]:
    """The people in `also_in_lfw.txt`, in the spelling of LFW; see `_spellings` for people that it misses.

    Raises:
        MissingAssetError: the set or the list was not found.
    """
    folder = find_set(root, FOLDER, marker="also_in_lfw.txt", remedy=_REMEDY)
    lines = read_lines(folder / "also_in_lfw.txt")
    return {line.split("\t")[1].strip().replace(" ", "_") for line in lines if line.count("\t") == 1}


def read_cfp(root: Path, kind: Literal["FF", "FP"]) -> PairProtocol:
    """The official 10 folds of 350 genuine and 350 impostor pairs.

    Args:
        root: as for `read_cfp_images`.
        kind: "FF" compares frontal with frontal, "FP" frontal (first) with profile (second).

    Raises:
        InvalidInputError: `kind` is neither "FF" nor "FP".
        MissingAssetError: the data were not found.
        ProblemsError: pair files are missing or malformed, or refer to missing images; all problems are listed.
    """
    if kind not in ("FF", "FP"):
        raise InvalidInputError(f"kind is {kind!r}; CFP has the protocols 'FF' and 'FP'")
    images = read_cfp_images(root)
    folder = find_set(root, FOLDER, marker="names.txt", remedy=_REMEDY)
    index_of = {path.relative_to(folder).as_posix(): index for index, path in enumerate(images.paths)}
    problems: list[str] = []
    sides = [_numbered(folder, pose, index_of, problems) for pose in kind]
    first: list[int] = []
    second: list[int] = []
    genuine: list[bool] = []
    fold: list[int] = []
    for number in range(_NUM_FOLDS):
        for is_genuine, stem in ((True, "same"), (False, "diff")):
            shown = f"Protocol/Split/{kind}/{number + 1:02d}/{stem}.txt"
            pairs = _pairs(folder / shown, shown, sides, problems)
            first += [pair[0] for pair in pairs]
            second += [pair[1] for pair in pairs]
            genuine += [is_genuine] * len(pairs)
            fold += [number] * len(pairs)
    if problems:
        raise ProblemsError(
            f"the pairs of CFP-{kind} do not match the images; download the official files again", problems
        )
    return PairProtocol(
        name=f"cfp-{kind.lower()}",
        images=images,
        first=np.array(first, np.int64),
        second=np.array(second, np.int64),
        is_genuine=np.array(genuine, np.bool_),
        fold=np.array(fold, np.int64),
    )


def _numbered(folder: Path, pose: str, index_of: dict[str, int], problems: list[str]) -> dict[int, int | None]:
    """Image index of each number of `Pair_list_{F,P}.txt`, None if its file is missing."""
    shown = f"Protocol/Pair_list_{pose}.txt"
    if not (folder / shown).is_file():
        problems.append(f"{shown} is missing")
        return {}
    numbered: dict[int, int | None] = {}
    for line_number, line in enumerate(read_lines(folder / shown), start=1):
        words = line.split()
        if len(words) != 2 or not words[0].isdigit():
            problems.append(f"{shown} line {line_number}: expected 'number path'")
            continue
        place = "/".join(words[1].split("/")[-3:])
        numbered[int(words[0])] = index_of.get(place)
        if place not in index_of:
            problems.append(f"{shown} line {line_number}: {place} is missing")
    return numbered


def _pairs(path: Path, shown: str, sides: list[dict[int, int | None]], problems: list[str]) -> list[tuple[int, int]]:
    if not path.is_file():
        problems.append(f"{shown} is missing")
        return []
    pairs = []
    for line_number, line in enumerate(read_lines(path), start=1):
        words = line.strip().split(",")
        if not line.strip():
            continue
        if len(words) != 2 or not all(word.strip().isdigit() for word in words):
            problems.append(f"{shown} line {line_number}: expected 'number,number'")
            continue
        first, second = (numbers.get(int(word), -1) for numbers, word in zip(sides, words, strict=True))
        if first == -1 or second == -1:
            problems.append(f"{shown} line {line_number}: a number is not in the pair list")
        elif first is not None and second is not None:  # a missing file is reported once, for the list that contains it
            pairs.append((first, second))
    return pairs
