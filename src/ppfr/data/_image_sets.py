"""Image sets: aligned crops with subjects, read by index from memory, from files or from concatenated sets."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ppfr.core import DatasetError, ImageReadError, InvalidInputError, ProblemsError, ShapeError
from ppfr.data._decoding import read_image

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CROP_SIZE = (112, 112)
"""Height and width of an aligned crop."""

CROP_SHAPE = (112, 112, 3)
"""Shape of an aligned crop as returned by `ImageSet.read`."""


class StoredImageSet(ABC):
    """Base class of image sets: `ppfr.core.ImageSet` with subsets, a copy in memory and a fingerprint.

    Attributes:
        crop_size: (H, W) of every image.
    """

    def __init__(self, *, name: str, subject_ids: Sequence[str], crop_size: tuple[int, int] = CROP_SIZE) -> None:
        self._name = name
        self._subject_ids = tuple(subject_ids)
        self.crop_size = crop_size

    @property
    def name(self) -> str:
        """Short name for tables and records, such as "lfw"."""
        return self._name

    @property
    def subject_ids(self) -> Sequence[str]:
        """The subject of each image."""
        return self._subject_ids

    def __len__(self) -> int:
        return len(self._subject_ids)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {len(self)} images, {len(set(self._subject_ids))} subjects>"

    @abstractmethod
    def _read_checked(self, indices: Sequence[int]) -> np.ndarray:
        """(B, H, W, 3) uint8 for valid indices."""

    @abstractmethod
    def signature(self, index: int) -> str:
        """Cheap identification of one image: its name and size, or a hash of its pixels."""

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB crops, in the order of `indices`; a new array that the caller may change.

        Raises:
            InvalidInputError: an index is outside the set.
            ImageReadError: a file cannot be decoded, or its size is not `crop_size`.
        """
        return self._read_checked(_checked_indices(indices, len(self)))

    def subset(self, indices: Sequence[int], *, name: str | None = None) -> StoredImageSet:
        """The images at `indices`, in that order, under `name` (default: this set's)."""
        return _Subset(self, _checked_indices(indices, len(self)), name=name or self.name)

    def subset_of_subjects(
        self, subjects: set[str], *, name: str | None = None, others: bool = False
    ) -> StoredImageSet:
        """All images whose subject id is in `subjects`, or is not, with `others`."""
        chosen = [index for index, subject in enumerate(self._subject_ids) if (subject in subjects) != others]
        return self.subset(chosen, name=name)

    def cached(self) -> ArrayImageSet:
        """The same images decoded into memory: 37,632 bytes per image of 112x112, so 226 MB for 6,000 images.

        Raises:
            ProblemsError: images cannot be read; all are listed.
        """
        height, width = self.crop_size
        images_NHWC = np.empty((len(self), height, width, 3), np.uint8)
        problems = self._read_each(images_NHWC)
        if problems:
            raise ProblemsError(f"image set {self.name!r} has images that cannot be read", problems)
        signatures = [self.signature(index) for index in range(len(self))]
        return ArrayImageSet(images_NHWC, self._subject_ids, name=self.name, signatures=signatures)

    def problems(self) -> list[str]:
        """Decode all images once and return one line per image that cannot be read."""
        return self._read_each(None)

    def _read_each(self, out_NHWC: np.ndarray | None) -> list[str]:
        problems = []
        for index in range(len(self)):
            try:
                image_HWC = self._read_checked([index])[0]
            except ImageReadError as error:
                problems.append(str(error))
            else:
                if out_NHWC is not None:
                    out_NHWC[index] = image_HWC
        return problems

    def fingerprint(self) -> str:
        """sha256 over names, sizes and subjects of all images in order; computed without decoding."""
        digest = hashlib.sha256()
        for index, subject in enumerate(self._subject_ids):
            digest.update(f"{self.signature(index)}\0{subject}\n".encode())
        return digest.hexdigest()


class ArrayImageSet(StoredImageSet):
    """Images in memory."""

    def __init__(
        self,
        images_NHWC: np.ndarray,
        subject_ids: Sequence[str],
        *,
        name: str,
        signatures: Sequence[str] | None = None,
    ) -> None:
        """Wrap an array without copying it.

        Args:
            images_NHWC: (N, H, W, 3) uint8 RGB.
            subject_ids: N subject ids.
            name: short name for records.
            signatures: N strings that identify the images; default: a hash of the pixels of each image.

        Raises:
            ShapeError: the array has another shape or dtype, or the lengths differ.
        """
        if images_NHWC.ndim != 4 or images_NHWC.shape[3] != 3 or images_NHWC.dtype != np.uint8:
            raise ShapeError(
                f"images are {images_NHWC.dtype} of shape {images_NHWC.shape}; pass (N, H, W, 3) uint8 RGB."
                " Multiply floats by 255 and round them first"
            )
        lengths = {len(images_NHWC), len(subject_ids)} | ({len(signatures)} if signatures is not None else set())
        if len(lengths) != 1:
            raise ShapeError(f"got {len(images_NHWC)} images and {len(subject_ids)} subject ids; pass one id per image")
        super().__init__(name=name, subject_ids=subject_ids, crop_size=images_NHWC.shape[1:3])
        self._images_NHWC = images_NHWC
        self._signatures = tuple(signatures) if signatures is not None else None

    def _read_checked(self, indices: Sequence[int]) -> np.ndarray:
        return self._images_NHWC[np.asarray(indices, dtype=np.int64)]

    def signature(self, index: int) -> str:
        """The signature given at construction, or a hash of the pixels."""
        if self._signatures is not None:
            return self._signatures[index]
        return hashlib.sha256(np.ascontiguousarray(self._images_NHWC[index]).tobytes()).hexdigest()

    def cached(self) -> ArrayImageSet:
        """The set itself, which is in memory already."""
        return self


class EncodedImageSet(StoredImageSet):
    """Images kept encoded (JPEG, PNG) and decoded on read. Subclasses define the source of the bytes."""

    @abstractmethod
    def _source(self, index: int) -> Path | bytes:
        """The path or the bytes of one encoded image."""

    def _describe(self, index: int) -> str:
        """Name of image `index` in errors if its source is bytes."""
        return f"image {index} of {self.name!r}"

    def _read_checked(self, indices: Sequence[int]) -> np.ndarray:
        height, width = self.crop_size
        images_BHWC = np.empty((len(indices), height, width, 3), np.uint8)
        for row, index in enumerate(indices):
            source = self._source(index)
            try:
                image_HWC = read_image(source)
            except ImageReadError as error:
                if isinstance(source, Path):
                    raise
                raise ImageReadError(f"{self._describe(index)}: {error}") from error
            if image_HWC.shape != (height, width, 3):
                found = f"{image_HWC.shape[1]} x {image_HWC.shape[0]}"
                label = str(source) if isinstance(source, Path) else self._describe(index)
                raise ImageReadError(
                    f"{label} has {found} pixels, expected an aligned crop of {width} x {height}; run `ppfr align` on"
                    " the photos first"
                )
            images_BHWC[row] = image_HWC
        return images_BHWC


class FileImageSet(EncodedImageSet):
    """One file per image, decoded on read."""

    def __init__(
        self,
        paths: Sequence[Path],
        subject_ids: Sequence[str],
        *,
        name: str,
        root: Path | None = None,
        crop_size: tuple[int, int] = CROP_SIZE,
    ) -> None:
        """Describe the set. Files are opened on read.

        Args:
            paths: N image files.
            subject_ids: N subject ids.
            name: short name for records.
            root: directory to which file names in fingerprints are relative, so that they agree between machines.
            crop_size: (H, W) that every image must have.

        Raises:
            ShapeError: the lengths differ.
        """
        if len(paths) != len(subject_ids):
            raise ShapeError(f"got {len(paths)} files and {len(subject_ids)} subject ids; pass one id per file")
        super().__init__(name=name, subject_ids=subject_ids, crop_size=crop_size)
        self._paths = tuple(paths)
        self._root = root

    @property
    def paths(self) -> Sequence[Path]:
        """The file of each image."""
        return self._paths

    def _source(self, index: int) -> Path:
        return self._paths[index]

    def signature(self, index: int) -> str:
        """File name relative to the root, and size in bytes."""
        path = self._paths[index]
        shown = path.relative_to(self._root).as_posix() if self._root is not None else path.name
        return f"{shown}\0{path.stat().st_size}"


class _Subset(StoredImageSet):
    """A subset of another set."""

    def __init__(self, parent: StoredImageSet, indices: Sequence[int], *, name: str) -> None:
        subjects = parent.subject_ids
        super().__init__(name=name, subject_ids=[subjects[index] for index in indices], crop_size=parent.crop_size)
        self._parent = parent
        self._indices = tuple(indices)

    def _read_checked(self, indices: Sequence[int]) -> np.ndarray:
        return self._parent._read_checked([self._indices[index] for index in indices])

    def signature(self, index: int) -> str:
        return self._parent.signature(self._indices[index])


class _Concatenation(StoredImageSet):
    """Several sets, concatenated."""

    def __init__(self, parts: Sequence[StoredImageSet], *, name: str) -> None:
        subjects = [subject for part in parts for subject in part.subject_ids]
        super().__init__(name=name, subject_ids=subjects, crop_size=parts[0].crop_size)
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def _place(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])

    def _read_checked(self, indices: Sequence[int]) -> np.ndarray:
        height, width = self.crop_size
        images_BHWC = np.empty((len(indices), height, width, 3), np.uint8)
        places = [self._place(index) for index in indices]
        for number, part in enumerate(self._parts):
            rows = [row for row, place in enumerate(places) if place[0] == number]
            if rows:
                images_BHWC[rows] = part._read_checked([places[row][1] for row in rows])
        return images_BHWC

    def signature(self, index: int) -> str:
        part, place = self._place(index)
        return f"{self._parts[part].name}\0{self._parts[part].signature(place)}"


def concatenate(parts: Sequence[StoredImageSet], *, name: str) -> StoredImageSet:
    """Concatenate image sets. Equal subject ids in two parts denote the same person.

    Raises:
        DatasetError: there are no parts, or their crops differ in size.
    """
    if not parts:
        raise DatasetError("no image sets were given; pass at least one")
    shapes = sorted({part.crop_size for part in parts})
    if len(shapes) > 1:
        raise DatasetError(f"image sets have crops of {shapes}; align all of them to one size")
    return _Concatenation(parts, name=name)


def _checked_indices(indices: Sequence[int], count: int) -> list[int]:
    """Indices as Python ints. Negative indices are rejected, because they would hide errors in pair lists."""
    numbers = np.asarray(indices)
    if numbers.size == 0:
        return []
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise InvalidInputError(
            f"image indices are {numbers.dtype} of shape {numbers.shape}; pass a flat sequence of integers"
        )
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= count:
        raise InvalidInputError(f"image indices {low}..{high} are out of range; this set has 0..{count - 1}")
    return [int(number) for number in numbers]


def float_images(
    images_NHWC: NDArray[np.uint8] | Tensor,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Convert the crops that image sets return to the images that maskers and recognisers take.

    Args:
        images_NHWC: (N, H, W, 3) uint8 RGB, an array or a tensor. A tensor in pinned memory is copied asynchronously.
        device: device of the result; None for the CPU.
        dtype: floating-point type of the result; None for float32.

    Returns:
        (N, 3, H, W) in [0, 1], in the memory layout of the crops (channels last).
    """
    import torch

    if isinstance(images_NHWC, torch.Tensor):
        pixels_NHWC = images_NHWC
    else:
        pixels_NHWC = torch.from_numpy(np.ascontiguousarray(images_NHWC))
    moved_NHWC = pixels_NHWC.to(device or "cpu", non_blocking=pixels_NHWC.is_pinned())
    return moved_NHWC.permute(0, 3, 1, 2).to(dtype or torch.float32).div_(255.0)
