"""WebDataset shards: tar files in which the files of one sample share a name, with random access through an index."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppfr.core import DatasetError, InvalidInputError, MissingAssetError, ProblemsError
from ppfr.data._image_sets import CROP_SIZE, EncodedImageSet

_IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")
_LABEL_KINDS = ("cls", "json", "txt")
_SUBJECT_FIELDS = ("subject", "subject_id", "label", "cls")
_MAX_LABEL_BYTES = 1 << 20
_MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(slots=True)
class _Sample:
    """Positions of the files of one sample: (offset, size) by suffix."""

    shard: int
    key: str
    places: dict[str, tuple[int, int]] = field(default_factory=dict)


class ShardImageSet(EncodedImageSet):
    """Images in tar files, read by seeking to their offset."""

    def __init__(
        self,
        paths: Sequence[Path],
        places: Sequence[tuple[int, int, int]],
        subject_ids: Sequence[str],
        *,
        name: str,
        crop_size: tuple[int, int],
    ) -> None:
        """Use the images at `places`, each (shard number, offset, size); use `read_shards`."""
        super().__init__(name=name, subject_ids=subject_ids, crop_size=crop_size)
        self._paths = tuple(paths)
        self._places = tuple(places)

    def _source(self, index: int) -> bytes:
        shard, offset, size = self._places[index]
        return _read_at(self._paths[shard], offset, size)

    def signature(self, index: int) -> str:
        """Shard name, offset and size."""
        shard, offset, size = self._places[index]
        return f"{self._paths[shard].name}\0{offset}\0{size}"


def read_shards(paths: Sequence[Path], *, name: str, crop_size: tuple[int, int] = CROP_SIZE) -> ShardImageSet:
    """Aligned crops in WebDataset tar shards.

    A sample consists of an image (`.jpg`, `.jpeg`, `.png`, `.webp`) and its subject, whose paths are equal up to the
    last dot. The subject is the text of a `.cls` file, the field "subject", "subject_id", "label" or "cls" of a `.json`
    file, or the text of a `.txt` file. Files with further words before the suffix ("003.mask.png" beside "003.png") are
    other fields of a sample and are ignored, as are other files. A subject that is a whole number becomes
    "<name>/<number>", because numbers have no meaning across data sets. Names are not changed. A person may be in
    several shards.

    Args:
        paths: plain `.tar` files, in order.
        name: short name for records.
        crop_size: (H, W) of the images.

    Raises:
        MissingAssetError: a shard does not exist.
        DatasetError: there are no shards or no samples.
        ProblemsError: shards are compressed or damaged, samples have no image or subject, or a key occurs twice; all
            problems are listed.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise DatasetError("no shards were given; pass at least one .tar file")
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise MissingAssetError(
            f"{len(missing)} of {len(paths)} shards", looked_in=missing, remedy="Check the paths of the .tar files."
        )
    problems: list[str] = []
    samples: list[_Sample] = []
    for number, path in enumerate(paths):
        samples += _index(number, path, problems)
    places, subjects = [], []
    for sample in samples:
        shown = f"{paths[sample.shard].name}: sample at byte {min(sample.places.values())[0]}"
        kind = next((kind for kind in _IMAGE_KINDS if kind in sample.places), None)
        if kind is None:
            problems.append(f"{shown} has no image ({', '.join(_IMAGE_KINDS)})")
            continue
        try:
            subject = _subject(paths[sample.shard], sample.places)
        except DatasetError as error:
            problems.append(f"{shown} {error}")
            continue
        places.append((sample.shard, *sample.places[kind]))
        subjects.append(f"{name}/{subject}" if subject.isdigit() else subject)
    if problems:
        raise ProblemsError("the shards have problems; fix or remove the listed ones", problems)
    if not places:
        raise DatasetError("the shards contain no samples; expected KEY.jpg with KEY.cls or KEY.json")
    return ShardImageSet(paths, places, subjects, name=name, crop_size=crop_size)


def _index(number: int, path: Path, problems: list[str]) -> list[_Sample]:
    """The samples of one shard, from its headers only."""
    samples: dict[str, _Sample] = {}
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, kind = base.rpartition(".")
                if base.startswith(".") or kind.lower() not in (*_IMAGE_KINDS, *_LABEL_KINDS):
                    continue
                sample = samples.setdefault(f"{folder}/{stem}", _Sample(number, f"{folder}/{stem}"))
                if kind.lower() in sample.places:
                    problems.append(f"{path.name}: byte {member.offset} repeats a file of an earlier sample")
                if member.offset_data + member.size > size:
                    problems.append(f"{path.name}: ends within the file at byte {member.offset}")
                sample.places[kind.lower()] = (member.offset_data, member.size)
    except tarfile.ReadError:
        with path.open("rb") as file:
            is_compressed = file.read(4)[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")
        remedy = "is compressed; unpack it to a plain .tar for random access" if is_compressed else "is damaged"
        problems.append(f"{path.name} {remedy}")
        return []
    except tarfile.TarError as error:
        problems.append(f"{path.name} is damaged ({error})")
        return []
    return [sample for key, sample in samples.items() if not _is_field(key, sample, samples)]


def _is_field(key: str, sample: _Sample, samples: dict[str, _Sample]) -> bool:
    """Whether the files are further fields of another sample, or text without an image."""
    if sample.places.keys() == {"txt"}:
        return True
    folder, _, stem = key.rpartition("/")
    words = stem.split(".")
    outer = (samples.get(f"{folder}/{'.'.join(words[:count])}") for count in range(1, len(words)))
    has_label = any(kind in sample.places for kind in _LABEL_KINDS)
    return any(each is not None and (not has_label or not _has_image(sample)) for each in outer)


def _has_image(sample: _Sample) -> bool:
    return any(kind in sample.places for kind in _IMAGE_KINDS)


def shard_paths(text: str) -> list[Path]:
    """The shards that a word names: a `.tar` file, a folder of them, or a brace range such as `train-{0000..0012}.tar`.

    Raises:
        InvalidInputError: a brace range is malformed.

    >>> [path.name for path in shard_paths("faces-{008..010}.tar")]
    ['faces-008.tar', 'faces-009.tar', 'faces-010.tar']
    """
    path = Path(text)
    if path.is_dir():
        return sorted(
            each for each in path.iterdir() if each.suffix.lower() == ".tar" and not each.name.startswith(".")
        )
    if "{" not in text or path.exists():
        return [path]
    match = _BRACES.search(text)
    if match is None or int(match[2]) < int(match[1]) or int(match[2]) - int(match[1]) >= _MAX_SHARDS:
        raise InvalidInputError(f"{text!r} has no range such as {{0000..0012}} with at most {_MAX_SHARDS} shards")
    width = len(match[1])
    return [
        each
        for number in range(int(match[1]), int(match[2]) + 1)
        for each in shard_paths(f"{text[: match.start()]}{number:0{width}}{text[match.end() :]}")
    ]


def _subject(path: Path, places: dict[str, tuple[int, int]]) -> str:
    kind = next((kind for kind in _LABEL_KINDS if kind in places), None)
    if kind is None:
        raise DatasetError("has no subject (.cls, .json or .txt)")
    offset, size = places[kind]
    if size > _MAX_LABEL_BYTES:
        raise DatasetError(f"has a .{kind} of {size} bytes; the maximum for a subject is {_MAX_LABEL_BYTES}")
    try:
        text = _read_at(path, offset, size).decode("utf-8-sig")
        if kind == "json":
            content = json.loads(text)
            found = [content[key] for key in _SUBJECT_FIELDS if key in content] if isinstance(content, dict) else []
            text = _label_text(found[0]) if found else ""
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"has a damaged .{kind}") from error
    if not text.strip():
        raise DatasetError(f"has a .{kind} without a subject; allowed fields: {', '.join(_SUBJECT_FIELDS)}")
    return text.strip()


def _label_text(label: Any) -> str:
    """A label of a JSON file as text, "" if it cannot be a subject; 7.0 is 7."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label) if isinstance(label, str | int) and not isinstance(label, bool) else ""


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
