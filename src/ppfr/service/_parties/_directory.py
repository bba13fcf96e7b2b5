"""Who is enrolled, as a client knows it: subjects and reference ids in the order that answers count by."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, InvalidInputError, PartyError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.service._parties._exchange import Exchange
from ppfr.service._parties._messages import Message, array_of

_MOST_LOOKS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directory:
    """A gallery's public side at one time.

    Attributes:
        digest: of the gallery, in hexadecimal; a question names it.
        subjects: of the M references.
        ids_M16: their ids.
        places: of each subject its references' indices.
    """

    digest: str
    subjects: tuple[str, ...]
    ids_M16: NDArray[np.uint8]
    places: dict[str, list[int]]

    @classmethod
    def ask(cls, exchange: Exchange) -> Directory:
        """From all three parties, which must agree.

        Raises:
            PartyError: they do not, or one is gone; names it.
        """
        for _ in range(_MOST_LOOKS):
            full = Message(fields={"do": "directory", "contents": True})
            brief = Message(fields={"do": "directory", "contents": False})
            replies = exchange.all_of([full, *[brief] * (NUM_PARTIES - 1)])
            if len({reply.text("gallery") for reply in replies}) == 1:
                return cls._read(replies)
        raise PartyError("the parties hold different galleries, or change them all the time; see their logs")

    @classmethod
    def _read(cls, replies: list[Message]) -> Directory:
        first, text = replies[0], bytes(replies[0].buffer(1))
        told = hashlib.sha256(text).hexdigest()
        for party, reply in enumerate(replies):
            if reply.text("subjects") != told:
                raise PartyError(f"party {party} has other subjects than party 0 for the same references", party=party)
        subjects = tuple(json.loads(text))
        places: dict[str, list[int]] = {}
        for index, subject in enumerate(subjects):
            places.setdefault(subject, []).append(index)
        ids_M16 = array_of(first.buffer(0), (len(subjects), ID_BYTES), np.dtype(np.uint8))
        return cls(digest=first.text("gallery"), subjects=subjects, ids_M16=ids_M16, places=places)

    def references_of(self, subject: str) -> NDArray[np.int64]:
        """Indices.

        Raises:
            InvalidInputError: the subject is not enrolled; it is not named.
        """
        if subject not in self.places:
            raise InvalidInputError("a subject is not enrolled; compare the names with those of the enrolment")
        return np.array(self.places[subject], dtype=np.int64)

    def __repr__(self) -> str:
        return f"Directory(num={len(self.subjects)}, subjects=<redacted>)"
