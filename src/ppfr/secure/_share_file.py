"""The SQLite file of a share store: atomic creation, exclusive access, format checks and error translation.

A row occupies a slot: its words, its subject, a checksum. `listed` maps references to slots. `pending` lists the slots
of prepared changes: those that an enrolment filled (`early`, until it is committed) or that a removal will empty.
`changes` keeps all change ids for ever.

When SQLite deletes cells, it moves other cells between pages and, even with `secure_delete`, sometimes leaves copies in
the old place. Slots therefore all have one size and are never deleted: SQLite overwrites a cell in place if its size
does not change. An empty slot contains zeros and is listed in `free` for the next row. The seed of a prepared refresh
has its own cell of one size for the same reason; it contains zeros when no refresh is prepared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path

from ppfr.assets import check_private, create_sqlite, limit_values, sqlite_errors
from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint

APPLICATION_ID = int.from_bytes(b"PFSH", "big")
FORMAT_VERSION = 2
GALLERY_ID_BYTES = 16
_PAGE_BYTES = 1 << 15  # holds seven rows of 4 KB without splitting one
_SCHEMA = """
CREATE TABLE store (party INTEGER NOT NULL, dim INTEGER NOT NULL, value_kind TEXT NOT NULL, gallery_id BLOB NOT NULL,
                    epoch INTEGER NOT NULL);
CREATE TABLE changes (number INTEGER PRIMARY KEY, change_id BLOB NOT NULL UNIQUE, kind TEXT NOT NULL,
                      state TEXT NOT NULL, digest BLOB);
CREATE TABLE listed (reference_id BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE slots (place INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE free (place INTEGER PRIMARY KEY);
CREATE TABLE pending (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, reference_id BLOB NOT NULL);
CREATE TABLE seed (place INTEGER PRIMARY KEY, content BLOB NOT NULL);
INSERT INTO seed VALUES (1, zeroblob(32));
CREATE VIEW early AS SELECT place FROM pending NATURAL JOIN changes WHERE kind = 'enrolment';
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoreHeader:
    """What identifies a store.

    Attributes:
        party: 0..2.
        fixed_point: parameters of all rows.
        gallery_id: 16 bytes, equal at the three stores of a gallery.
        epoch: number of refreshes.

    Raises:
        InvalidInputError: a value is out of range.
    """

    party: int
    fixed_point: FixedPoint
    gallery_id: bytes
    epoch: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.party, int) or self.party not in range(NUM_PARTIES):
            raise InvalidInputError(f"party must be 0, 1 or 2, got {self.party}.")
        if not isinstance(self.gallery_id, bytes) or len(self.gallery_id) != GALLERY_ID_BYTES:
            raise InvalidInputError(
                f"A gallery id must be {GALLERY_ID_BYTES} bytes. Draw one with secrets.token_bytes."
            )
        if not isinstance(self.epoch, int) or not 0 <= self.epoch < 2**63:
            raise InvalidInputError(f"An epoch must be an integer in 0..2^63 - 1, got {self.epoch}.")


def create_file(
    path: Path, header: StoreHeader, insert_contents: Callable[[sqlite3.Connection], None] | None = None
) -> None:
    """Create a file, atomically, readable by its owner only.

    Args:
        path: must not exist; its directory is created.
        header: of the store.
        insert_contents: inserts references and changes; None for none.

    Raises:
        InvalidInputError: the file exists.
        StorageError: the file cannot be written.
    """

    def fill(connection: sqlite3.Connection) -> None:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
        )
        point = header.fixed_point
        values = header.party, point.dim, point.values, header.gallery_id, header.epoch
        connection.execute("INSERT INTO store VALUES (?, ?, ?, ?, ?)", values)
        if insert_contents is not None:
            insert_contents(connection)
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


def read_header(path: Path, connection: sqlite3.Connection) -> StoreHeader:
    """Read the header. Raises as `ShareStore.open`."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise CorruptTemplateError(f"{path} is not a share store or is truncated. Check the path, or restore the file.")
    if version != FORMAT_VERSION:
        raise OutdatedTemplateError(
            f"{path} has format version {version}, but this release reads version {FORMAT_VERSION}. "
            "Use the release that wrote it."
        )
    try:
        ((party, dim, values, gallery_id, epoch),) = connection.execute("SELECT * FROM store").fetchall()
        point = FixedPoint(dim=dim, values=values)
        return StoreHeader(party=party, fixed_point=point, gallery_id=gallery_id, epoch=epoch)
    except (ValueError, TypeError) as error:
        raise damaged(path, "header") from error


def damaged(path: Path, part: str) -> CorruptTemplateError:
    """The error for a part of a store that was not written so."""
    return CorruptTemplateError(f"{path} contains a damaged {part}. Restore the file, or rebuild it.")


def translated(path: Path, *, done: str = "nothing was changed") -> contextlib.AbstractContextManager[None]:
    """Translate SQLite's errors, as `ppfr.assets.sqlite_errors`."""
    return sqlite_errors(path, what="share store", in_use="Only one process at a time may use it.", done=done)
