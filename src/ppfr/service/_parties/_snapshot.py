"""The public content of a gallery as a client sees it: subjects and reference ids, in the order of the parties."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, PartyError
from ppfr.secure import NUM_PARTIES, SubjectIndex
from ppfr.service._parties._exchange import Exchange
from ppfr.service._parties._messages import Message, array_of

_MAX_ATTEMPTS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GallerySnapshot:
    """The public content of a gallery at one time.

    Attributes:
        digest: of the gallery, hexadecimal; a query contains it.
        index: the subjects of the M references.
        ids_M16: ids of the references.
    """

    digest: str
    index: SubjectIndex
    ids_M16: NDArray[np.uint8]

    @classmethod
    def fetch(cls, exchange: Exchange) -> GallerySnapshot:
        """Fetch the content from the parties and check that all three have the same.

        Raises:
            PartyError: they differ, or a party cannot be reached; names it.
        """
        for _ in range(_MAX_ATTEMPTS):
            full = Message(fields={"type": "subjects", "contents": True})
            brief = Message(fields={"type": "subjects", "contents": False})
            replies = exchange.all_of([full, *[brief] * (NUM_PARTIES - 1)])
            if len({reply.text("gallery") for reply in replies}) == 1:
                return cls._read(replies)
        raise PartyError(
            f"The parties had different galleries {_MAX_ATTEMPTS} times in a row. Repeat the request. If it fails "
            "again, see the logs of the parties."
        )

    @classmethod
    def _read(cls, replies: list[Message]) -> GallerySnapshot:
        first, text = replies[0], bytes(replies[0].buffer(1))
        digest = hashlib.sha256(text).hexdigest()
        for party, reply in enumerate(replies):
            if reply.text("subjects") != digest:
                raise PartyError(
                    f"Party {party} has other subjects than party 0 for the same references. Restore all three stores "
                    "from backups of one time.",
                    party=party,
                )
        subjects = json.loads(text)
        ids_M16 = array_of(first.buffer(0), (len(subjects), ID_BYTES), np.dtype(np.uint8))
        return cls(digest=first.text("gallery"), index=SubjectIndex(subjects, len(ids_M16)), ids_M16=ids_M16)

    def __repr__(self) -> str:
        return f"GallerySnapshot(num_references={len(self.ids_M16)}, subjects=<redacted>)"
