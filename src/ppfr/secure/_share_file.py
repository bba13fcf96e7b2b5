"""The SQLite file of a share store: made whole, opened by one process, recognised, its errors as ours.

A row lies in a slot: its words, its subject, a checksum. `listed` says which reference lies where. `pending` names the
slots on which a prepared change waits: those that an enrolment filled (`early`, until it is committed), or that a
removal is to empty. `changes` keeps ids for ever.

When cells are deleted SQLite moves others between pages, and with `secure_delete` too it sometimes leaves copies where
they were. Slots are therefore all of one size and never deleted: SQLite writes over a cell in its place when its size
stays the same. An empty slot is zeros and waits in `free` for the next row.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint

APPLICATION_ID = int.from_bytes(b"PFSH", "big")
FORMAT_VERSION = 1
GALLERY_ID_BYTES = 16
_PAGE_BYTES = 1 << 15  # seven rows of 4 KB, none split
_SCHEMA = """
CREATE TABLE store (party INTEGER NOT NULL, dim INTEGER NOT NULL, value_kind TEXT NOT NULL, gallery_id BLOB NOT NULL);
CREATE TABLE changes (number INTEGER PRIMARY KEY, change_id BLOB NOT NULL UNIQUE, kind TEXT NOT NULL,
                      state TEXT NOT NULL, digest BLOB);
CREATE TABLE listed (reference_id BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE slots (place INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE free (place INTEGER PRIMARY KEY);
CREATE TABLE pending (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, reference_id BLOB NOT NULL);
CREATE VIEW early AS SELECT place FROM pending NATURAL JOIN changes WHERE kind = 'enrolment';
"""


def create_file(path: Path, header: tuple[int, int, str, bytes]) -> None:
    """A file without references that is there whole or not at all, and that only its owner may read.

    Args:
        path: must not be there; its directory is made.
        header: party, dim, values, gallery id.

    Raises:
        InvalidInputError: the file exists.
        StorageError: it cannot be written.
    """
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with translated(path):
            _write_empty(made, header)
        path.hardlink_to(made)  # unlike a rename, never takes another file's place
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists; open it, or choose another name") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        made.unlink(missing_ok=True)


def connected(path: Path) -> sqlite3.Connection:
    """The file, opened; whoever reads it first holds it until it is closed or its process dies."""
    uri = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # Locking first: SQLite decides on it when the file is touched.
        for setting in ("locking_mode = EXCLUSIVE", "synchronous = FULL", "temp_store = MEMORY", "secure_delete = ON"):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def read_header(path: Path, connection: sqlite3.Connection) -> tuple[int, FixedPoint, bytes]:
    """Party, parameters and gallery id; errors as for `ShareStore.open`."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise CorruptTemplateError(f"{path} is no share store, or was cut short; give another path, or restore it")
    if version != FORMAT_VERSION:
        raise OutdatedTemplateError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}; use the release that wrote it"
        )
    damaged = CorruptTemplateError(f"{path} has a damaged header; restore it, or enrol again")
    try:
        ((party, dim, values, gallery_id),) = connection.execute("SELECT * FROM store").fetchall()
        point = FixedPoint(dim=dim, values=values)
    except (ValueError, TypeError) as error:
        raise damaged from error
    if party not in range(NUM_PARTIES) or not isinstance(gallery_id, bytes) or len(gallery_id) != GALLERY_ID_BYTES:
        raise damaged
    return party, point, gallery_id


@contextlib.contextmanager
def translated(path: Path, *, done: str = "nothing was changed") -> Iterator[None]:
    """SQLite's errors as ours; its own texts name no value.

    Raises:
        CorruptTemplateError: the file is none of SQLite's, cut short or damaged.
        StorageError: it is in use, the disk is full, the process may not.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what it was doing
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CorruptTemplateError(
                f"{path} is no share store, was cut short or is damaged ({error}); restore it, or enrol again"
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageError(
                f"{path} is open already, here or in another process; one at a time may use it"
            ) from error
        raise StorageError(
            f"{path} cannot be used: {error}; {done}; see to the disk (space, permissions), then try again"
        ) from error


def _write_empty(path: Path, header: tuple[int, int, str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
        )
        connection.execute("INSERT INTO store VALUES (?, ?, ?, ?)", header)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
