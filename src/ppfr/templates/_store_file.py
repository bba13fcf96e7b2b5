"""The SQLite file of a store of templates or of keys: records by subject in slots that are overwritten in place.

A slot holds a checksum, the subject and one record, padded with zeros. Slots are never deleted and never change their
size, because SQLite overwrites a cell of equal size in place but can leave copies of deleted cells in other pages.
`listed` finds the slot of a subject by a keyed digest of the subject; `free` lists the slots that contain zeros.

The rollback journal is used rather than the write-ahead log: once a transaction is committed, no file contains the
earlier content, and several processes can use the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ppfr.assets import check_private, create_sqlite, limit_values, sqlite_errors
from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError

FORMAT_VERSION = 2  # 1 was a directory with one file per subject
MAX_SUBJECT_BYTES = 100
APPLICATION_IDS = {"templates": int.from_bytes(b"PFTS", "big"), "keys": int.from_bytes(b"PFKS", "big")}
_INDEX_KEY_BYTES = 32
_PAGE_BYTES = 8192
_BUSY_TIMEOUT_S = 60
_SLOT_STEP = 64  # sizes of slots are multiples of this, so that a freed slot fits the next record
_SLOT = struct.Struct(f"<16sIB{MAX_SUBJECT_BYTES}s")  # SHA-256 of the rest, size of the record, subject; the record
_CHECKSUM_BYTES = 16
_SCHEMA = """
CREATE TABLE store (index_key BLOB NOT NULL, wrap_salt BLOB NOT NULL, wrap_check BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE listed (digest BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE slots (place INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE free (place INTEGER PRIMARY KEY, size INTEGER NOT NULL);
"""


class Header(NamedTuple):
    """The one row of `store`: the key of the index, and salt and check of the wrapping (empty for templates)."""

    index_key: bytes
    wrap_salt: bytes = b""
    wrap_check: bytes = b""


class Slot(NamedTuple):
    """A subject in UTF-8 and its record, wrapped if the store is one of keys."""

    subject: bytes
    record: bytes


def new_header(wrap_salt: bytes = b"", wrap_check: bytes = b"") -> Header:
    """A header with a new key for the index."""
    return Header(secrets.token_bytes(_INDEX_KEY_BYTES), wrap_salt, wrap_check)


def create_store_file(path: Path, kind: str, header: Header) -> None:
    """Create a file without records. Raises as `create_sqlite`."""

    def fill(connection: sqlite3.Connection) -> None:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_IDS[kind]}; PRAGMA user_version = {FORMAT_VERSION};"
        )
        connection.execute("INSERT INTO store VALUES (?, ?, ?, ?)", [*header, _checksum(b"".join(header))])
        connection.execute("COMMIT")

    create_sqlite(path, fill, what=f"store of {kind}", page_bytes=_PAGE_BYTES)


class StoreFile:
    """One transaction on the file of a store; get one from `reading` or `writing`."""

    def __init__(self, path: Path, kind: str, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self.header = self._read_header(kind)

    def place_of(self, subject: bytes) -> int | None:
        """Place of a subject's slot; None if the subject has no record."""
        query = "SELECT place FROM listed WHERE digest = ?"
        found = self._connection.execute(query, [self._digest(subject)]).fetchone()
        if found is None:
            return None
        return self._integer(found[0])

    def read(self, place: int, subject: bytes) -> bytes:
        """The record of a subject.

        Raises:
            CorruptTemplateError: the slot is damaged, or holds another subject.
        """
        found = self._connection.execute("SELECT content FROM slots WHERE place = ?", [place]).fetchone()
        slot = self._parsed(found[0] if found else None)
        if slot is None or slot.subject != subject:
            raise self._damaged("a record")
        return slot.record

    def count(self) -> int:
        """Number of records."""
        return self._integer(self._connection.execute("SELECT count(*) FROM listed").fetchone()[0])

    def slots(self) -> Iterator[Slot | None]:
        """All records in order of their places; None for one that is damaged.

        Raises:
            CorruptTemplateError: index and slots do not agree, so that records are missing.
        """
        query = "SELECT place, content FROM slots WHERE place NOT IN (SELECT place FROM free) ORDER BY place"
        listed = self._connection.execute("SELECT place, digest FROM listed").fetchall()
        digests = {self._integer(place): digest for place, digest in listed}
        num_read = 0
        for place, content in self._connection.execute(query):
            slot = self._parsed(content)
            if place not in digests or (slot is not None and digests[place] != self._digest(slot.subject)):
                raise self._damaged("the index")
            num_read += 1
            yield slot
        if num_read != len(listed) or len(digests) != len(listed):
            raise self._damaged("the index")

    def add(self, slot: Slot) -> None:
        """Store the record of a subject who has none, in a slot that is free or new."""
        content = _packed(slot)
        free = "SELECT place FROM free WHERE size = ? ORDER BY place LIMIT 1"
        found = self._connection.execute(free, [len(content)]).fetchone()
        if found is None:
            place = self._connection.execute("INSERT INTO slots (content) VALUES (?)", [content]).lastrowid
        else:
            place = self._integer(found[0])
            self._connection.execute("DELETE FROM free WHERE place = ?", [place])
            self._overwrite(place, content)
        self._connection.execute("INSERT INTO listed VALUES (?, ?)", [self._digest(slot.subject), place])

    def replace(self, place: int, slot: Slot) -> None:
        """Overwrite the record of a subject."""
        content = _packed(slot)
        if self._size_of(place) == len(content):
            self._overwrite(place, content)
        else:
            self.remove(place, slot.subject)
            self.add(slot)

    def remove(self, place: int, subject: bytes) -> None:
        """Overwrite the slot of a subject with zeros and list it as free."""
        size = self._size_of(place)
        self._overwrite(place, bytes(size))
        self._connection.execute("DELETE FROM listed WHERE digest = ?", [self._digest(subject)])
        self._connection.execute("INSERT INTO free VALUES (?, ?)", [place, size])

    def places(self) -> list[int]:
        """Places of all records, ascending."""
        return sorted(self._integer(place) for (place,) in self._connection.execute("SELECT place FROM listed"))

    def slot_at(self, place: int) -> Slot:
        """The record at a place. Raises CorruptTemplateError if it is damaged."""
        found = self._connection.execute("SELECT content FROM slots WHERE place = ?", [place]).fetchone()
        slot = self._parsed(found[0] if found else None)
        if slot is None:
            raise self._damaged("a record")
        return slot

    def set_wrapping(self, salt: bytes, check: bytes) -> None:
        """State a new salt and check."""
        header = Header(self.header.index_key, salt, check)
        update = "UPDATE store SET wrap_salt = ?, wrap_check = ?, checksum = ?"
        self._connection.execute(update, [salt, check, _checksum(b"".join(header))])

    def touch(self) -> None:
        """Write a page without changing its meaning; SQLite skips an UPDATE that changes no byte."""
        self._connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _overwrite(self, place: int, content: bytes) -> None:
        written = self._connection.execute("UPDATE slots SET content = ? WHERE place = ?", [content, place])
        if written.rowcount != 1:
            raise self._damaged("the index")

    def _size_of(self, place: int) -> int:
        found = self._connection.execute("SELECT length(content) FROM slots WHERE place = ?", [place]).fetchone()
        size = self._integer(found[0] if found else None)
        if size < _SLOT.size or size % _SLOT_STEP:
            raise self._damaged("a record")
        return size

    def _digest(self, subject: bytes) -> bytes:
        return hmac.digest(self.header.index_key, subject, "sha256")[:_CHECKSUM_BYTES]

    def _parsed(self, content: object) -> Slot | None:
        if not isinstance(content, bytes) or len(content) < _SLOT.size:
            return None
        checksum, size, length, subject = _SLOT.unpack_from(content)
        if checksum != _checksum(content[_CHECKSUM_BYTES:]):
            return None
        return Slot(subject[:length], content[_SLOT.size : _SLOT.size + size])

    def _integer(self, value: object) -> int:
        if not isinstance(value, int):
            raise self._damaged("the index")
        return value

    def _read_header(self, kind: str) -> Header:
        application_id = self._pragma("application_id")
        if application_id != APPLICATION_IDS[kind]:
            other = next((name for name, known in APPLICATION_IDS.items() if known == application_id), None)
            if other is not None:
                raise InvalidInputError(
                    f"{self._path} is a store of {other}, not of {kind}. Use separate files for keys and templates."
                )
            raise CorruptTemplateError(
                f"{self._path} is not a store of {kind}, or is truncated. Check the path, or restore the file."
            )
        if (version := self._pragma("user_version")) != FORMAT_VERSION:
            raise OutdatedTemplateError(
                f"{self._path} has format version {version}, but this release reads version {FORMAT_VERSION}. "
                "Use the release that wrote it."
            )
        rows = self._connection.execute("SELECT * FROM store").fetchall()
        values = rows[0] if len(rows) == 1 and len(rows[0]) == 4 else ()
        if not values or not all(isinstance(value, bytes) for value in values):
            raise self._damaged("the header")
        if _checksum(b"".join(values[:3])) != values[3] or len(values[0]) != _INDEX_KEY_BYTES:
            raise self._damaged("the header")
        return Header(*values[:3])

    def _pragma(self, name: str) -> int:
        found = self._connection.execute(f"PRAGMA {name}").fetchone()
        return self._integer(found[0] if found else None)

    def _damaged(self, part: str) -> CorruptTemplateError:
        return CorruptTemplateError(f"{self._path}: {part} is damaged. Restore the file, or enrol again.")


@contextlib.contextmanager
def transaction(path: Path, kind: str, *, writes: bool) -> Iterator[StoreFile]:
    """One transaction: all of the block or nothing, on disk when the block has ended.

    Raises:
        CorruptTemplateError: not a store, or a damaged one.
        OutdatedTemplateError: a version that this release does not read.
        InvalidInputError: a store of the other kind.
        StorageError: missing, accessible to other users, in use for a minute, or not writable.
    """
    if not path.is_file():
        raise StorageError(f"The store {path} does not exist any more. Restore it, or check the path.")
    check_private(path, f"store of {kind}")
    with sqlite_errors(path, what=f"store of {kind}"), contextlib.closing(_connected(path)) as connection:
        connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield StoreFile(path, kind, connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def clear_journal(path: Path, kind: str) -> None:
    """Remove the journal that a killed process left: roll it back if it is complete, drop it if it is not.

    SQLite does the first on the next access and the second on the next change. The journal contains earlier pages.
    """
    resolved = path.resolve()
    if resolved.with_name(f"{resolved.name}-journal").exists():
        with transaction(path, kind, writes=True) as file:
            file.touch()


def compacted(path: Path, kind: str) -> None:
    """Rewrite the file without unused space. Raises as `transaction`."""
    with transaction(path, kind, writes=False):
        pass  # refuses what is not a store of this kind
    with sqlite_errors(path, what=f"store of {kind}"), contextlib.closing(_connected(path)) as connection:
        connection.execute("VACUUM")


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        limit_values(connection)
        for setting in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            "secure_delete = ON",
            "synchronous = EXTRA",  # also flushes the directory after the journal was deleted
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _packed(slot: Slot) -> bytes:
    content = _SLOT.pack(bytes(_CHECKSUM_BYTES), len(slot.record), len(slot.subject), slot.subject) + slot.record
    content += bytes(-len(content) % _SLOT_STEP)
    return _checksum(content[_CHECKSUM_BYTES:]) + content[_CHECKSUM_BYTES:]


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM_BYTES]
