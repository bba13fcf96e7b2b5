"""Result records as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppfr.assets._files import write_atomically
from ppfr.core import InvalidInputError, MissingAssetError, Record, check_record, without_paths


def read_record(path: Path) -> Record:
    """Read and check a record.

    Raises:
        MissingAssetError: the file does not exist.
        InvalidInputError: the file is not JSON, not a record, or has another version.
        ProblemsError: the record does not conform to the schema; all deviations are listed.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "record.json"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise MissingAssetError(
            path.name,
            looked_in=[str(path.parent)],
            remedy="Give the record.json (or its folder) that `ppfr run` wrote.",
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path.name} is not UTF-8 text; give the record.json that a run wrote") from error
    try:
        record: Record = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InvalidInputError(f"{path.name} is not JSON ({error}); the file is damaged or not a record") from error
    check_record(record, what=path.name)
    return record


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Check a record and write it atomically. Directories are removed from its texts first.

    Raises:
        ProblemsError: the record does not conform to the schema; all deviations are listed.
        StorageError: the disk is full or the directory is not writable.
    """
    clean = without_paths(record)
    check_record(clean)
    write_json(clean, path)


def write_json(value: Any, path: Path) -> None:
    """Write JSON atomically, with keys in the given order and without infinities."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with write_atomically(Path(path)) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
