"""SQLite files: atomic creation, and one translation of SQLite's errors."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ppfr.assets._private_files import make_directory, sync_directory
from ppfr.core import CorruptTemplateError, InvalidInputError, StorageError

_MAX_VALUE_BYTES = 1 << 24
_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# What the machine, its disk or its permissions cause. All other codes mean that the content is not what was written.
_ENVIRONMENT = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
)


def create_sqlite(path: Path, fill: Callable[[sqlite3.Connection], None], *, what: str, page_bytes: int) -> None:
    """Create an SQLite file of mode 0600, complete or not at all. An existing file is never replaced.

    Args:
        path: its directory is created if missing.
        fill: writes tables and the header; called with a connection in autocommit mode.
        what: the kind of file, for messages.
        page_bytes: size of a page.

    Raises:
        InvalidInputError: the file exists.
        StorageError: the file cannot be written.
    """
    try:
        make_directory(path.parent)
        made = path.with_name(f".{secrets.token_hex(8)}.new")
        os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot write {path}: {getattr(error, 'strerror', None) or error}.") from error
    try:
        with (
            sqlite_errors(path, what=what),
            contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection,
        ):
            connection.execute(f"PRAGMA page_size = {page_bytes}")
            fill(connection)
        path.hardlink_to(made)  # unlike a rename, never replaces another file
        sync_directory(path.parent)
    except FileExistsError as error:
        raise InvalidInputError(f"{path} already exists. Open it, or choose another name.") from error
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot write {path}: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        made.unlink(missing_ok=True)


def limit_values(connection: sqlite3.Connection) -> None:
    """Prepare for values that only a damaged file contains: longer than 16 MB, or no text."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.text_factory = lambda text: text.decode(errors="replace")


@contextlib.contextmanager
def sqlite_errors(
    path: Path,
    *,
    what: str,
    in_use: str = "Try again later.",
    done: str = "nothing was changed",
    remedy: str = "Restore the file, or enrol again.",
) -> Iterator[None]:
    """Translate SQLite's errors; its messages contain no values.

    Args:
        path: for the message.
        what: the kind of file that was expected.
        in_use: what to do if the file is in use.
        done: what an error left in the file.
        remedy: what to do if the file is damaged.

    Raises:
        CorruptTemplateError: the file is not an SQLite file, is truncated or damaged (or memory is exhausted, which
            damaged sizes also cause).
        StorageError: the file is in use, the disk is full, or permissions are missing.
    """
    try:
        yield
    except MemoryError as error:
        raise CorruptTemplateError(
            f"{path} cannot be read: it is damaged and states impossible sizes, or there is not enough memory. "
            "Free memory or restore the file."
        ) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF  # without the operation
        if primary in _IN_USE:
            raise StorageError(f"{path} is already open in this or another process. {in_use}") from error
        if primary is None or primary in _ENVIRONMENT:
            raise StorageError(
                f"Cannot use {path}: {error}; {done}. Check free space and permissions of the disk, then try again."
            ) from error
        raise CorruptTemplateError(f"{path} is not a {what}, is truncated or is damaged ({error}). {remedy}") from error
