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
        MissingAssetError: there is no such file.
        InvalidInputError: not JSON, not a record, another version.
        ProblemsError: what breaks the schema.
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
    """Write a record whole or not at all; directories are cut out of its texts, then it is checked.

    Raises:
        ProblemsError: what breaks the schema.
        StorageError: the disk refuses.
    """
    clean = without_paths(record)
    check_record(clean)
    write_json(clean, path)


def write_json(value: Any, path: Path) -> None:
    """JSON with sorted-as-given keys and no infinities, written atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with write_atomically(Path(path)) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
