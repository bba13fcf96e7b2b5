"""Unpacking archives from the internet without letting them write elsewhere."""

from __future__ import annotations

import errno
import lzma
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from ppfr.core import DatasetError, ProblemsError, StorageError

MAX_UNPACKED_BYTES = 20 << 30
_MAX_MEMBERS = 10_000_000


def extract_tar(path: Path, into: Path, *, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Unpack a tar archive, also compressed, into a folder that appears whole or not at all.

    Only plain files and folders are unpacked; owners, modes and times are not taken over.

    Args:
        path: the archive.
        into: folder to make; must not exist.
        max_bytes: most bytes that all files may have together.

    Raises:
        StorageError: `into` exists, or the disk is full; nothing half-written is kept.
        DatasetError: not an archive, damaged, or larger than allowed.
        ProblemsError: members that are links, devices, or lead out of the folder; all are listed, none is unpacked.
    """
    if into.exists():
        raise StorageError(f"{into} exists; remove it, or choose another directory")
    scratch: Path | None = None
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "r:*") as tar:
            members = _checked_members(tar, path, max_bytes)
            needed = sum(member.size for member in members)
            if needed > shutil.disk_usage(into.parent).free:
                raise OSError(errno.ENOSPC, f"{needed} bytes are needed and not free")
            scratch = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}."))
            for member in members:
                _write_member(tar, member, scratch / PurePosixPath(member.name))
        scratch.chmod(0o755)
        scratch.replace(into)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, UnicodeError) as error:
        raise DatasetError(f"{path} is damaged or no tar archive ({error}); fetch it again") from error
    except OSError as error:
        if error.errno is None:  # a damaged gzip stream, not the disk
            raise DatasetError(f"{path} is damaged ({error}); fetch it again") from error
        raise StorageError(
            f"could not unpack {path} into {into}: {error.strerror or error}; free space or choose another directory"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _checked_members(tar: tarfile.TarFile, path: Path, max_bytes: int) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    problems: list[str] = []
    num_bytes = 0
    for number, member in enumerate(tar, start=1):
        name = PurePosixPath(member.name)
        num_bytes += member.size
        if num_bytes > max_bytes or number > _MAX_MEMBERS:
            raise DatasetError(f"{path} unpacks to more than {max_bytes} bytes or {_MAX_MEMBERS} files; it is refused")
        if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name:
            problems.append(f"member {number} leads out of the folder")
        elif not (member.isreg() or member.isdir()):
            problems.append(f"member {number} is a link or device")
        elif member.isreg():
            members.append(member)
    if problems:
        raise ProblemsError(f"{path} is refused; get the archive from its own source", problems)
    return members


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ReadError("a file without content")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file)
