"""The data sets that a system was trained on, their file next to the system, and the overlap with a test set.

People are listed as hashes of their names. Names can be guessed, so the list shows to anyone who has a name whether
this person was in the training set. It does not protect the people on it; it only spares the names from being read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from ppfr.assets import write_atomically
from ppfr.core import CheckpointError, ImageSet, OverlapError
from ppfr.data import has_name, subject_hash

TRAINED_ON_FILE = "trained-on.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """A data set that a network was trained on.

    Attributes:
        name: of the data set; for that of a pretrained network, after the network's name.
        num_images: number of images, or None if unknown.
        num_subjects: number of people, or None if unknown.
        num_unnamed: number of people with a number instead of a name (`ppfr.data.has_name`), or None if unknown.
        subject_hashes: sorted `ppfr.data.subject_hash` of each person, or None if they are not listed.
    """

    name: str
    num_images: int | None = None
    num_subjects: int | None = None
    num_unnamed: int | None = None
    subject_hashes: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(cls, images: ImageSet) -> Self:
        """The entry of an image set, with its people."""
        subjects = set(images.subject_ids)
        hashes = tuple(sorted({subject_hash(subject) for subject in subjects}))
        return cls(
            name=images.name,
            num_images=len(images),
            num_subjects=len(hashes),
            num_unnamed=sum(not has_name(subject) for subject in subjects),
            subject_hashes=hashes,
        )

    def unlisted(self) -> Self:
        """The same entry without its people."""
        return dataclasses.replace(self, subject_hashes=None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOverlap:
    """Whether people of a test set are in the training data of a system.

    Attributes:
        status: "none" if all people could be compared and no person is shared; "allowed" if people are shared and the
            caller allowed it; "unknown" if no shared person is known, but `unchecked` is not empty.
        num_shared: number of people of the test set that are in the training data, or None if the status is "unknown".
        num_people: number of people of the test set. One person of a set without names may count several times.
        unchecked: what could not be compared, and why.
    """

    status: Literal["none", "allowed", "unknown"]
    num_shared: int | None
    num_people: int
    unchecked: tuple[str, ...] = ()

    def in_words(self, test_set: str) -> str:
        """The overlap as one line of a report."""
        known = [] if self.num_shared is None else [f"{self.num_shared} of its {self.num_people} people"]
        unknown = [f"unknown ({'; '.join(self.unchecked)})"] if self.unchecked else []
        return f"{test_set}: {', otherwise '.join(known + unknown)}"


def check_training_overlap(
    trained_on: Sequence[TrainingSet], test_images: ImageSet, *, is_allowed: bool = False
) -> TrainingOverlap:
    """Refuse a test on people that a system was trained on, as far as they are known.

    Names are compared in the form of `ppfr.data.canonical_subject`. An unknown overlap is not refused, so show the
    result next to the figures.

    Args:
        trained_on: `MaskedSystem.trained_on`; empty if the training data is unknown.
        test_images: the images of the test; of a `PairProtocol`, `used_images()`.
        is_allowed: whether to return shared people as a result.

    Raises:
        OverlapError: people are shared and `is_allowed` is False. The message has their number, but no name.
    """
    subjects = set(test_images.subject_ids)
    hashes = frozenset(map(subject_hash, subjects))
    num_unnamed = sum(not has_name(subject) for subject in subjects)
    shared = frozenset[str]().union(*(hashes.intersection(each.subject_hashes or ()) for each in trained_on))
    if shared and not is_allowed:
        numbers = " Equal numbers count as one person." if num_unnamed else ""
        raise OverlapError(
            f"{len(shared)} of the {len(hashes)} people of {test_images.name!r} are in the training data of the system "
            f"({', '.join(each.name for each in trained_on)}), so the figures would not hold for new people.{numbers} "
            "Test on other people, or allow the overlap with --allow-training-overlap (in Python, "
            "allows_training_overlap=True); the result then states it."
        )
    unchecked = tuple(_unchecked(trained_on, test_images.name, num_unnamed))
    status: Literal["none", "allowed", "unknown"] = "allowed" if shared else "unknown" if unchecked else "none"
    return TrainingOverlap(
        status=status,
        num_shared=None if status == "unknown" else len(shared),
        num_people=len(hashes),
        unchecked=unchecked,
    )


def _unchecked(trained_on: Sequence[TrainingSet], test_set: str, num_unnamed: int) -> Iterator[str]:
    if not trained_on:
        yield f"the system has no {TRAINED_ON_FILE}, so its training data is unknown"
    for each in trained_on:
        if each.subject_hashes is None:
            yield f"{each.name}: its people are not listed"
        elif each.num_unnamed:
            yield f"{each.name}: {each.num_unnamed} of its people have numbers instead of names"
    if num_unnamed:
        yield f"{test_set}: {num_unnamed} of its people have numbers instead of names"


def write_training_sets(directory: Path, sets: Iterable[TrainingSet], *, network_sha256: str) -> None:
    """Write trained-on.json. Only its owner may read it.

    Raises:
        StorageError: the directory is not writable.
    """
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "network_sha256": network_sha256,
        "sets": [dataclasses.asdict(each) for each in sets],
    }
    facts["sha256"] = _checksum(facts)
    with write_atomically(directory / TRAINED_ON_FILE) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_training_sets(directory: Path, *, network_sha256: str) -> tuple[TrainingSet, ...]:
    """Read what `write_training_sets` wrote. Empty if the file does not exist: the training data is unknown.

    Raises:
        CheckpointError: the file is damaged, of another format, or belongs to another network.
    """
    path = directory / TRAINED_ON_FILE
    remedy = "restore it, or delete it: the training data then counts as unknown"
    if not path.exists():
        return ()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.pop("sha256") != _checksum(facts):
            raise ValueError("its checksum differs from its content")
        if facts["format"] != _FORMAT:
            raise ValueError(f"it has format {facts['format']}, expected {_FORMAT}")
        sets = tuple(TrainingSet(**_with_tuple(entry)) for entry in facts["sets"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error
    if facts["network_sha256"] != network_sha256:
        raise CheckpointError(f"{path} belongs to another network; {remedy}")
    return sets


def _with_tuple(entry: Mapping[str, Any]) -> dict[str, Any]:
    hashes = entry["subject_hashes"]
    if hashes is not None and not all(isinstance(each, str) for each in hashes):
        raise TypeError("hashes must be strings")
    return {**entry, "subject_hashes": None if hashes is None else tuple(hashes)}


def _checksum(facts: Mapping[str, Any]) -> str:
    """Finds accidental damage. Whoever can write the file can also write the checksum."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
