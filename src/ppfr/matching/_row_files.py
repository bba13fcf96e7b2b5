"""Checksummed, memory-mapped files of fixed-size rows for galleries, with atomic appends.

docs/reference/gallery-files.md describes the format. A header of 4,096 bytes describes the rows and has two slots for
commits, written alternately. A commit states the number of valid rows and their running CRC-32. An append writes the
new rows after the valid ones and then the commit. Rows of an interrupted append are not valid, and the next append
overwrites them.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError

FORMAT_VERSION = 1
HEADER_BYTES = 4096
MAGIC = {"templates": b"PPFRGALT", "keys": b"PPFRGALK"}
VALUE_KINDS = ("float32", "int8", "keys")
# magic, version, kind of values, 5 zeros, dim, m, o, scale, bytes of a row, 4 zeros, gallery id; then a checksum
_HEADER = struct.Struct("<8sHB5xIHHdI4x16s")
_CHECKSUM_BYTES = 16
# sequence, number of rows, CRC of the rows, CRC of the ids; then a CRC of these
_COMMIT = struct.Struct("<QQII")
_COMMIT_AT = (512, 1024)
_BYTES_AT_ONCE = 1 << 24


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowHeader:
    """Description of the rows of a file.

    Attributes:
        kind: "templates" or "keys".
        values: "float32" or "int8" for templates, "keys" for keys.
        dim: n of the polynomials.
        num_terms: m.
        overlap: o.
        scale: factor of the unit embedding.
        row_bytes: size of a row.
        gallery_id: 16 random bytes that the two files of a gallery share.
    """

    kind: str
    values: str
    dim: int
    num_terms: int
    overlap: int
    scale: float
    row_bytes: int
    gallery_id: bytes

    def to_bytes(self) -> bytes:
        """Packed, with its checksum."""
        packed = _HEADER.pack(
            MAGIC[self.kind],
            FORMAT_VERSION,
            VALUE_KINDS.index(self.values),
            self.dim,
            self.num_terms,
            self.overlap,
            self.scale,
            self.row_bytes,
            self.gallery_id,
        )
        return packed + hashlib.sha256(packed).digest()[:_CHECKSUM_BYTES]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The valid rows of a file.

    Attributes:
        sequence: number of the commit.
        num_rows: M.
        rows_crc: CRC-32 of all valid rows.
        ids_crc: CRC-32 of their ids, which are in the file of templates. It must be equal in both files of a gallery.
    """

    sequence: int = 0
    num_rows: int = 0
    rows_crc: int = 0
    ids_crc: int = 0

    def to_bytes(self) -> bytes:
        """Packed, with its own CRC."""
        packed = _COMMIT.pack(self.sequence, self.num_rows, self.rows_crc, self.ids_crc)
        return packed + struct.pack("<I", zlib.crc32(packed))


def create(path: Path, header: RowHeader) -> None:
    """Create a file without rows.

    Raises:
        InvalidInputError: the file exists.
        StorageError: the file cannot be written.
    """
    page = bytearray(HEADER_BYTES)
    packed = header.to_bytes()
    page[: len(packed)] = packed
    first = Commit().to_bytes()
    for at in _COMMIT_AT:
        page[at : at + len(first)] = first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(page)
            opened.flush()
            os.fsync(opened.fileno())
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists; open it to append to it, or choose another name") from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}; free space or choose another directory"
        ) from error


def read_header(path: Path, *, kind: str) -> tuple[RowHeader, list[Commit]]:
    """The header of a file, and its readable commits, latest first.

    Raises:
        CorruptTemplateError: the file is absent, truncated, damaged or not a gallery file of this kind.
        OutdatedTemplateError: this release does not read the version.
    """
    try:
        with path.open("rb") as opened:
            page = opened.read(HEADER_BYTES)
            size = os.fstat(opened.fileno()).st_size
    except OSError as error:
        raise CorruptTemplateError(f"{path} cannot be read: {error.strerror or error}; restore it") from error
    if len(page) < HEADER_BYTES or page[:8] != MAGIC[kind]:
        raise CorruptTemplateError(
            f"{path} is truncated or not a gallery file of {kind}; give the right file, or restore it"
        )
    _, version, code, dim, num_terms, overlap, scale, row_bytes, gallery_id = _HEADER.unpack_from(page)
    if version != FORMAT_VERSION:
        raise OutdatedTemplateError(
            f"{path} has format version {version}, but this release reads {FORMAT_VERSION}; rebuild it from the records"
        )
    packed = page[: _HEADER.size]
    if hashlib.sha256(packed).digest()[:_CHECKSUM_BYTES] != page[_HEADER.size : _HEADER.size + _CHECKSUM_BYTES]:
        raise CorruptTemplateError(f"{path} has a damaged header; restore it, or enrol again")
    header = RowHeader(
        kind=kind,
        values=VALUE_KINDS[code],
        dim=dim,
        num_terms=num_terms,
        overlap=overlap,
        scale=scale,
        row_bytes=row_bytes,
        gallery_id=gallery_id,
    )
    commits = sorted(filter(None, (_commit(page, at) for at in _COMMIT_AT)), key=lambda c: -c.sequence)
    if not commits:
        raise CorruptTemplateError(f"{path} has no readable commit; restore it, or enrol again")
    if size < HEADER_BYTES + commits[0].num_rows * row_bytes:
        raise CorruptTemplateError(
            f"{path} is truncated: it ends before its last valid row; restore it, or enrol again"
        )
    return header, commits


def _commit(page: bytes, at: int) -> Commit | None:
    packed = page[at : at + _COMMIT.size]
    (crc,) = struct.unpack_from("<I", page, at + _COMMIT.size)
    if zlib.crc32(packed) != crc:
        return None
    sequence, num_rows, rows_crc, ids_crc = _COMMIT.unpack(packed)
    return Commit(sequence=sequence, num_rows=num_rows, rows_crc=rows_crc, ids_crc=ids_crc)


def append(opened: BinaryIO, header: RowHeader, latest: Commit, rows: NDArray[np.uint8], ids_crc: int) -> Commit:
    """Write rows after the valid ones of `latest`, then a commit that includes them.

    Args:
        opened: the file, open for reading and writing, locked by `lock`.
        header: header of the file.
        latest: the latest commit.
        rows: (M, row_bytes) new rows.
        ids_crc: CRC-32 of all ids, including the new ones.

    Raises:
        StorageError: the disk is full or not available. The commit is not written.
    """
    data = np.ascontiguousarray(rows).data.cast("B")
    commit = Commit(
        sequence=latest.sequence + 1,
        num_rows=latest.num_rows + len(rows),
        rows_crc=zlib.crc32(data, latest.rows_crc),
        ids_crc=ids_crc,
    )
    try:
        opened.seek(HEADER_BYTES + latest.num_rows * header.row_bytes)
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
        opened.seek(_COMMIT_AT[commit.sequence % 2])
        opened.write(commit.to_bytes())
        opened.flush()
        os.fsync(opened.fileno())
    except OSError as error:
        raise StorageError(f"could not append rows: {error.strerror or error}; free space and try again") from error
    return commit


def lock(opened: BinaryIO) -> None:
    """Wait until no other process appends. Closing the file releases the lock."""
    fcntl.flock(opened, fcntl.LOCK_EX)


def mapped(path: Path, header: RowHeader, num_rows: int) -> NDArray[np.uint8]:
    """(M, row_bytes) of a file, memory-mapped read-only."""
    if num_rows == 0:
        return np.empty((0, header.row_bytes), dtype=np.uint8)
    shape = (num_rows, header.row_bytes)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r", offset=HEADER_BYTES, shape=shape))


def check_rows(path: Path, rows: NDArray[np.uint8], commit: Commit) -> None:
    """Compare all rows with the checksum of the commit.

    Raises:
        CorruptTemplateError: the rows were damaged or altered.
    """
    crc = 0
    at_once = max(1, _BYTES_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), at_once):
        crc = zlib.crc32(rows[start : start + at_once].data.cast("B"), crc)
    if crc != commit.rows_crc:
        raise CorruptTemplateError(f"{path} has damaged rows (wrong checksum); restore it, or enrol again")
