"""The SQLite file of a share store: atomic creation, exclusive access, format checks and error translation.

A row occupies a slot: its words, its subject, a checksum. `listed` maps references to slots. `pending` lists the slots
of prepared changes: those that an enrolment filled (`early`, until it is committed) or that a removal will empty.
`changes` keeps all change ids for ever.

When SQLite deletes cells, it moves other cells between pages and, even with `secure_delete`, sometimes leaves copies in
the old place. Slots therefore all have one size and are never deleted: SQLite overwrites a cell in place if its size
does not change. An empty slot contains zeros and is listed in `free` for the next row.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from ppfr.assets import check_private, create_sqlite, limit_values, sqlite_errors
from ppfr.core import CorruptTemplateError, OutdatedTemplateError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint

APPLICATION_ID = int.from_bytes(b"PFSH", "big")
FORMAT_VERSION = 1
GALLERY_ID_BYTES = 16
_PAGE_BYTES = 1 << 15  # holds seven rows of 4 KB without splitting one
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
    """Create a file without references, atomically, readable by its owner only.

    Args:
        path: must not exist; its directory is created.
        header: party, dim, values, gallery id.

    Raises:
        InvalidInputError: the file exists.
        StorageError: the file cannot be written.
    """

    def fill(connection: sqlite3.Connection) -> None:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
        )
        connection.execute("INSERT INTO store VALUES (?, ?, ?, ?)", header)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()

    create_sqlite(path, fill, what="share store", page_bytes=_PAGE_BYTES)


def connected(path: Path) -> sqlite3.Connection:
    """Open the file; the first reader locks it until it is closed or its process ends.

    Raises:
        StorageError: other users than the owner can access the file.
    """
    check_private(path, "share store")
    uri = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        limit_values(connection)
        # Locking mode first: SQLite applies it on the first access to the file.
        for setting in (
            "locking_mode = EXCLUSIVE",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "synchronous = FULL",
            "temp_store = MEMORY",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def read_header(path: Path, connection: sqlite3.Connection) -> tuple[int, FixedPoint, bytes]:
    """Read party, parameters and gallery id. Raises as `ShareStore.open`."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise CorruptTemplateError(f"{path} is not a share store or is truncated. Check the path, or restore the file.")
    if version != FORMAT_VERSION:
        raise OutdatedTemplateError(
            f"{path} has format version {version}, but this release reads version {FORMAT_VERSION}. "
            "Use the release that wrote it."
        )
    damaged = CorruptTemplateError(f"{path} has a damaged header. Restore the file, or enrol again.")
    try:
        ((party, dim, values, gallery_id),) = connection.execute("SELECT * FROM store").fetchall()
        point = FixedPoint(dim=dim, values=values)
    except (ValueError, TypeError) as error:
        raise damaged from error
    if party not in range(NUM_PARTIES) or not isinstance(gallery_id, bytes) or len(gallery_id) != GALLERY_ID_BYTES:
        raise damaged
    return party, point, gallery_id


def translated(path: Path, *, done: str = "nothing was changed") -> contextlib.AbstractContextManager[None]:
    """Translate SQLite's errors, as `ppfr.assets.sqlite_errors`."""
    return sqlite_errors(path, what="share store", in_use="Only one process at a time may use it.", done=done)
