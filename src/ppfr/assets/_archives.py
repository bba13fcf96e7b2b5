"""Extraction of archives from the internet, limited to one folder."""

from __future__ import annotations

import errno
import lzma
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from ppfr.core import DatasetError, ProblemsError, StorageError

MAX_UNPACKED_BYTES = 20 << 30
_MAX_MEMBERS = 10_000_000


def extract_tar(path: Path, into: Path, *, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Extract a tar archive, compressed or not, into a new folder that is created completely or not at all.

    `tarfile.data_filter` rejects members that would be written outside the folder, devices and links to the outside.
    Two limits are added because the filter has none: the total size and the number of members. Links within the folder
    are rejected too. Owners, permissions and times of members are not restored.

    Args:
        path: the archive.
        into: folder to create; must not exist.
        max_bytes: maximum size of all files together.

    Raises:
        StorageError: `into` exists, or the disk is full; no partial output is kept.
        DatasetError: the file is not an archive, is damaged, or is larger than allowed.
        ProblemsError: members are links or devices, or lead out of the folder; all are listed, and nothing is
            extracted.
    """
    if into.exists():
        raise StorageError(f"{into} exists. Remove it, or choose another directory.")
    scratch: Path | None = None
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "r:*") as tar:
            scratch = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}."))
            members = _checked_members(tar, path, scratch, max_bytes)
            needed = sum(member.size for member in members)
            if needed > shutil.disk_usage(into.parent).free:
                raise OSError(errno.ENOSPC, f"{needed} bytes are needed and not free")
            tar.extractall(scratch, members, filter=_data_filter)  # noqa: S202 (the filter and the checks before it are the remedy)
        scratch.chmod(0o755)
        scratch.replace(into)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, UnicodeError) as error:
        raise DatasetError(f"{path} is damaged or not a tar archive ({error}). Download it again.") from error
    except OSError as error:
        if error.errno is None:  # a damaged gzip stream, not the disk
            raise DatasetError(f"{path} is damaged ({error}). Download it again.") from error
        raise StorageError(
            f"Could not extract {path} to {into}: {error.strerror or error}. Free space or choose another directory."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _data_filter(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """`tarfile.data_filter` without the member's permissions and time."""
    return tarfile.data_filter(member, folder).replace(mode=None, mtime=None, deep=False)  # type: ignore[arg-type]


def _checked_members(tar: tarfile.TarFile, path: Path, scratch: Path, max_bytes: int) -> list[tarfile.TarInfo]:
    """The files of an archive, after every member was checked and none extracted."""
    members: list[tarfile.TarInfo] = []
    problems: list[str] = []
    num_bytes = 0
    for number, member in enumerate(tar, start=1):
        num_bytes += member.size
        if num_bytes > max_bytes or number > _MAX_MEMBERS:
            raise DatasetError(
                f"{path} contains more than {max_bytes} bytes or {_MAX_MEMBERS} members; larger archives are rejected."
            )
        # Backslash and colon are separators on other systems. The filter strips a leading slash; here it is refused.
        if member.name.startswith("/") or "\\" in member.name or ":" in member.name:
            problems.append(f"member {number} has an absolute path or a path of another system")
            continue
        try:
            _data_filter(member, str(scratch))
        except tarfile.FilterError as error:
            problems.append(f"member {number}: {type(error).__name__}")
            continue
        if member.isreg():
            members.append(member)
        elif not member.isdir():
            problems.append(f"member {number} is a link or device")
    if problems:
        raise ProblemsError(f"{path} was rejected. Download the archive from its original source", problems)
    return members
