"""The image set of synthetic faces, single images, and contact sheets."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ppfr.core import RangeError, derive_seed
from ppfr.data import StoredImageSet
from ppfr.synthetic._capture import draw_capture
from ppfr.synthetic._identity import Person, draw_person
from ppfr.synthetic._render import render_capture

GENERATOR_VERSION = 1
"""Increased whenever the image of a seed changes; it is part of every fingerprint."""

_MIN_PX, _MAX_PX = 32, 1024
_MAX_FIELD_OF_VIEW = 2.5


class SyntheticFaces(StoredImageSet):
    """Procedurally generated faces of fictitious people, any number of captures each, aligned to the 112x112 template.

    Image i is a pure function of (seed, subject number, capture number, size). It depends neither on the order of
    reading nor on the size of the set, so subject 7 of a small set is also subject 7 of a larger one. Sets with
    disjoint ranges of numbers share no people: `first_subject=0, num_subjects=300` and `first_subject=300` are
    disjoint. Images are generated when they are read; `cached()` keeps them in memory.

    `docs/methods/synthetic-faces.md` describes which conclusions results on these faces allow.

    >>> faces = SyntheticFaces(3, 2, seed=1)
    >>> faces.read([0, 5]).shape, faces.subject_ids[5]
    ((2, 112, 112, 3), 'synthetic-1/00002')
    """

    def __init__(
        self, num_subjects: int, images_per_subject: int, *, seed: int, size: int = 112, first_subject: int = 0
    ) -> None:
        """Describe the set. Images are generated on read.

        Args:
            num_subjects: number of people, at least 1.
            images_per_subject: captures per person, at least 1; image i shows person i // images_per_subject.
            seed: root seed; another seed gives another population.
            size: side of the square crop in pixels, even, 32 to 1024.
            first_subject: number of the first person, at least 0.

        Raises:
            RangeError: an argument is outside its range.
        """
        for what, value, minimum in (
            ("num_subjects", num_subjects, 1),
            ("images_per_subject", images_per_subject, 1),
            ("first_subject", first_subject, 0),
        ):
            if value < minimum:
                raise RangeError(f"{what}={value} is too small; it must be at least {minimum}")
        _check_size(size)
        self.num_subjects, self.images_per_subject = num_subjects, images_per_subject
        self.seed, self.size, self.first_subject = seed, size, first_subject
        numbers = range(first_subject, first_subject + num_subjects)
        ids = [f"synthetic-{seed}/{number:05d}" for number in numbers for _ in range(images_per_subject)]
        super().__init__(name="synthetic", subject_ids=ids, crop_size=(size, size))

    def signature(self, index: int) -> str:
        """The inputs of image `index`: generator version, seed, subject and capture number, size."""
        subject, capture = self._numbers(index)
        return f"synthetic-faces v{GENERATOR_VERSION} seed={self.seed} {subject}/{capture} {self.size}px"

    def _numbers(self, index: int) -> tuple[int, int]:
        return self.first_subject + index // self.images_per_subject, index % self.images_per_subject

    def _read_checked(self, indices: Sequence[int]) -> np.ndarray:
        images_BHWC = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for row, index in enumerate(indices):
            subject, capture = self._numbers(index)
            subject_seed, capture_seed = face_seeds(self.seed, subject, capture)
            images_BHWC[row] = render_face(subject_seed, capture_seed, size=self.size)
        return images_BHWC


def face_seeds(seed: int, subject: int, capture: int) -> tuple[int, int]:
    """Subject seed and capture seed for `render_face` of one image of `SyntheticFaces(..., seed=seed)`."""
    return (
        derive_seed(seed, "synthetic-subject", subject),
        derive_seed(seed, "synthetic-capture", subject, capture),
    )


def render_face(subject_seed: int, capture_seed: int, *, size: int = 112, field_of_view: float = 1.0) -> np.ndarray:
    """Render one photograph of one synthetic person.

    Args:
        subject_seed: seed of the person.
        capture_seed: seed of pose, expression, light, occlusion and camera, independent of the person.
        size: side in pixels, even, 32 to 1024. A larger size shows the same picture in more detail.
        field_of_view: 1 is the aligned crop of 112x112 recognisers; values up to 2.5 also show hair and shoulders.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        RangeError: the size or field of view is outside its range, or a seed is negative.
    """
    _check_size(size)
    if not 1.0 <= field_of_view <= _MAX_FIELD_OF_VIEW:
        raise RangeError(f"field_of_view={field_of_view} is outside [1, {_MAX_FIELD_OF_VIEW}]")
    if min(subject_seed, capture_seed) < 0:
        raise RangeError(f"subject_seed={subject_seed} and capture_seed={capture_seed} must be at least 0")
    return render_capture(_person(subject_seed), draw_capture(capture_seed), size, field_of_view)


def contact_sheet(
    num_subjects: int,
    images_per_subject: int,
    *,
    seed: int,
    size: int = 112,
    first_subject: int = 0,
    field_of_view: float = 1.0,
) -> np.ndarray:
    """An image with one row of captures per person, with the people and captures of `SyntheticFaces`.

    Returns:
        (num_subjects * size, images_per_subject * size, 3) uint8 RGB.

    Raises:
        RangeError: as for `SyntheticFaces` and `render_face`.
    """
    faces = SyntheticFaces(num_subjects, images_per_subject, seed=seed, size=size, first_subject=first_subject)
    rows = []
    for subject in range(faces.first_subject, faces.first_subject + faces.num_subjects):
        seeds = [face_seeds(seed, subject, capture) for capture in range(images_per_subject)]
        rows.append(np.hstack([render_face(*pair, size=size, field_of_view=field_of_view) for pair in seeds]))
    return np.vstack(rows)


@functools.lru_cache(maxsize=1024)
def _person(subject_seed: int) -> Person:
    return draw_person(subject_seed)


def _check_size(size: int) -> None:
    if not _MIN_PX <= size <= _MAX_PX or size % 2:
        raise RangeError(f"size={size} px is invalid; it must be an even number from {_MIN_PX} to {_MAX_PX}")
