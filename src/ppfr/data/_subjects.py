"""Matching people across data sets, and the check that two sets share no person."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable

from ppfr.core import ImageSet, OverlapError

_HASH_PURPOSE = b"ppfr: subject of a training set\0"
_SYNTHETIC = re.compile(r"synthetic_\d+_\d+")
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")


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


def subject_hash(subject_id: str) -> str:
    """SHA-256 of a purpose and the `canonical_subject`, in hexadecimal.

    Privacy: names can be guessed. Anyone who has a name can compute its hash and find it in a list of hashes.

    >>> subject_hash("LeBron_James") == subject_hash("lebron james")
    True
    """
    return hashlib.sha256(_HASH_PURPOSE + canonical_subject(subject_id).encode("utf-8", "surrogatepass")).hexdigest()


def has_name(subject_id: str) -> bool:
    """Whether a subject id can identify the person in other data sets.

    A name has two letters in a row. Ids such as "faces/12", "0000045" and "n000123" are numbers within one data set.
    Ids of `ppfr.synthetic.SyntheticFaces` count as names, because they number all synthetic people. A code with two
    letters in a row, such as "id10270", is taken for a name.

    >>> has_name("Aaron_Peirsol"), has_name("synthetic-1/00002"), has_name("ms1m/12"), has_name("n000123")
    (True, True, False, False)
    """
    if _SYNTHETIC.fullmatch(canonical_subject(subject_id)):
        return True
    own = unicodedata.normalize("NFKD", subject_id.rpartition("/")[2])
    # Marks separate letters: vowel signs of Indic scripts, and accents.
    letters = "".join(character for character in own if not unicodedata.category(character).startswith("M"))
    return _TWO_LETTERS.search(letters) is not None


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
