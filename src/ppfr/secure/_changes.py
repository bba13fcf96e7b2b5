"""Atomic changes to a gallery: all three parties apply them, or none does. Suffix: N rows.

Two digests of a change: `digest` covers what one party received, its own words included; `content_digest` covers what
all three received alike, so that the parties can compare it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, InvalidInputError, ShapeError, UnsupportableError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._sharing import SharedRows
from ppfr.secure._subjects import normalised_subjects

State = Literal["unknown", "prepared", "committed", "aborted"]
CHANGE_ID_BYTES = 16
_SEED_BYTES = 32
_REFRESHED_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Enrolment:
    """The rows that one party stores.

    Attributes:
        change_id: 16 random bytes, the same at all three parties; never reused.
        rows: the party's shares, N >= 1.
        subjects: the subject of each row, as `normalised_subject` returns it. Stored in the clear: use pseudonyms.

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
        if (normal := normalised_subjects(self.subjects)) != tuple(self.subjects):
            place = next(n for n, (one, other) in enumerate(zip(normal, self.subjects, strict=True)) if one != other)
            raise InvalidInputError(
                f"Entry {place}: the subject is not in Unicode normalisation form C. Apply normalised_subject()."
            )
        if len({row.tobytes() for row in self.rows.ids_N16}) != len(self.rows):
            raise InvalidInputError("The enrolment contains an id twice. Share the embeddings again.")

    def digest(self) -> bytes:
        """32 bytes that distinguish a repeated message from a different one with the same id."""
        digest = hashlib.sha256(self.rows.digest())
        digest.update(repr(self.subjects).encode())
        digest.update(self.rows.words_NW.tobytes())
        return digest.digest()

    def content_digest(self) -> bytes:
        """32 bytes over change id, parameters, ids in order and subjects: equal at all three parties."""
        content = _content(self.rows.fixed_point, self.rows.ids_N16, self.subjects)
        return _digest("enrolment", self.change_id, *content)

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

    def content_digest(self) -> bytes:
        """32 bytes over change id and reference ids in order: equal at all three parties."""
        return _digest("removal", self.change_id, b"".join(self.reference_ids))

    def __repr__(self) -> str:
        return f"Removal(change_id={self.change_id.hex()}, num={len(self.reference_ids)})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """New randomness for all shares, which begins a new epoch: the same embeddings, other components.

    Attributes:
        change_id: as in `Enrolment`.
        seed: 32 random bytes, equal at the three parties and secret to all others. Each party forgets it once the
            change is committed or aborted.

    Raises:
        InvalidInputError: invalid values.

    Privacy:
        Shares of one epoch reveal nothing about those of another without the seed: an old copy of one party's store and
        the present store of another party do not reveal the embeddings, unless the seed of an epoch between them was
        recorded.
    """

    change_id: bytes
    seed: bytes

    def __post_init__(self) -> None:
        check_change_id(self.change_id)
        if not isinstance(self.seed, bytes) or len(self.seed) != _SEED_BYTES or not any(self.seed):
            raise InvalidInputError(f"A seed must be {_SEED_BYTES} random bytes. Draw one with secrets.token_bytes.")

    def applied(self, rows: SharedRows) -> SharedRows:
        """The party's shares of the next epoch.

        A row's new randomness depends on the seed and its id alone, so neither the order nor the number of rows
        matters: components 0 and 1 grow by SHAKE-256 of seed and id, component 2 shrinks by both.
        """
        point, words_NW = rows.fixed_point, rows.words_NW.copy()
        row_bytes = 2 * point.dim * point.dtype.itemsize
        for start in range(0, len(rows), _REFRESHED_AT_ONCE):
            ids = [one.tobytes() for one in rows.ids_N16[start : start + _REFRESHED_AT_ONCE]]
            drawn = b"".join(hashlib.shake_256(self.seed + one).digest(row_bytes) for one in ids)
            drawn_N2D = np.frombuffer(drawn, dtype=point.dtype.newbyteorder("<")).reshape(-1, 2, point.dim)
            first_ND, second_ND = drawn_N2D[:, 0], drawn_N2D[:, 1]
            added = first_ND, second_ND, -first_ND - second_ND
            part_NW = words_NW[start : start + len(ids)]
            part_NW[:, : point.dim] += added[rows.party]
            part_NW[:, point.dim :] += added[(rows.party + 1) % NUM_PARTIES]
        return dataclasses.replace(rows, words_NW=words_NW)

    def digest(self) -> bytes:
        """See `Enrolment.digest`; equal to the digest of the content, since the parties receive the same."""
        return self.content_digest()

    def content_digest(self) -> bytes:
        """32 bytes over change id and seed: equal at all three parties. The seed cannot be computed from it."""
        return _digest("refresh", self.change_id, self.seed)

    def __repr__(self) -> str:
        return f"Refresh(change_id={self.change_id.hex()}, seed=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("A refresh cannot be pickled: it contains a secret. Send its fields over TLS.")


Change = Enrolment | Removal | Refresh


def gallery_digest(fixed_point: FixedPoint, ids_N16: NDArray[np.uint8], subjects: Sequence[str], epoch: int) -> bytes:
    """32 bytes over the public content of a gallery: parameters, ids in order, their subjects, epoch.

    It is equal at the three parties if their galleries match, and a client can compute it from ids and subjects.

    Raises:
        ShapeError: ids that are not (N, 16), or another number of subjects.
    """
    if np.shape(ids_N16) != (len(subjects), ID_BYTES):
        raise ShapeError(f"Expected ids of shape ({len(subjects)}, {ID_BYTES}), got {np.shape(ids_N16)}.")
    return _digest("gallery", struct.pack("<Q", epoch), *_content(fixed_point, ids_N16, subjects))


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


def _content(point: FixedPoint, ids_N16: NDArray[Any], subjects: Sequence[str]) -> tuple[bytes, ...]:
    """Parameters, ids and subjects as bytes; the lengths of the names precede the names."""
    names = [subject.encode() for subject in subjects]
    lengths_N = np.fromiter(map(len, names), dtype="<u4", count=len(names))
    parameters = struct.pack("<I", point.dim) + point.values.encode()
    return parameters, np.ascontiguousarray(ids_N16).tobytes(), lengths_N.tobytes(), b"".join(names)


def _digest(kind: str, *parts: bytes) -> bytes:
    """SHA-256 of the kind and the parts, each after its length, so that different parts never give the same bytes."""
    digest = hashlib.sha256(b"ppfr change 1")
    for part in (kind.encode(), *parts):
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.digest()
