"""Aligning a folder of photos, with all problems reported at the end."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ppfr.assets import write_atomically
from ppfr.core import AlignmentError, DatasetError, ImageReadError, InvalidInputError, MissingAssetError, ProblemsError
from ppfr.data._alignment import AlignedFace, Aligner
from ppfr.data._decoding import read_image
from ppfr.data._layout import IMAGE_SUFFIXES, list_photos
from ppfr.data._quality import FaceQuality, QualityLimits

Suffix = Literal[".jpg", ".png"]


def write_crop(crop_HWC: np.ndarray, path: Path, *, quality: int = 95) -> None:
    """Write a crop atomically, as JPEG or PNG according to the suffix of the path.

    Raises:
        StorageError: the disk is full or the directory cannot be written.
    """
    buffer = io.BytesIO()
    if path.suffix.lower() == ".png":
        Image.fromarray(crop_HWC).save(buffer, "PNG")
    else:
        Image.fromarray(crop_HWC).save(buffer, "JPEG", quality=quality)
    with write_atomically(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def align_folder(
    source: Path,
    into: Path,
    aligner: Aligner,
    *,
    suffix: Suffix = ".png",
    quality: int = 95,
    keeps_existing: bool = True,
    limits: QualityLimits | None = None,
    without_face: Callable[[np.ndarray], np.ndarray] | None = None,
    on_aligned: Callable[[Path, FaceQuality], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Align every photo below `source` and write its crop to the same relative path below `into`.

    Each crop is written atomically. A photo that cannot be aligned does not stop the others. All problems are reported
    together at the end; after they are fixed, the same call continues with the missing crops.

    Args:
        source: folder of photos, searched with its subfolders as by `list_photos`.
        into: folder for the crops; must not be inside `source`, nor contain it.
        aligner: finds the faces.
        suffix: ".png" (without loss) or ".jpg".
        quality: JPEG quality, 1..100.
        keeps_existing: skip photos whose crops exist. Their quality is not known, so this excludes `limits`.
        limits: a photo that fails one is a problem, and its crop is not written.
        without_face: computes the crop of a photo without exactly one face. By default such a photo is a problem.
        on_aligned: called with each photo whose crop was written, and its quality.
        on_progress: called with (photos done, number of photos).

    Returns:
        The paths of the crops, sorted by the names of the photos.

    Raises:
        MissingAssetError: the folder does not exist.
        DatasetError: it contains no photo, or two photos with the same crop path.
        ProblemsError: some photos could not be aligned; all are listed.
        StorageError: a crop cannot be written.
    """
    source, into = Path(source), Path(into)
    if suffix not in (".jpg", ".png") or not 1 <= quality <= 100:
        raise InvalidInputError(f"suffix is {suffix!r} and quality {quality}; use .jpg or .png and a quality of 1..100")
    if limits is not None and keeps_existing:
        raise InvalidInputError("the quality of existing crops is not known; pass keeps_existing=False with limits")
    target_of = _targets(source, into, suffix)
    problems: list[str] = []
    for done, (photo, target) in enumerate(target_of.items()):
        if on_progress is not None:
            on_progress(done, len(target_of))
        if keeps_existing and target.is_file():
            continue
        try:
            face = _aligned_face(photo, aligner, without_face)
            failed = () if limits is None else limits.problems(face.quality)
            if failed:
                earlier = f"; delete {target}, the crop of an earlier run" if target.is_file() else ""
                problems.append(f"{photo}: {'; '.join(failed)}{earlier}")
                continue
            write_crop(face.crop_HWC, target, quality=quality)
            if on_aligned is not None:
                on_aligned(photo, face.quality)
        except ImageReadError as error:
            problems.append(str(error))
        except InvalidInputError as error:
            problems.append(f"{photo}: {error}")
    if on_progress is not None:
        on_progress(len(target_of), len(target_of))
    if problems:
        done_text = f"{len(target_of) - len(problems)} of {len(target_of)} photos are aligned"
        raise ProblemsError(f"{done_text}; fix or remove the others and run it again", problems)
    return list(target_of.values())


def _aligned_face(
    photo: Path, aligner: Aligner, without_face: Callable[[np.ndarray], np.ndarray] | None
) -> AlignedFace:
    photo_HWC = read_image(photo)
    try:
        return aligner.aligned_face(photo_HWC)
    except AlignmentError:
        if without_face is None:
            raise
        crop_HWC = without_face(photo_HWC)
        return AlignedFace(crop_HWC=crop_HWC, quality=FaceQuality.measure(crop_HWC))


def _targets(source: Path, into: Path, suffix: str) -> dict[Path, Path]:
    """The crop path of each photo, sorted by photo."""
    if not source.is_dir():
        raise MissingAssetError(str(source), looked_in=[str(source.parent)], remedy="Give a folder of photos.")
    inner, outer = into.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise InvalidInputError("crops must be written to a folder outside the photos; choose another one")
    listing = list_photos(source)
    photos = listing.photos
    if not photos:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError(
            f"{source} contains no photo ({kinds}); pass a folder that contains photos. Files left out:"
            f" {listing.describe_left_out()}"
        )
    target_of = {photo: (into / photo.relative_to(source)).with_suffix(suffix) for photo in photos}
    if len(set(target_of.values())) < len(target_of):
        num_twice = len(target_of) - len(set(target_of.values()))
        raise DatasetError(
            f"{num_twice} photos of {source} differ from another only in their suffix (a.jpg, a.png) and would have the"
            " same crop path; rename them"
        )
    return target_of
