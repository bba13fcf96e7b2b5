"""Download, extraction and alignment of LFW."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ppfr.assets import Asset, extract_tar, fetch, write_atomically
from ppfr.data._align_folder import align_folder
from ppfr.data._alignment import Aligner
from ppfr.data._image_sets import CROP_SIZE, FileImageSet
from ppfr.data._lfw import FOLDER, parse_lfw_pairs, read_lfw_images
from ppfr.data._text import read_lines

_CONFIDENCE = 0.5  # of YuNet; with it, YuNet finds a face in every photo of the deep-funneled release
_MIDDLE_SHARE = 0.53  # 112 px at 0.85, the mean scale from LFW's 250 px to aligned crops
_LICENCE = "none stated by its authors (University of Massachusetts); published for research on face recognition"

LFW_PHOTOS = Asset(
    name="lfw.tgz",
    sha256="055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
    urls=("https://ndownloader.figshare.com/files/5976018",),
    licence=_LICENCE,
    note="13,233 photos of 250x250, original release; the copy that scikit-learn's fetch_lfw_people uses.",
)
LFW_PAIRS = Asset(
    name="pairs.txt",
    sha256="ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
    urls=("https://ndownloader.figshare.com/files/5976006",),
    licence=_LICENCE,
    note="The official 6,000 pairs (View 2).",
)


def fetch_lfw(
    root: Path,
    *,
    yunet_path: Path,
    photos: Asset = LFW_PHOTOS,
    pairs: Asset = LFW_PAIRS,
    progress: bool = True,
) -> FileImageSet:
    """Create `root/lfw112`: download LFW, extract it, align every photo, and read the result.

    Completed steps are skipped, so a call after an interruption continues where the last one stopped. The archive and
    the photos are stored in `root/.lfw` in the meantime and removed at the end.

    The photos are those of the original release, not the deep-funneled one, because they are aligned here by five
    landmarks. If a photo shows several people, the largest face is used. If no face is found, the centre of the photo
    is cut out, because LFW photos are centred on the person.

    Args:
        root: the data directory.
        yunet_path: network of the face detector.
        photos: the archive, with the photos in `<folder>/<Name>/<Name>_NNNN.jpg`.
        pairs: the pair list.
        progress: show progress bars on standard error.

    Returns:
        The image set `read_lfw_images(root)`.

    Raises:
        MissingAssetError: no source provided a file.
        MissingWeightsError: the detector was not found.
        ChecksumError: a source provided other bytes.
        StorageError: the disk is full.
        ProblemsError: photos cannot be read, or pairs refer to missing photos; all are listed.
    """
    target, scratch = Path(root) / FOLDER, Path(root) / ".lfw"
    if (target / "pairs.txt").is_file():
        return read_lfw_images(Path(root))
    aligner = Aligner(yunet_path, largest=True, confidence=_CONFIDENCE)
    unpacked = scratch / "photos"
    if not unpacked.is_dir():
        extract_tar(fetch(photos, scratch, progress=progress), unpacked)
    pair_list = fetch(pairs, scratch, progress=progress)
    folders = [folder for folder in sorted(unpacked.iterdir()) if folder.is_dir()]
    source = folders[0] if len(folders) == 1 else unpacked
    with _bar(progress) as advance:
        crops = align_folder(
            source, target, aligner, suffix=".jpg", quality=90, without_face=middle_crop, on_progress=advance
        )
    images = FileImageSet(crops, [crop.parent.name for crop in crops], name="lfw", root=target)
    parse_lfw_pairs(read_lines(pair_list), images, name="lfw")
    with write_atomically(target / "pairs.txt") as temporary:  # marks the set as complete, so it is written last
        shutil.copyfile(pair_list, temporary)
    shutil.rmtree(scratch, ignore_errors=True)
    return read_lfw_images(Path(root))


def middle_crop(photo_HWC: np.ndarray) -> np.ndarray:
    """(112, 112, 3): the centre of a photo at the mean scale of aligned LFW faces, used if no face is found."""
    side = round(min(photo_HWC.shape[:2]) * _MIDDLE_SHARE)
    top, left = ((length - side) // 2 for length in photo_HWC.shape[:2])
    return cv2.resize(photo_HWC[top : top + side, left : left + side], CROP_SIZE[::-1], interpolation=cv2.INTER_AREA)


@contextlib.contextmanager
def _bar(progress: bool) -> Iterator[Callable[[int, int], None] | None]:
    if not progress:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("aligning photos", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
