"""Protocols for identification (1:N) with distractors: gallery, mated probes and unmated probes.

Suffixes: M references, N probes with a mate, U probes without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppfr.core import ProblemsError
from ppfr.data._image_sets import StoredImageSet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenSetProtocol:
    """One reference per identity, probes of these identities, and distractors who are not in the gallery.

    Attributes:
        name: short name for records, as in "lfw-open-set".
        images: the image set that the other attributes index; it may contain unused images.
        references: (M,) int64, index of each identity's reference.
        mated: (N,) int64, other images of these identities.
        unmated: (U,) int64, images of people who have no reference (distractors).

    Raises:
        ProblemsError: the gallery is empty, an identity has two references, a probe is a reference, there are no mated
            or no unmated probes, or indices are outside the set; all problems are listed.
    """

    name: str
    images: StoredImageSet
    references: np.ndarray
    mated: np.ndarray
    unmated: np.ndarray

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ProblemsError(f"open-set protocol {self.name!r} is not consistent", problems)
        for field in ("references", "mated", "unmated"):
            getattr(self, field).flags.writeable = False

    def _problems(self) -> list[str]:
        missing = {
            "references": "the gallery is empty; add at least one reference",
            "mated": "no probe has a mate in the gallery; add other images of its identities",
            "unmated": "there are no distractors; add images of people without a reference",
        }
        problems = [words for field, words in missing.items() if getattr(self, field).size == 0]
        for field in missing:
            array = getattr(self, field)
            if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
                problems.append(f"{field} must be (N,) integers; it is {array.dtype} of shape {array.shape}")
            elif array.size and (array.min() < 0 or array.max() >= len(self.images)):
                problems.append(f"{field} contains an index outside 0..{len(self.images) - 1}")
        if problems:
            return problems
        subjects = np.asarray(self.images.subject_ids)
        enrolled = subjects[self.references]
        num_twice = len(enrolled) - len(np.unique(enrolled))
        if num_twice:
            problems.append(
                f"{num_twice} references belong to an identity that already has one; enrol each identity once"
            )
        if np.isin(self.mated, self.references).any():
            problems.append("a mated probe is itself a reference; use another image")
        num_strange = int((~np.isin(subjects[self.mated], enrolled)).sum())
        if num_strange:
            problems.append(f"{num_strange} mated probes show people without a reference")
        num_known = int(np.isin(subjects[self.unmated], enrolled).sum())
        if num_known:
            problems.append(f"{num_known} distractors have a reference; remove them")
        return problems

    def used(self) -> np.ndarray:
        """Sorted indices of all images that are used; embedding these is enough."""
        return np.unique(np.concatenate([self.references, self.mated, self.unmated]))

    def used_images(self) -> StoredImageSet:
        """The images that are used."""
        return self.images.subset(self.used().tolist(), name=self.name)


def one_reference_each(images: StoredImageSet, *, name: str, most_probes_each: int = 1) -> OpenSetProtocol:
    """Enrol the first image of everyone with several images and use others as probes; people with one are distractors.

    Args:
        images: any set, such as all of LFW.
        name: name of the protocol.
        most_probes_each: maximum number of probes per enrolled identity.

    Raises:
        ProblemsError: nobody has two images, or nobody has exactly one.
    """
    by_subject: dict[str, list[int]] = {}
    for index, subject in enumerate(images.subject_ids):
        by_subject.setdefault(subject, []).append(index)
    several = [indices for indices in by_subject.values() if len(indices) >= 2]
    return OpenSetProtocol(
        name=name,
        images=images,
        references=_indices([indices[0] for indices in several]),
        mated=_indices([index for indices in several for index in indices[1 : 1 + most_probes_each]]),
        unmated=_indices([indices[0] for indices in by_subject.values() if len(indices) == 1]),
    )


def _indices(found: Sequence[int]) -> np.ndarray:
    return np.array(found, dtype=np.int64)
