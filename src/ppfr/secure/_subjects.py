"""Names of subjects, and subjects to reference indices and back: the protocols compute with indices.

Suffixes: B probes, N claims, M references, P pairs of a probe and a reference.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ShapeError

MAX_SUBJECT_BYTES = 100
# Control characters, halves of surrogate pairs, line and paragraph separators; private use, which each system displays
# in another way; and characters that this Python does not know, whose normal form may differ at the parties.
_REFUSED = ("Cc", "Cs", "Zl", "Zp", "Co", "Cn")
# Persian and the scripts of India need these two between letters. All other format characters are refused: they are
# invisible, or change the direction of the text around them.
_JOINERS = "\u200c\u200d"


def normalised_subject(name: str) -> str:
    r"""Bring a subject's name into the form that is stored: Unicode normalisation form C, 1 to 100 bytes in UTF-8.

    The parties compare names byte by byte, so all spellings of a name must become one.

    Raises:
        InvalidInputError: another length, or a character that is refused: a control, format, private-use or unassigned
            character, a line or paragraph separator, or half a surrogate pair. Zero-width joiners and non-joiners are
            accepted between letters. The message states the position of the character and does not contain the name.

    Example:
        >>> len("e\u0301"), len(normalised_subject("e\u0301"))
        (2, 1)
    """
    problem = None if isinstance(name, str) else "not a string"
    if problem is None:
        problem = _refused_character(name)
    if problem is None:
        name = unicodedata.normalize("NFC", name)
        num = len(name.encode())
        problem = None if 0 < num <= MAX_SUBJECT_BYTES else f"{num} bytes"
    if problem is not None:
        raise InvalidInputError(
            f"Expected a subject of 1 to {MAX_SUBJECT_BYTES} bytes in UTF-8 without control characters, got {problem}. "
            "Use a pseudonym."
        )
    return name


def normalised_subjects(names: Sequence[str]) -> tuple[str, ...]:
    """Apply `normalised_subject` to each name.

    Raises:
        InvalidInputError: as there; the message begins with the position of the name.
    """
    normalised = []
    for place, name in enumerate(names):
        try:
            normalised.append(normalised_subject(name))
        except InvalidInputError as error:
            raise InvalidInputError(f"Entry {place}: {error}") from None
    return tuple(normalised)


def _refused_character(name: str) -> str | None:
    """The first refused character of a name, by position and code point."""
    if name.isascii() and name.isprintable():
        return None
    kinds = [unicodedata.category(character) for character in name]
    for place, (character, kind) in enumerate(zip(name, kinds, strict=True)):
        around = kinds[max(place - 1, 0) : place] + kinds[place + 1 : place + 2]
        is_joiner = character in _JOINERS and len(around) == 2 and all(one[0] in "LM" for one in around)
        if kind in _REFUSED or (kind == "Cf" and not is_joiner):
            return f"U+{ord(character):04X} at position {place}"
    return None


@final
class SubjectIndex:
    """The subjects of a gallery's M references.

    Args:
        subjects: M strings; a subject with several references occurs several times. None numbers the references "0" to
            "M - 1".
        num_references: M.

    Raises:
        ShapeError: another number of subjects than references.
        InvalidInputError: a subject that is not a non-empty string.
    """

    def __init__(self, subjects: Sequence[str] | None, num_references: int) -> None:
        names = tuple(map(str, range(num_references))) if subjects is None else tuple(subjects)
        if len(names) != num_references:
            raise ShapeError(f"Expected one subject for each of {num_references} references, got {len(names)}.")
        if not all(isinstance(name, str) and name for name in names):
            raise InvalidInputError("Subjects must be non-empty strings. Convert numbers with str().")
        self.subjects = names
        self._references: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self._references.setdefault(name, []).append(index)

    def references_of(self, probes_ND: ArrayLike, subjects: Sequence[str]) -> list[list[int]]:
        """For each of N claims the indices of the claimed subject's references.

        Raises:
            ShapeError: probes that are not (N, D), or another number of claims.
            InvalidInputError: a subject that is not enrolled; the message does not name it.
        """
        shape = np.shape(np.asarray(probes_ND))
        if len(shape) != 2 or shape[0] != len(subjects):
            raise ShapeError(f"Expected probes of shape (N, D) and N subjects, got {shape} and {len(subjects)}.")
        return self.indices_of(subjects)

    def indices_of(self, subjects: Sequence[str]) -> list[list[int]]:
        """For each of the given subjects the indices of its references.

        Raises:
            InvalidInputError: a subject that is not enrolled; the message does not name it.
        """
        try:
            return [self._references[name] for name in subjects]
        except (KeyError, TypeError):
            raise InvalidInputError("A subject is not enrolled. Compare the names with `subjects`.") from None

    def all_of(self, accepted_BM: NDArray[np.bool_]) -> tuple[tuple[str, ...], ...]:
        """The subjects of each probe's accepted references, each once, sorted."""
        return tuple(tuple(sorted({self.subjects[m] for m in np.flatnonzero(row_M)})) for row_M in accepted_BM)

    def best_of(self, best_B: NDArray[np.int64]) -> tuple[str | None, ...]:
        """The subject of each probe's best reference; None for -1."""
        return tuple(None if m < 0 else self.subjects[m] for m in best_B.tolist())

    def __repr__(self) -> str:
        return f"SubjectIndex(num_references={len(self.subjects)}, subjects=<redacted>)"


def pairs_of(references: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(P,) claims and (P,) references: every claim with each reference of its subject, in order."""
    sizes_N = np.array([len(of_claim) for of_claim in references], dtype=np.int64)
    claim_P = np.repeat(np.arange(len(references)), sizes_N)
    return claim_P, np.array([m for of_claim in references for m in of_claim], dtype=np.int64)


def padded_references(references: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(N, R): the references of each claim; a claim with fewer than R repeats its first one."""
    width = max((len(of_claim) for of_claim in references), default=0)
    return np.array(
        [[*of_claim, *[of_claim[0]] * (width - len(of_claim))] for of_claim in references], dtype=np.int64
    ).reshape(len(references), width)


def any_per_claim(accepted_P: NDArray[Any], claim_P: NDArray[np.int64], num_claims: int) -> NDArray[np.bool_]:
    """(N,): whether any pair of the claim was accepted."""
    return np.bincount(claim_P[accepted_P], minlength=num_claims) > 0
