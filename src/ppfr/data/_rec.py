"""MXNet RecordIO training sets (`train.rec`, `train.idx`), read without mxnet.

A record consists of the 32-bit word 0xced7230a, a second word and the bytes, padded to a multiple of 4. The upper 3
bits of the second word state whether this is a whole record (0), its first (1), a middle (2) or its last part (3). The
lower 29 bits are the length of the part. A record is split where its bytes contain the word 0xced7230a at a multiple of
4; joining the parts restores the word. The bytes begin with a header: flag (uint32), label (float32), two ids (uint64).
If flag > 0, that many float32 labels follow.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ppfr.core import DatasetError, MissingAssetError, ProblemsError
from ppfr.data._image_sets import CROP_SIZE, EncodedImageSet
from ppfr.data._text import read_lines, words_of

_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_LENGTH_BITS = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_PART_HEADER = struct.Struct("<II")
_IMAGE_HEADER = struct.Struct("<IfQQ")
_HEADER_BYTES = _PART_HEADER.size + _IMAGE_HEADER.size
_CHUNK_ROWS = 1 << 16
_MAX_EXACT = 1 << 24  # float32 represents all integers below


class RecImageSet(EncodedImageSet):
    """Images in a RecordIO file with random access through its index."""

    def __init__(
        self, path: Path, offsets: np.ndarray, labels: np.ndarray, *, name: str, crop_size: tuple[int, int]
    ) -> None:
        """Use the records at `offsets` (N,) int64 with class numbers `labels` (N,) int64; use `read_rec`."""
        super().__init__(name=name, subject_ids=[f"{name}/{label}" for label in labels], crop_size=crop_size)
        self._path = path
        self._offsets = offsets
        self._bytes: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}  # each process maps the file itself

    def _mapped(self) -> mmap.mmap:
        if self._bytes is None:
            self._bytes = _map(self._path)
        return self._bytes

    def _source(self, index: int) -> bytes:
        record = read_record(self._mapped(), int(self._offsets[index]))
        flag = _IMAGE_HEADER.unpack_from(record)[0]
        return record[_IMAGE_HEADER.size + 4 * flag :]

    def signature(self, index: int) -> str:
        """Offset of the record in the file."""
        return f"{self._path.name}\0{self._offsets[index]}"


def read_record(data: mmap.mmap | bytes, offset: int) -> bytes:
    """The bytes of the record at `offset`, with its parts joined.

    Raises:
        DatasetError: no record begins there, or it is truncated.
    """
    parts: list[bytes] = []
    while True:
        if offset < 0 or offset + _PART_HEADER.size > len(data):
            raise DatasetError(f"the record file ends within a record (byte {offset}); download it again")
        magic, word = _PART_HEADER.unpack_from(data, offset)
        if magic != _MAGIC:
            raise DatasetError(
                f"no record begins at byte {offset}; the index belongs to another .rec file or the file is damaged"
            )
        kind, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
        start = offset + _PART_HEADER.size
        if start + length > len(data):
            raise DatasetError(f"the record file ends within a record (byte {offset}); download it again")
        if (kind in (_WHOLE, _FIRST)) == bool(parts) or kind > _LAST:
            raise DatasetError(f"the parts of the record at byte {offset} are out of order; download the file again")
        parts.append(bytes(data[start : start + length]))
        if kind in (_WHOLE, _LAST):
            return _MAGIC_BYTES.join(parts)
        offset = start + (length + 3) // 4 * 4


def read_rec(
    path_rec: Path, path_idx: Path | None = None, *, name: str | None = None, crop_size: tuple[int, int] = CROP_SIZE
) -> RecImageSet:
    """An InsightFace training set.

    If record 0 is a header (flag 2: first class record, number of records), the images are the keys from 1 up to the
    first class record; otherwise every key is an image. The class is the first label. Subject ids are
    "<name>/<class>": the format has no names, so they cannot show an overlap with another set.

    Args:
        path_rec: the `.rec` file.
        path_idx: its index ("key<TAB>offset" lines); default: the same path with suffix `.idx`.
        name: short name for records; default: name of the directory of the file.
        crop_size: (H, W) of its images.

    Raises:
        MissingAssetError: one of the two files does not exist.
        DatasetError: the files are damaged or do not belong together.
        ProblemsError: lines of the index are malformed; all are listed.
    """
    path_rec = Path(path_rec)
    path_idx = Path(path_idx) if path_idx is not None else path_rec.with_suffix(".idx")
    for path in (path_rec, path_idx):
        if not path.is_file():
            raise MissingAssetError(
                path.name,
                looked_in=[str(path.parent)],
                remedy="A training set consists of a .rec file and its .idx file; pass both paths.",
            )
    offset_of = _read_index(path_idx)
    data = _map(path_rec)
    keys = sorted(offset_of)
    first = read_record(data, offset_of[keys[0]])
    if len(first) < _IMAGE_HEADER.size:
        raise DatasetError(f"{path_rec} contains records without an image header; it is not an image set")
    flag = _IMAGE_HEADER.unpack_from(first)[0]
    if keys[0] == 0 and flag == 2 and len(first) <= _IMAGE_HEADER.size + 4 * flag:
        first_class_key = _first_class_key(data, offset_of, struct.unpack_from("<f", first, _IMAGE_HEADER.size)[0])
        keys = [key for key in keys if 1 <= key < first_class_key]
    if not keys:
        raise DatasetError(f"{path_rec} contains no image; its header states an empty range")
    offsets = np.array([offset_of[key] for key in keys], np.int64)
    labels = _labels(path_rec, offsets)
    return RecImageSet(path_rec, offsets, labels, name=name or path_rec.resolve().parent.name, crop_size=crop_size)


def _first_class_key(data: mmap.mmap, offset_of: dict[int, int], stated: float) -> int:
    """The key of the first class record. The header has it as float32, which is exact up to 2^24 only.

    Among the keys that round to the number, the first whose record has labels but no image is a class record.
    """
    if not 0 <= stated < 2**62:
        raise DatasetError(f"the header of the record file states {stated} as first class record; download it again")
    if stated < _MAX_EXACT:
        return int(stated)
    reach = int(np.spacing(np.float32(stated)))
    for key in range(int(stated) - reach, int(stated) + reach + 1):
        if key in offset_of:
            record = read_record(data, offset_of[key])
            flag = _IMAGE_HEADER.unpack_from(record)[0] if len(record) >= _IMAGE_HEADER.size else 0
            if len(record) <= _IMAGE_HEADER.size + 4 * flag:
                return key
    return int(stated)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise DatasetError(f"{path} is empty; download it again") from error


def _read_index(path: Path) -> dict[int, int]:
    offset_of: dict[int, int] = {}
    problems = []
    for number, line in enumerate(read_lines(path), start=1):
        words = words_of(line)
        if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
            problems.append(f"line {number}: expected 'key<TAB>offset'")
        elif int(words[0]) in offset_of:
            problems.append(f"line {number}: key {words[0]} occurs in an earlier line")
        else:
            offset_of[int(words[0])] = int(words[1])
    if problems:
        raise ProblemsError(f"{path} is not an index of a .rec file", problems)
    if not offset_of:
        raise DatasetError(f"{path} is empty; download it again")
    return offset_of


def _labels(path: Path, offsets: np.ndarray) -> np.ndarray:
    """First label of each record, read without the images."""
    bytes_ = np.memmap(path, np.uint8, mode="r")
    if offsets.max() + _HEADER_BYTES + 4 > len(bytes_):
        raise DatasetError(f"{path} ends before the last record in its index; download both files again")
    labels = np.empty(len(offsets), np.float32)
    reach = np.arange(_HEADER_BYTES + 4)
    for start in range(0, len(offsets), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        words = bytes_[offsets[rows, None] + reach]
        magic, flag = (words[:, at : at + 4].copy().view("<u4")[:, 0] for at in (0, _PART_HEADER.size))
        if (magic != _MAGIC).any():
            raise DatasetError(
                f"the index contains offsets of {path} at which no record begins; download both files again"
            )
        own = words[:, _PART_HEADER.size + 4 : _PART_HEADER.size + 8].copy().view("<f4")[:, 0]
        listed = words[:, _HEADER_BYTES : _HEADER_BYTES + 4].copy().view("<f4")[:, 0]
        labels[rows] = np.where(flag > 0, listed, own)
    if not np.isfinite(labels).all() or (labels < 0).any() or (labels != np.floor(labels)).any():
        raise DatasetError(f"{path} has labels that are not class numbers; it is not a training set for recognition")
    if (labels >= _MAX_EXACT).any():
        raise DatasetError(
            f"{path} has class numbers of {_MAX_EXACT} or more, which float32 cannot tell apart; number them from 0"
        )
    return labels.astype(np.int64)
