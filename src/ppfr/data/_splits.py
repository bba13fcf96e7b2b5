"""Training and public sets that share no person with a test."""

from __future__ import annotations

from pathlib import Path

from ppfr.core import DatasetError
from ppfr.data._cfp import read_cfp_images
from ppfr.data._image_sets import StoredImageSet, concatenate
from ppfr.data._lfw import read_lfw, read_lfw_images
from ppfr.data._subjects import canonical_subject


def without_subjects_of(images: StoredImageSet, *others: StoredImageSet, name: str | None = None) -> StoredImageSet:
    """The images of people who are in none of `others`.

    Raises:
        DatasetError: nobody is left.
    """
    taken = {canonical_subject(subject) for other in others for subject in other.subject_ids}
    kept = [index for index, subject in enumerate(images.subject_ids) if canonical_subject(subject) not in taken]
    if not kept:
        raise DatasetError(f"no person of {images.name!r} is left after taking out the others; give a larger set")
    return images.subset(kept, name=name)


def training_split_for_lfw(root: Path) -> StoredImageSet:
    """Everything in CFP and LFW that shows nobody of LFW's 6,000 pairs: CFP less LFW's people, LFW people in no pair.

    Also what an attacker on LFW may call public data.

    Args:
        root: directory that holds `lfw112/` and `cfp112/`.

    Raises:
        MissingAssetError: one of the two is not there.
    """
    protocol = read_lfw(root)
    lfw, cfp = protocol.images, read_cfp_images(root)
    unpaired = without_subjects_of(lfw, protocol.used_images(), name="lfw-unpaired")
    return concatenate([without_subjects_of(cfp, lfw, name="cfp-not-in-lfw"), unpaired], name="train-for-lfw")


def training_split_for_cfp(root: Path) -> StoredImageSet:
    """All of LFW less the people who are in CFP too. Also what an attacker on CFP may call public data.

    Args:
        root: directory that holds `lfw112/` and `cfp112/`.

    Raises:
        MissingAssetError: one of the two is not there.
    """
    return without_subjects_of(read_lfw_images(root), read_cfp_images(root), name="train-for-cfp")
