"""Who is the same person in two data sets, and refusing sets that share someone."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

from ppfr.core import ImageSet, OverlapError


@functools.lru_cache(maxsize=1 << 17)
def canonical_subject(subject_id: str) -> str:
    """A subject id with what differs between spellings of one name taken out: case, accents, spaces, punctuation.

    >>> canonical_subject("LeBron_James") == canonical_subject("Lebron James")
    True
    >>> canonical_subject("synthetic/00012") == canonical_subject("synthetic/00013")
    False
    """
    decomposed = unicodedata.normalize("NFKD", subject_id)
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return re.sub(r"[\W_]+", "_", bare.casefold()).strip("_")


def shared_subjects(one: Iterable[str], other: Iterable[str]) -> frozenset[str]:
    """Canonical names that occur in both; equal names are the same person."""
    return frozenset(map(canonical_subject, one)) & frozenset(map(canonical_subject, other))


def assert_disjoint(one: ImageSet, other: ImageSet, *, remedy: str = "") -> None:
    """Refuse two sets that share a person.

    Names are compared as `canonical_subject` writes them, across data sets. A set with numbers for names (a `.rec`
    file) can only be compared with itself: its numbers carry its name, so they never match a name elsewhere, and nobody
    but the user can rule an overlap out.

    Args:
        one: images, such as the training set.
        other: images whose people must not be in `one`; of a `PairProtocol`, only those its pairs use:
            `assert_disjoint(training, protocol.used_images())`.
        remedy: what to do, for the message.

    Raises:
        OverlapError: some are shared; says how many people and images, never who.
    """
    shared = shared_subjects(one.subject_ids, other.subject_ids)
    if not shared:
        return
    num_images = sum(canonical_subject(subject) in shared for subject in one.subject_ids)
    raise OverlapError(
        f"{one.name!r} and {other.name!r} must share no person, but share {len(shared)} ({num_images} images of the"
        f" first). {remedy or 'Use ppfr.data.without_subjects_of(first, second), or a split made for this test.'}"
    )
