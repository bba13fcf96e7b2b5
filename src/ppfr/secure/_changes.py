"""Changes to a gallery that three parties make together or not at all. Suffix: N rows."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

from ppfr.core import ID_BYTES, InvalidInputError, ShapeError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._sharing import SharedRows

State = Literal["unknown", "prepared", "committed", "aborted"]
CHANGE_ID_BYTES = 16
_MAX_SUBJECT_BYTES = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Enrolment:
    """What one party is to store.

    Attributes:
        change_id: 16 random bytes, the same at all three parties and never used again.
        rows: the party's shares, N >= 1.
        subjects: of each row whose it is: 1 to 100 bytes in UTF-8, a pseudonym, for it is stored as it is.

    Raises:
        InvalidInputError, ShapeError: anything else; the message names entries by their place alone.
    """

    change_id: bytes
    rows: SharedRows
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        check_change_id(self.change_id)
        if len(self.rows) == 0:
            raise InvalidInputError("an enrolment has no rows; give at least one")
        if len(self.subjects) != len(self.rows):
            raise ShapeError(f"{len(self.rows)} rows came with {len(self.subjects)} subjects; give one for each")
        for place, subject in enumerate(self.subjects):
            name = subject.encode(errors="replace") if isinstance(subject, str) else b""
            if not 0 < len(name) <= _MAX_SUBJECT_BYTES or name.decode() != subject:
                raise InvalidInputError(
                    f"entry {place}: a subject is text of 1 to {_MAX_SUBJECT_BYTES} bytes in UTF-8; use a pseudonym"
                )
        if len({row.tobytes() for row in self.rows.ids_N16}) != len(self.rows):
            raise InvalidInputError("an id occurs twice in the enrolment; share the embeddings again")

    def digest(self) -> bytes:
        """32 bytes that tell a repeated message from another one under its id."""
        told = hashlib.sha256(self.rows.digest())
        told.update(repr(self.subjects).encode())
        told.update(self.rows.words_NW.tobytes())
        return told.digest()

    def __repr__(self) -> str:
        return f"Enrolment(change_id={self.change_id.hex()}, rows={self.rows!r}, subjects=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What all parties are to erase.

    Attributes:
        change_id: as of an `Enrolment`.
        reference_ids: 16 bytes each, as in `SharedRows.ids_N16`; at least one, distinct.

    Raises:
        InvalidInputError: anything else.
    """

    change_id: bytes
    reference_ids: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_change_id(self.change_id)
        if any(not isinstance(one, bytes) or len(one) != ID_BYTES for one in self.reference_ids):
            raise InvalidInputError(f"a reference id is not {ID_BYTES} bytes; give ids as in SharedRows.ids_N16")
        if not self.reference_ids or len(set(self.reference_ids)) != len(self.reference_ids):
            raise InvalidInputError("a removal names at least one reference, and none twice")

    def digest(self) -> bytes:
        """As of an `Enrolment`."""
        return hashlib.sha256(b"".join(self.reference_ids)).digest()

    def __repr__(self) -> str:
        return f"Removal(change_id={self.change_id.hex()}, num={len(self.reference_ids)})"


Change = Enrolment | Removal


def check_change_id(change_id: bytes) -> None:
    """Raises InvalidInputError unless it is 16 bytes."""
    if not isinstance(change_id, bytes) or len(change_id) != CHANGE_ID_BYTES:
        raise InvalidInputError(f"a change id is not {CHANGE_ID_BYTES} bytes; draw one with secrets.token_bytes")


def settle(states: Sequence[State]) -> Literal["commit", "abort"]:
    """What becomes of a change whose coordinator is gone, from its states at parties 0, 1 and 2, all of them asked.

    Who coordinates prepares at all three, then commits at party 0, then at 1 and 2, then acknowledges. Who gives up, or
    settles, does the same to party 0 first: a store takes a change from "prepared" to "committed" or to "aborted" once
    and never back, so party 0's store decides, however many act at once. Whoever it refuses was overtaken: ask for the
    states again and settle by them. Where it refuses twice, or another party does, a store was restored from an older
    copy.

    Why that keeps an acknowledged change in all three, and any other in all or none:

    - "committed" anywhere: party 0 had committed, hence all three had prepared, and nobody aborts at 1 or 2 who was
      refused at 0. The others are "prepared" or "committed" by now, and can follow: commit. It may be acknowledged.
    - "aborted" anywhere, or "unknown": it was not prepared at all three when this party was asked. Abort; it is not
      acknowledged, or party 0 refuses. An aborted id is refused for ever, so that a message that comes late cannot
      prepare it after the others were asked.
    - all "prepared": nothing is acknowledged, and both ends are right. Commit, for a coordinator that still lives can
      only want that.

    Raises:
        InvalidInputError: not three states.
    """
    if len(states) != NUM_PARTIES or any(state not in get_args(State) for state in states):
        raise InvalidInputError("give the change's states at parties 0, 1 and 2")
    is_decided = "committed" in states or all(state == "prepared" for state in states)
    return "commit" if is_decided else "abort"
