"""Training and public sets that share no person with a test set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ppfr.core import DatasetError, InvalidInputError
from ppfr.data._cfp import read_cfp_images, read_listed_in_lfw
from ppfr.data._image_sets import StoredImageSet, concatenate
from ppfr.data._lfw import read_lfw, read_lfw_images
from ppfr.data._subjects import canonical_subject, shared_subjects


def without_subjects_of(images: StoredImageSet, *others: StoredImageSet, name: str | None = None) -> StoredImageSet:
    """The images of people who are in none of `others`.

    Raises:
        DatasetError: no person remains.
    """
    taken = {canonical_subject(subject) for other in others for subject in other.subject_ids}
    kept = [index for index, subject in enumerate(images.subject_ids) if canonical_subject(subject) not in taken]
    if not kept:
        raise DatasetError(
            f"no person of {images.name!r} remains without the people of the other sets; pass a larger set"
        )
    return images.subset(kept, name=name)


def training_split_for_lfw(root: Path, *, leaves_out: Literal["all", "listed"] = "all") -> StoredImageSet:
    """CFP without the people of LFW, and LFW people who are in no pair: no person of LFW's 6,000 pairs.

    An attacker on LFW may use it as public data.

    Args:
        root: directory that contains `lfw112/` and `cfp112/`.
        leaves_out: "all" excludes everyone in CFP who is in LFW, also under another spelling: 205 people. 5,679 images
            remain and `assert_disjoint` passes. "listed" excludes only the 172 people of `also_in_lfw.txt`, which was
            made by exact names: 6,141 images remain, of which 462 show 33 people of LFW. It allows comparison with
            results based on that list; `assert_disjoint` rejects it.

    Raises:
        MissingAssetError: one of the two was not found.
    """
    protocol = read_lfw(root)
    lfw, cfp = protocol.images, read_cfp_images(root)
    unpaired = without_subjects_of(lfw, protocol.used_images(), name="lfw-unpaired")
    shared = _shared_by(leaves_out, root, lfw, cfp)
    kept = cfp.subset_of_subjects(shared, name="cfp-not-in-lfw", others=True)
    return concatenate([kept, unpaired], name="train-for-lfw" + _suffix(leaves_out))


def training_split_for_cfp(root: Path, *, leaves_out: Literal["all", "listed"] = "all") -> StoredImageSet:
    """All of LFW without the people who are also in CFP. An attacker on CFP may use it as public data.

    Args:
        root: directory that contains `lfw112/` and `cfp112/`.
        leaves_out: as for `training_split_for_lfw`.

    Raises:
        MissingAssetError: one of the two was not found.
    """
    lfw = read_lfw_images(root)
    shared = _shared_by(leaves_out, root, lfw, read_cfp_images(root))
    return lfw.subset_of_subjects(shared, name="train-for-cfp" + _suffix(leaves_out), others=True)


def _shared_by(leaves_out: str, root: Path, lfw: StoredImageSet, cfp: StoredImageSet) -> set[str]:
    """Subject ids of the people to exclude, in the spelling of either set."""
    if leaves_out == "listed":
        return read_listed_in_lfw(root)
    if leaves_out != "all":
        raise InvalidInputError(f"leaves_out is {leaves_out!r}; it must be 'all' or 'listed'")
    shared = shared_subjects(lfw.subject_ids, cfp.subject_ids)
    return {subject for subject in {*lfw.subject_ids, *cfp.subject_ids} if canonical_subject(subject) in shared}


def _suffix(leaves_out: str) -> str:
    return "" if leaves_out == "all" else "-as-listed"
