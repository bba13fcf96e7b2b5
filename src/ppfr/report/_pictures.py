"""The pictures beside a record, read for the page: strips of faces as PNG files and a list of them."""

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
KINDS = ("original", "seen", "recovered")
_MAX_BYTES = 32 << 20


def read_grid(run_folder: Path, record: Record, *, with_pictures: bool) -> Faces:
    """What the report shows of a run's pictures: rows with data URIs, or none and a sentence that says why.

    Raises:
        InvalidInputError: the list or a strip is damaged, or lies outside the folder.
    """
    folder = Path(run_folder) / FOLDER
    if not with_pictures:
        whose = "The faces are of real people: pictures" if record["experiment"]["people"] == "real" else "Pictures"
        note = f"{whose} were left out of this report. The figures above were measured on them all the same."
        return Faces(rows=(), note=note)
    if not (folder / INDEX).is_file():
        return Faces(rows=(), note="There are no pictures beside this record.")
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        rows = [_row(folder, row) for row in index["rows"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"the list of pictures {FOLDER}/{INDEX} is damaged ({type(error).__name__}); "
            "make the report without pictures"
        ) from error
    note = (
        "What the server sees is drawn by channel, each scaled to its own range, since it is not a picture of a face."
    )
    return Faces(rows=rows, note=note)


def _row(folder: Path, row: Mapping[str, str]) -> Picture:
    name = row["file"]
    path = folder / name
    if Path(name).name != name or path.suffix != ".png" or row["kind"] not in KINDS:
        raise InvalidInputError(f"the list of pictures names {name!r}; allowed are PNG files in {FOLDER}/ itself")
    data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or not data.startswith(b"\x89PNG"):
        raise InvalidInputError(
            f"{FOLDER}/{name} is not a PNG picture that can be read; make the report without pictures"
        )
    words = {"original": "Plain faces", "seen": "What the server sees", "recovered": "Recovered faces"}[row["kind"]]
    return Picture(
        label=row["label"],
        note=row["note"],
        src="data:image/png;base64," + base64.b64encode(data).decode("ascii"),
        width=image.shape[1],
        height=image.shape[0],
        alt=f"{words} of the target subjects: {row['label']}{', ' + row['note'] if row['note'] else ''}",
    )
