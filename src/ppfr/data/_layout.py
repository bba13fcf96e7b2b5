"""Finding a data set below a data root, and listing subject/image folders in a fixed order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ppfr.core import InvalidInputError, MissingAssetError
from ppfr.data._decoding import HEIC_REMEDY

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Suffixes of image files in folders, lower case; files may have them in any case."""

_HEIC_SUFFIXES = frozenset({".heic", ".heif", ".avif"})
_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPhotos:
    """The photos of a folder with its subfolders, and the files that are not taken for photos.

    Links to files and folders are followed. Files and folders whose names begin with a dot are skipped and not counted.

    Attributes:
        photos: sorted.
        left_out: other files, sorted.
    """

    photos: tuple[Path, ...]
    left_out: tuple[Path, ...]

    def describe_left_out(self, *, read: Iterable[Path] | None = None) -> str:
        """How many files of which kind are left out, with a remedy where there is one; "none" if there are none.

        Args:
            read: the photos that are read, if only those of one depth are; the others are left out too.

        >>> FolderPhotos(photos=(), left_out=(Path("a.HEIC"), Path("b.txt"), Path("c.txt"))).describe_left_out()
        '3: 1 .heic (convert it to JPEG first, for example with `heif-convert` or `magick IN.heic OUT.jpg`), 2 .txt'
        """
        counts = Counter(path.suffix.lower() or "without suffix" for path in self.left_out)
        kinds = [f"{count} {suffix}{_remedy(suffix)}" for suffix, count in sorted(counts.items())]
        unread = sorted(set(self.photos).difference(self.photos if read is None else read))
        if unread:
            place = unread[0].parent.name
            kinds.append(f"{len(unread)} in deeper folders such as {place}/ (move them up to the person's folder)")
        return f"{len(self.left_out) + len(unread)}: " + ", ".join(kinds) if kinds else "none"


def _remedy(suffix: str) -> str:
    if suffix in _HEIC_SUFFIXES:
        return f" ({HEIC_REMEDY})"
    return " (unpack it first)" if suffix in _ARCHIVE_SUFFIXES else ""


def list_photos(folder: Path) -> FolderPhotos:
    """All photos below a folder, by their suffixes (`IMAGE_SUFFIXES`).

    Raises:
        MissingAssetError: the folder does not exist.
        InvalidInputError: links form a cycle.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingAssetError(str(folder), looked_in=[str(folder.parent)], remedy="Give a folder of photos.")
    photos: list[Path] = []
    left_out: list[Path] = []
    _collect(folder, (), photos, left_out)
    return FolderPhotos(photos=tuple(sorted(photos)), left_out=tuple(sorted(left_out)))


def _collect(folder: Path, outer: tuple[Path, ...], photos: list[Path], left_out: list[Path]) -> None:
    inner = (*outer, folder.resolve())
    if inner[-1] in outer:
        raise InvalidInputError(f"{folder} is a link to a folder that contains it; remove the link")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                _collect(Path(entry.path), inner, photos, left_out)
            elif is_image(entry):
                photos.append(Path(entry.path))
            else:
                left_out.append(Path(entry.path))


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
            names = sorted(entry.path for entry in entries if is_image(entry))
        listed.append([Path(name) for name in names])
    return listed


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is an image by its suffix, and not hidden; links are followed."""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (a Path for each of millions of entries is slow)
    return suffix in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
