"""The public content of a gallery as a client sees it: subjects and reference ids, in the order of the parties."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, InvalidInputError, PartyError
from ppfr.secure import NUM_PARTIES, FixedPoint, SubjectIndex, gallery_digest
from ppfr.service._parties._exchange import Exchange
from ppfr.service._parties._messages import Message, array_of, json_from

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
        """Fetch the content from party 0 and check that all three parties have it.

        Raises:
            PartyError: they differ, or a party cannot be reached; names it.
        """
        point = exchange.terms().parameters.fixed_point
        for _ in range(_MAX_ATTEMPTS):
            full = Message(fields={"type": "subjects", "contents": True})
            brief = Message(fields={"type": "subjects", "contents": False})
            replies = exchange.all_of([full, *[brief] * (NUM_PARTIES - 1)])
            if len({reply.text("gallery") for reply in replies}) == 1:
                return cls._read(replies[0], point)
        raise PartyError(
            f"The parties had different galleries {_MAX_ATTEMPTS} times in a row. Repeat the request. If it fails "
            "again, see the logs of the parties."
        )

    @classmethod
    def _read(cls, reply: Message, point: FixedPoint) -> GallerySnapshot:
        """Read the content that party 0 sent, which must have the digest that all three parties stated."""
        try:
            subjects = json_from(reply.buffer(1), "list of subjects")
            ids_M16 = array_of(reply.buffer(0), (len(subjects), ID_BYTES), np.dtype(np.uint8))
            digest = gallery_digest(point, ids_M16, subjects, reply.integer("epoch")).hex()
            index = SubjectIndex(subjects, len(ids_M16))
        except (InvalidInputError, ValueError, TypeError, AttributeError) as error:
            raise PartyError("Party 0 sent a list of references that cannot be read. Check it.", party=0) from error
        if digest != reply.text("gallery"):
            raise PartyError(
                "Party 0 sent other references or subjects than the three parties have. Check party 0.", party=0
            )
        return cls(digest=digest, index=index, ids_M16=ids_M16)

    def __repr__(self) -> str:
        return f"GallerySnapshot(num_references={len(self.ids_M16)}, subjects=<redacted>)"
