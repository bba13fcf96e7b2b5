"""Atomic changes to a gallery: all three parties apply them, or none does. Suffix: N rows."""

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
    """The rows that one party stores.

    Attributes:
        change_id: 16 random bytes, the same at all three parties; never reused.
        rows: the party's shares, N >= 1.
        subjects: the subject of each row, 1 to 100 bytes in UTF-8. Stored in the clear: use pseudonyms.

    Raises:
        InvalidInputError, ShapeError: invalid values; the message identifies entries by position only.
    """

    change_id: bytes
    rows: SharedRows
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        check_change_id(self.change_id)
        if len(self.rows) == 0:
            raise InvalidInputError("The enrolment has no rows. Pass at least one.")
        if len(self.subjects) != len(self.rows):
            raise ShapeError(f"Expected one subject for each of {len(self.rows)} rows, got {len(self.subjects)}.")
        for place, subject in enumerate(self.subjects):
            name = subject.encode(errors="replace") if isinstance(subject, str) else b""
            if not 0 < len(name) <= _MAX_SUBJECT_BYTES or name.decode() != subject:
                raise InvalidInputError(
                    f"Entry {place}: a subject must have 1 to {_MAX_SUBJECT_BYTES} bytes in UTF-8. Use a pseudonym."
                )
        if len({row.tobytes() for row in self.rows.ids_N16}) != len(self.rows):
            raise InvalidInputError("The enrolment contains an id twice. Share the embeddings again.")

    def digest(self) -> bytes:
        """32 bytes that distinguish a repeated message from a different one with the same id."""
        digest = hashlib.sha256(self.rows.digest())
        digest.update(repr(self.subjects).encode())
        digest.update(self.rows.words_NW.tobytes())
        return digest.digest()

    def __repr__(self) -> str:
        return f"Enrolment(change_id={self.change_id.hex()}, rows={self.rows!r}, subjects=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The references that all parties erase.

    Attributes:
        change_id: as in `Enrolment`.
        reference_ids: 16 bytes each, as in `SharedRows.ids_N16`; at least one, distinct.

    Raises:
        InvalidInputError: invalid values.
    """

    change_id: bytes
    reference_ids: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_change_id(self.change_id)
        if any(not isinstance(one, bytes) or len(one) != ID_BYTES for one in self.reference_ids):
            raise InvalidInputError(f"A reference id must be {ID_BYTES} bytes, as in SharedRows.ids_N16.")
        if not self.reference_ids or len(set(self.reference_ids)) != len(self.reference_ids):
            raise InvalidInputError("A removal must contain at least one reference and no duplicates.")

    def digest(self) -> bytes:
        """See `Enrolment.digest`."""
        return hashlib.sha256(b"".join(self.reference_ids)).digest()

    def __repr__(self) -> str:
        return f"Removal(change_id={self.change_id.hex()}, num={len(self.reference_ids)})"


Change = Enrolment | Removal


def check_change_id(change_id: bytes) -> None:
    """Raise InvalidInputError unless the id is 16 bytes."""
    if not isinstance(change_id, bytes) or len(change_id) != CHANGE_ID_BYTES:
        raise InvalidInputError(f"A change id must be {CHANGE_ID_BYTES} bytes. Draw one with secrets.token_bytes.")


def settle(states: Sequence[State]) -> Literal["commit", "abort"]:
    """Decide whether a change whose coordinator is gone is committed or aborted, from its states at all three parties.

    The coordinator prepares the change at all three parties, then commits at party 0, then at parties 1 and 2, then
    acknowledges. An abort, and the decision of this function, is applied at party 0 first, too. A store moves a change
    from "prepared" to "committed" or to "aborted" exactly once, so the store of party 0 decides, however many
    processes act at the same time. If party 0 rejects the decision, another process was faster: read the states again
    and decide by them. If it rejects twice, or another party rejects, a store was restored from an older copy.

    Why an acknowledged change reaches all three stores, and any other change all or none:

    - Any "committed": party 0 had committed, so all three had prepared, and a process that party 0 rejected does not
      abort at 1 or 2. The other parties are "prepared" or "committed" and can follow: commit. The change may be
      acknowledged already.
    - Any "aborted" or "unknown": the change was not prepared at all three when this party reported its state. Abort.
      Either the change is not acknowledged, or party 0 rejects the abort. An aborted id is rejected for ever, so a late
      message cannot prepare it after the states were read.
    - All "prepared": nothing is acknowledged, and both outcomes are correct. Commit: a coordinator that still runs can
      only do the same.

    Raises:
        InvalidInputError: not three states.
    """
    if len(states) != NUM_PARTIES or any(state not in get_args(State) for state in states):
        raise InvalidInputError(
            f"Expected the states at parties 0, 1 and 2 ({', '.join(get_args(State))}), got {tuple(states)}."
        )
    is_decided = "committed" in states or all(state == "prepared" for state in states)
    return "commit" if is_decided else "abort"
