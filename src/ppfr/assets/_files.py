"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ppfr.assets._private_files import make_directory, sync_directory
from ppfr.core import PpfrError, StorageError


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` on success and is removed on failure.

    File and name are on disk when the block has ended. A process that is killed within the block can leave the
    temporary file behind, so write secrets with `create_private`. Only the owner may read the file, because the files
    of this package are derived from faces. Use `chmod` to share it.

    Raises:
        StorageError: the directory cannot be created or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        make_directory(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if isinstance(error, PpfrError):  # a missing asset in the caller's block, not a write error
            raise
        raise StorageError(
            f"Could not write {path}: {error.strerror or error}. Free space or choose another directory."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
