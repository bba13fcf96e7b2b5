"""Slots of a share store: one row each, with its subject and a checksum. Suffixes: N rows, W ring elements of a row."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, CorruptTemplateError
from ppfr.secure._changes import Refresh
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._share_file import damaged
from ppfr.secure._sharing import SharedRows

_SLOT = struct.Struct("<IB100s")  # CRC-32 of id, subject and words; length of the subject, subject; then the words
_REFRESHED_AT_ONCE = 4096


def slot_contents(rows: SharedRows, subjects: Sequence[str]) -> Iterable[bytes]:
    """The bytes of a slot for each row."""
    little_NW = rows.words_NW.astype(rows.words_NW.dtype.newbyteorder("<"), copy=False)
    for reference_id, subject, words in zip(rows.ids_N16, subjects, little_NW, strict=True):
        yield _content(reference_id.tobytes(), subject.encode(), words.tobytes())


def fill_slots(connection: sqlite3.Connection, ids: Sequence[bytes], contents: Iterable[bytes]) -> list[int]:
    """Write N rows into slots, empty ones first, and list them; return their places."""
    num, contents = len(ids), iter(contents)
    found = connection.execute("SELECT place FROM free ORDER BY place LIMIT ?", [num]).fetchall()
    (last,) = connection.execute("SELECT coalesce(max(place), 0) FROM slots").fetchone()
    places = [*(place for (place,) in found), *range(last + 1, last + 1 + num - len(found))]
    fill = connection.executemany
    fill("UPDATE slots SET content = ?2 WHERE place = ?1", zip(places[: len(found)], contents, strict=False))
    fill("INSERT INTO slots VALUES (?1, ?2)", zip(places[len(found) :], contents, strict=True))
    fill("DELETE FROM free WHERE place = ?", found)
    fill("INSERT INTO listed VALUES (?, ?)", zip(ids, places, strict=True))
    return places


def empty_slots(connection: sqlite3.Connection, number: int) -> None:
    """Overwrite the slots of a pending change with zeros, and take its references off the list."""
    for statement in (
        "UPDATE slots SET content = zeroblob(length(content)) WHERE place IN "
        "(SELECT place FROM pending WHERE number = ?)",
        "DELETE FROM listed WHERE reference_id IN (SELECT reference_id FROM pending WHERE number = ?)",
        "INSERT INTO free SELECT place FROM pending WHERE number = ?",
    ):
        connection.execute(statement, [number])


def is_listed(place: object, reference_id: object) -> bool:
    """Whether a row of `listed` has the types that were written."""
    return isinstance(place, int) and isinstance(reference_id, bytes) and len(reference_id) == ID_BYTES


def read_slots(
    path: Path, point: FixedPoint, listed: Sequence[tuple[int, bytes]], slots: Iterable[tuple[Any, Any]]
) -> tuple[NDArray[Any], list[str]]:
    """Read rows.

    Args:
        path: of the store, for messages.
        point: parameters of the rows.
        listed: places and ids of N rows.
        slots: places and contents of the same slots, in order of places, which is the order of the file.

    Returns:
        (N, W) words and N subjects, in the order of `listed`.

    Raises:
        CorruptTemplateError: a row is damaged or missing.
    """
    dtype = point.dtype.newbyteorder("<")
    num, row_bytes, num_read = len(listed), 2 * point.dim * dtype.itemsize, 0
    place_N = np.array([place for place, _ in listed], dtype=np.int64)
    bytes_N, subjects = np.empty(num * row_bytes, dtype=np.uint8), [""] * num
    target = bytes_N.data
    for to, (place, content) in zip(np.argsort(place_N).tolist(), slots, strict=False):
        if not isinstance(content, bytes) or len(content) != _SLOT.size + row_bytes or place != place_N[to]:
            raise damaged(path, "row")
        crc, length, subject = _SLOT.unpack_from(content)
        words = memoryview(content)[_SLOT.size :]
        if _crc(listed[to][1], subject[:length], words) != crc:
            raise damaged(path, "row")
        target[to * row_bytes : (to + 1) * row_bytes] = words
        subjects[to] = subject[:length].decode()
        num_read += 1
    if num_read != num:
        raise CorruptTemplateError(f"{path} lacks rows that it lists. Restore the file, or rebuild it.")
    return bytes_N.view(dtype).reshape(num, 2 * point.dim).astype(point.dtype, copy=False), subjects


def refresh_slots(path: Path, connection: sqlite3.Connection, party: int, point: FixedPoint, change: Refresh) -> None:
    """Overwrite the words of all rows in their places, within the transaction of the caller.

    No row may be pending: all listed rows are committed.

    Raises:
        CorruptTemplateError: a row is damaged.
    """
    listed = connection.execute("SELECT place, reference_id FROM listed ORDER BY place").fetchall()
    if not all(is_listed(*row) for row in listed):
        raise damaged(path, "list of references")
    for start in range(0, len(listed), _REFRESHED_AT_ONCE):
        part = listed[start : start + _REFRESHED_AT_ONCE]
        filled = "SELECT * FROM slots WHERE place BETWEEN ? AND ? AND place NOT IN free ORDER BY place"
        slots = connection.execute(filled, [part[0][0], part[-1][0]]).fetchall()
        words_NW, subjects = read_slots(path, point, part, slots)
        ids_N16 = np.frombuffer(b"".join(one for _, one in part), dtype=np.uint8).reshape(-1, ID_BYTES)
        rows = change.applied(SharedRows(party=party, fixed_point=point, ids_N16=ids_N16, words_NW=words_NW))
        places = (place for place, _ in part)
        connection.executemany(
            "UPDATE slots SET content = ? WHERE place = ?", zip(slot_contents(rows, subjects), places, strict=True)
        )


def _content(reference_id: bytes, name: bytes, words: bytes) -> bytes:
    return _SLOT.pack(_crc(reference_id, name, words), len(name), name) + words


def _crc(reference_id: bytes, subject: bytes, words: bytes | memoryview) -> int:
    return zlib.crc32(words, zlib.crc32(reference_id + subject))
