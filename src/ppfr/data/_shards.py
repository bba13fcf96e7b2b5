"""WebDataset shards: tar files in which the files of one sample share a name, with random access through an index."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppfr.core import DatasetError, MissingAssetError, ProblemsError
from ppfr.data._image_sets import CROP_SIZE, EncodedImageSet

_IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")
_LABEL_KINDS = ("cls", "json")
_SUBJECT_FIELDS = ("subject", "subject_id", "label", "cls")
_MAX_LABEL_BYTES = 1 << 20


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

    A sample consists of the files whose paths are equal up to the first dot of the file name: an image (`.jpg`,
    `.jpeg`, `.png`, `.webp`) and its subject. The subject is the text of a `.cls` file, or the field "subject",
    "subject_id", "label" or "cls" of a `.json` file. Other files are ignored. A subject that is an integer becomes
    "<name>/<number>", because numbers have no meaning across data sets. Names are not changed.

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
                stem, _, kind = base.partition(".")
                if kind.lower() not in (*_IMAGE_KINDS, *_LABEL_KINDS):
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
    return list(samples.values())


def _subject(path: Path, places: dict[str, tuple[int, int]]) -> str:
    kind = next((kind for kind in _LABEL_KINDS if kind in places), None)
    if kind is None:
        raise DatasetError("has no subject (.cls or .json)")
    offset, size = places[kind]
    if size > _MAX_LABEL_BYTES:
        raise DatasetError(f"has a .{kind} of {size} bytes; the maximum for a subject is {_MAX_LABEL_BYTES}")
    try:
        text = _read_at(path, offset, size).decode("utf-8")
        if kind == "json":
            content = json.loads(text)
            found = [content[key] for key in _SUBJECT_FIELDS if key in content] if isinstance(content, dict) else []
            text = str(found[0]) if found and isinstance(found[0], str | int) else ""
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"has a damaged .{kind}") from error
    if not text.strip():
        raise DatasetError(f"has a .{kind} without a subject; allowed fields: {', '.join(_SUBJECT_FIELDS)}")
    return text.strip()


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
