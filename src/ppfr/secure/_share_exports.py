"""Exports of a share store: what a party gives to another one while the service is stopped, as one safetensors file.

An inventory lists references, subjects and changes. An export for a party also has the component that it lacks.
Suffixes: C changes, D embedding, M references.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ppfr.assets import check_private, create_private
from ppfr.core import ID_BYTES, CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError
from ppfr.secure._changes import CHANGE_ID_BYTES, State
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._share_file import StoreHeader, damaged
from ppfr.secure._share_slots import is_listed, read_slots
from ppfr.secure._subjects import normalised_subjects

_FORMAT = "ppfr share export"
_VERSION = "1"
_STATES: tuple[State, ...] = ("prepared", "committed", "aborted")
_KINDS = ("none", "enrolment", "removal", "refresh")  # "none": only the id is known, because it was refused in advance
_METADATA = {"format", "version", "party", "dim", "values", "gallery_id", "epoch", "recipient"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecord:
    """What a store remembers of a change.

    Attributes:
        change_id: 16 bytes.
        kind: "enrolment", "removal", "refresh", or "none" if only the id is known.
        state: of the change in the store.
    """

    change_id: bytes
    kind: str
    state: State


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoreExport:
    """The references and changes of one party's store; create it with `ShareStore.exported` or `read`.

    Attributes:
        header: of the store.
        changes: all changes that the store knows, oldest first.
        ids_M16: of all references in ascending order, including those of a prepared enrolment.
        subjects: of these references.
        pending_M: index of the prepared change that adds or removes the reference, or -1.
        recipient: the party that needs `component_MD`; None for an inventory.
        component_MD: (M, D) ring elements of the component that the recipient lacks and this party has; None for an
            inventory.

    Privacy:
        An export for a party is half of its store. Two such files together are the store.
    """

    header: StoreHeader
    changes: tuple[ChangeRecord, ...]
    ids_M16: NDArray[np.uint8]
    subjects: tuple[str, ...]
    pending_M: NDArray[np.int32]
    recipient: int | None = None
    component_MD: NDArray[Any] | None = None

    def references(self, states: Mapping[bytes, State]) -> dict[bytes, str]:
        """Ids and subjects after the prepared changes have ended with these states."""
        is_listed = [
            (change.kind == "enrolment") == (states.get(change.change_id, change.state) == "committed")
            for change in self.changes
        ]
        is_listed.append(True)  # index -1
        ids = map(np.ndarray.tobytes, self.ids_M16)
        rows = zip(ids, self.subjects, self.pending_M.tolist(), strict=True)
        return {one: subject for one, subject, change in rows if is_listed[change]}

    def write(self, path: Path) -> None:
        """Write the export to a new file that only its owner may read.

        Raises:
            InvalidInputError: the file exists.
            StorageError: the file cannot be written.
        """
        from safetensors.numpy import save

        metadata, tensors = self._metadata(), self._tensors()
        create_private(Path(path), save(tensors, {**metadata, "sha256": _checksum(metadata, tensors)}))

    @classmethod
    def read(cls, path: Path) -> StoreExport:
        """Read an export and check all of it.

        Raises:
            CorruptTemplateError: not an export, or a truncated, damaged or inconsistent one.
            OutdatedTemplateError: a version that this release does not read.
            StorageError: missing, not readable, or accessible to other users.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        check_private(path, "share export")
        try:
            with safe_open(path, framework="numpy") as opened:
                metadata = dict(opened.metadata() or {})
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a mapping
        except OSError as error:
            raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
        except (SafetensorError, TypeError, ValueError, KeyError, MemoryError) as error:
            raise _corrupt(path, "is not an export of a share store, or is truncated") from error
        if metadata.get("format") != _FORMAT:
            raise _corrupt(path, "is not an export of a share store")
        if metadata.get("version") != _VERSION:
            raise OutdatedTemplateError(
                f"{path} has another version than this release reads ({_VERSION}). Use the release that wrote it."
            )
        if metadata.pop("sha256", "") != _checksum(metadata, tensors):
            raise _corrupt(path, "is damaged: its checksum does not match")
        try:
            return _checked(metadata, tensors)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # InvalidInputError is a ValueError
            raise _corrupt(path, "has inconsistent content") from error

    def _metadata(self) -> dict[str, str]:
        header = self.header
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "party": str(header.party),
            "dim": str(header.fixed_point.dim),
            "values": header.fixed_point.values,
            "gallery_id": header.gallery_id.hex(),
            "epoch": str(header.epoch),
            "recipient": "" if self.recipient is None else str(self.recipient),
        }

    def _tensors(self) -> dict[str, NDArray[Any]]:
        names = [subject.encode() for subject in self.subjects]
        tensors: dict[str, NDArray[Any]] = {
            "ids": np.ascontiguousarray(self.ids_M16),
            "pending": self.pending_M,
            "subject_bytes": np.frombuffer(b"".join(names), dtype=np.uint8),
            "subject_lengths": np.array([len(name) for name in names], dtype=np.uint8),
            "change_ids": _id_array([change.change_id for change in self.changes]),
            "change_kinds": np.array([_KINDS.index(change.kind) for change in self.changes], dtype=np.uint8),
            "change_states": np.array([_STATES.index(change.state) for change in self.changes], dtype=np.uint8),
        }
        if self.component_MD is not None:
            tensors["component"] = np.ascontiguousarray(self.component_MD)
        return tensors

    def __repr__(self) -> str:
        purpose = "inventory" if self.recipient is None else f"for party {self.recipient}"
        return f"StoreExport({purpose}, party={self.header.party}, num={len(self.subjects)}, contents=<redacted>)"


def export_of(path: Path, connection: sqlite3.Connection, header: StoreHeader, recipient: int | None) -> StoreExport:
    """See `ShareStore.exported`."""
    changes: list[ChangeRecord] = []
    numbers: dict[int, int] = {}
    for number, change_id, kind, state in connection.execute(
        "SELECT number, change_id, kind, state FROM changes ORDER BY number"
    ):
        is_id = isinstance(change_id, bytes) and len(change_id) == CHANGE_ID_BYTES
        if not is_id or kind not in _KINDS or state not in _STATES:
            raise damaged(path, "change")
        numbers[number] = len(changes)
        changes.append(ChangeRecord(change_id=change_id, kind=kind, state=state))
    if recipient is not None:
        _check_recipient(header.party, recipient)
        if any(change.state == "prepared" for change in changes):
            raise InvalidInputError(
                f"A change is prepared in {path} and must be committed or aborted first. Start all three parties, "
                f"which settles it. If the store of party {recipient} is lost: `ppfr party repair --lost {recipient}`."
            )
    found = connection.execute(
        "SELECT place, listed.reference_id, number FROM listed LEFT JOIN pending USING (place) ORDER BY 2"
    ).fetchall()
    if not all(is_listed(place, one) and (number is None or number in numbers) for place, one, number in found):
        raise damaged(path, "list of references")
    listed = [(place, one) for place, one, _ in found]
    slots = connection.execute("SELECT * FROM slots WHERE place NOT IN free ORDER BY place")
    words_MW, subjects = read_slots(path, header.fixed_point, listed, slots)
    component_MD = None
    if recipient is not None:
        is_own = (recipient + 1) % NUM_PARTIES == header.party
        component_MD = words_MW[:, : header.fixed_point.dim] if is_own else words_MW[:, header.fixed_point.dim :]
    return StoreExport(
        header=header,
        changes=tuple(changes),
        ids_M16=_id_array([one for _, one in listed]),
        subjects=tuple(subjects),
        pending_M=np.array([-1 if number is None else numbers[number] for *_, number in found], dtype=np.int32),
        recipient=recipient,
        component_MD=component_MD,
    )


def _checked(metadata: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]) -> StoreExport:
    """Build an export from an untrusted file. Any exception of Python or NumPy means that the file is inconsistent."""
    if set(metadata) != _METADATA:
        raise ValueError("metadata")
    point = FixedPoint(dim=int(metadata["dim"]), values=cast(Any, metadata["values"]))
    header = StoreHeader(
        party=int(metadata["party"]),
        fixed_point=point,
        gallery_id=bytes.fromhex(metadata["gallery_id"]),
        epoch=int(metadata["epoch"]),
    )
    recipient = int(metadata["recipient"]) if metadata["recipient"] else None
    num, num_changes = len(tensors["ids"]), len(tensors["change_ids"])
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "ids": ((num, ID_BYTES), np.uint8),
        "pending": ((num,), np.int32),
        "subject_bytes": ((int(tensors["subject_lengths"].sum(dtype=np.int64)),), np.uint8),
        "subject_lengths": ((num,), np.uint8),
        "change_ids": ((num_changes, CHANGE_ID_BYTES), np.uint8),
        "change_kinds": ((num_changes,), np.uint8),
        "change_states": ((num_changes,), np.uint8),
    }
    if recipient is not None:
        _check_recipient(header.party, recipient)
        shapes["component"] = ((num, point.dim), point.dtype)
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != shapes:
        raise ValueError("arrays")
    ids = [one.tobytes() for one in tensors["ids"]]
    change_ids = [one.tobytes() for one in tensors["change_ids"]]
    if any(one >= other for one, other in itertools.pairwise(ids)) or len(set(change_ids)) != num_changes:
        raise ValueError("ids")
    ends = np.cumsum(tensors["subject_lengths"], dtype=np.int64).tolist()
    names = tensors["subject_bytes"].tobytes()
    subjects = tuple(names[start:end].decode() for start, end in itertools.pairwise([0, *ends]))
    if normalised_subjects(subjects) != subjects:
        raise ValueError("subjects")
    kinds, states = tensors["change_kinds"].tolist(), tensors["change_states"].tolist()
    changes = tuple(
        ChangeRecord(change_id=one, kind=_KINDS[kind], state=_STATES[state])
        for one, kind, state in zip(change_ids, kinds, states, strict=True)
    )
    pending = {int(index) for index in np.unique(tensors["pending"])} - {-1}
    is_wrong = any(
        index not in range(num_changes)
        or changes[index].state != "prepared"
        or changes[index].kind not in ("enrolment", "removal")
        for index in pending
    )
    if is_wrong or (recipient is not None and any(change.state == "prepared" for change in changes)):
        raise ValueError("changes")
    return StoreExport(
        header=header,
        changes=changes,
        ids_M16=tensors["ids"],
        subjects=subjects,
        pending_M=tensors["pending"],
        recipient=recipient,
        component_MD=tensors.get("component"),
    )


def _check_recipient(party: int, recipient: int) -> None:
    if recipient not in range(NUM_PARTIES) or recipient == party:
        raise InvalidInputError(
            f"Expected one of the two other parties of party {party} as the recipient, got {recipient}."
        )


def _id_array(ids: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(len(ids), ID_BYTES)


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over all content; it detects damage, not forgery."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def _corrupt(path: Path, what: str) -> CorruptTemplateError:
    return CorruptTemplateError(f"{path} {what}. Transfer it again, or export it again.")
