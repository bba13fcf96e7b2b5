"""Files with secrets: created whole or not at all, on disk when the call returns, for their owner only."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ppfr.core import InvalidInputError, StorageError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NO_PROC = (errno.ENOENT, errno.EXDEV)
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


def sync_directory(path: Path) -> None:
    """Flush a directory, so that names that were created, replaced or removed in it survive a power failure.

    Raises:
        OSError: the directory cannot be opened or flushed.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Create a directory and its parents, if missing, and flush the names of the new ones.

    Raises:
        OSError: a directory cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    for folder in missing:
        sync_directory(folder.parent)


def check_private(path: Path, what: str) -> None:
    """Refuse a file that its group or other users can read, write or execute.

    Args:
        path: of an existing file; links are followed.
        what: the kind of file, for the message.

    Raises:
        StorageError: other users have access, or the file cannot be examined.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot use the {what} {path}: {getattr(error, 'strerror', None) or error}.") from error
    if mode & _OTHERS:
        raise StorageError(
            f"The {what} {path} has mode {mode:04o}, so other users can access it; only its owner may. "
            f"Find out who had access, then run: chmod 600 {path}"
        )


def create_private(path: Path, content: bytes) -> None:
    """Create a file of mode 0600 with this content, or nothing. An existing file is never replaced.

    On Linux the file has no name until it is complete, so that a process that is killed leaves nothing behind. On file
    systems without unnamed files, a killed process can leave an incomplete file under the final name.

    Raises:
        InvalidInputError: the file exists.
        StorageError: it cannot be written.
    """
    path = Path(path)
    try:
        make_directory(path.parent)
        try:
            if not _linked(path, content):
                _written_in_place(path, content)
        except FileExistsError as error:
            raise InvalidInputError(f"{path} already exists and is not overwritten. Choose another name.") from error
        sync_directory(path.parent)
    except InvalidInputError:
        raise
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Could not write {path}: {getattr(error, 'strerror', None) or error}. "
            "Free space or choose another directory."
        ) from error


def _linked(path: Path, content: bytes) -> bool:
    """Write an unnamed file and give it its name; False if the system has no unnamed files."""
    unnamed = getattr(os, "O_TMPFILE", None)
    if unnamed is None:
        return False
    try:
        handle = os.open(path.parent, unnamed | os.O_WRONLY, 0o600)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return False
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(handle)
            # With a directory, Python calls linkat, which follows the link to the unnamed file; link does not.
            os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_PROC:
            return False
        raise
    finally:
        os.close(folder)
    return True


def _written_in_place(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        try:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
