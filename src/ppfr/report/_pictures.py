"""Reads the pictures of a run for the page: strips of faces as PNG files, and their index."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from ppfr.core import InvalidInputError, Record
from ppfr.report._blocks import Faces, Picture

FOLDER, INDEX = "pictures", "index.json"
NO_PICTURES = "This record has no pictures."
KINDS = ("original", "seen", "recovered")
_MAX_BYTES = 32 << 20


def read_grid(run_folder: Path, record: Record, *, with_pictures: bool) -> Faces:
    """The pictures of a run as data URIs, or no rows and a note that explains why there are none.

    Raises:
        InvalidInputError: the index or a strip is damaged, or a strip is outside the folder.
    """
    folder = Path(run_folder) / FOLDER
    if not with_pictures:
        what = "Pictures of real people" if record["experiment"]["people"] == "real" else "Pictures"
        note = f"{what} are omitted from this report. The figures above include them."
        return Faces(rows=(), note=note)
    if not (folder / INDEX).is_file():
        return Faces(rows=(), note=NO_PICTURES)
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        rows = [_row(folder, row) for row in index["rows"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"{FOLDER}/{INDEX} is damaged ({type(error).__name__}); render the report with `--no-pictures`"
        ) from error
    note = "A masked image is not a picture. Its channels are drawn next to each other, each scaled to its own range."
    return Faces(rows=rows, note=note)


def _row(folder: Path, row: Mapping[str, str]) -> Picture:
    name = row["file"]
    path = folder / name
    if Path(name).name != name or path.suffix != ".png" or row["kind"] not in KINDS:
        raise InvalidInputError(
            f"{FOLDER}/{INDEX} lists {name!r}, but only PNG files directly in {FOLDER}/ are allowed; render the report "
            "with `--no-pictures`"
        )
    data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or not data.startswith(b"\x89PNG"):
        raise InvalidInputError(f"{FOLDER}/{name} is not a readable PNG file; render the report with `--no-pictures`")
    words = {"original": "Plain faces", "seen": "What the server sees", "recovered": "Recovered faces"}[row["kind"]]
    return Picture(
        label=row["label"],
        note=row["note"],
        src="data:image/png;base64," + base64.b64encode(data).decode("ascii"),
        width=image.shape[1],
        height=image.shape[0],
        alt=f"{words} of the target subjects: {row['label']}{', ' + row['note'] if row['note'] else ''}",
    )
