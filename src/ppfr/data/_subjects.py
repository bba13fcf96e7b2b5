"""Matching people across data sets, and the check that two sets share no person."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

from ppfr.core import ImageSet, OverlapError


@functools.lru_cache(maxsize=1 << 17)
def canonical_subject(subject_id: str) -> str:
    """A subject id without differences in spelling: case, accents, spaces, punctuation.

    >>> canonical_subject("LeBron_James") == canonical_subject("Lebron James")
    True
    >>> canonical_subject("synthetic/00012") == canonical_subject("synthetic/00013")
    False
    """
    decomposed = unicodedata.normalize("NFKD", subject_id)
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return re.sub(r"[\W_]+", "_", bare.casefold()).strip("_")


def shared_subjects(one: Iterable[str], other: Iterable[str]) -> frozenset[str]:
    """Canonical names that occur in both. Equal names count as the same person."""
    return frozenset(map(canonical_subject, one)) & frozenset(map(canonical_subject, other))


def assert_disjoint(one: ImageSet, other: ImageSet, *, remedy: str = "") -> None:
    """Check that two sets share no person.

    Names are compared in the form of `canonical_subject`. A set with numbers instead of names (a `.rec` file) can only
    be compared with itself. Its ids contain the name of the set, so they never match names of other sets, and the user
    must exclude an overlap.

    Args:
        one: images, such as the training set.
        other: images whose people must not be in `one`; of a `PairProtocol`, only those its pairs use:
            `assert_disjoint(training, protocol.used_images())`.
        remedy: remedy for the error message.

    Raises:
        OverlapError: people are shared. The message states how many people and images, but no names.
    """
    shared = shared_subjects(one.subject_ids, other.subject_ids)
    if not shared:
        return
    num_images = sum(canonical_subject(subject) in shared for subject in one.subject_ids)
    raise OverlapError(
        f"{one.name!r} and {other.name!r} must share no person, but share {len(shared)} ({num_images} images of the"
        f" first). {remedy or 'Use ppfr.data.without_subjects_of(first, second), or a split made for this test.'}"
    )
