"""Pictures of a run, kept beside the record and never in it: strips of faces as PNG files and a list of them.

`pictures/index.json` holds {"num_faces", "rows": [{"file", "label", "note", "kind"}]}; each strip shows the same
victims from left to right. Suffixes: N faces, H W pixels.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr.assets import write_atomically
from ppfr.benchmark._schema import Record, write_json
from ppfr.core import InvalidInputError, ShapeError, StorageError

FOLDER, INDEX = "pictures", "index.json"
KINDS = ("original", "seen", "recovered")
_GAP_PX = 4
_MAX_BYTES = 32 << 20


def write_strip(faces_NHWC: NDArray[np.uint8], path: Path) -> None:
    """Write N faces side by side as one PNG, with a transparent gap between them.

    Args:
        faces_NHWC: (N, H, W, 3) uint8 RGB.
        path: the PNG file.

    Raises:
        ShapeError: another shape.
        StorageError: the disk refuses.
    """
    if faces_NHWC.ndim != 4 or faces_NHWC.shape[-1] != 3 or len(faces_NHWC) == 0 or faces_NHWC.dtype != np.uint8:
        raise ShapeError(f"faces are {faces_NHWC.dtype} of shape {faces_NHWC.shape}; give (N, H, W, 3) uint8, N >= 1")
    num, height, width, _ = faces_NHWC.shape
    strip = np.zeros((height, num * width + (num - 1) * _GAP_PX, 4), dtype=np.uint8)
    for index, face in enumerate(faces_NHWC):
        left = index * (width + _GAP_PX)
        strip[:, left : left + width] = cv2.cvtColor(face, cv2.COLOR_RGB2BGRA)
    with write_atomically(path) as temporary:
        if not cv2.imwrite(str(temporary), strip):
            raise StorageError(f"could not write {path.name}; free space or choose another directory")


def write_index(folder: Path, *, num_faces: int, rows: Sequence[dict[str, str]]) -> None:
    """Write the list of strips in `folder`, which is the run's `pictures` folder."""
    write_json({"num_faces": num_faces, "rows": list(rows)}, folder / INDEX)


def read_grid(run_folder: Path, record: Record, *, with_pictures: bool) -> dict[str, Any]:
    """What the report shows of a run's pictures: rows with data URIs, or none and a sentence that says why.

    Raises:
        InvalidInputError: the list or a strip is damaged, or lies outside the folder.
    """
    empty = {"rows": [], "num_faces": 0}
    folder = Path(run_folder) / FOLDER
    if not with_pictures:
        whose = "The faces are of real people: pictures" if record["experiment"]["people"] == "real" else "Pictures"
        return {
            **empty,
            "note": f"{whose} were left out of this report. The figures above were measured on them all the same.",
        }
    if not (folder / INDEX).is_file():
        return {**empty, "note": "There are no pictures beside this record."}
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        num_faces = int(index["num_faces"])
        rows = [_row(folder, row, num_faces) for row in index["rows"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"the list of pictures {FOLDER}/{INDEX} is damaged ({type(error).__name__}); "
            "make the report without pictures"
        ) from error
    note = "What the server sees is drawn by channel, each scaled to its own range, since it is no picture of a face."
    return {"rows": rows, "num_faces": num_faces, "note": note}


def _row(folder: Path, row: dict[str, str], num_faces: int) -> dict[str, Any]:
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
    return {
        "label": row["label"],
        "note": row["note"],
        "src": "data:image/png;base64," + base64.b64encode(data).decode("ascii"),
        "width": image.shape[1],
        "height": image.shape[0],
        "alt": f"{words} of {num_faces} victims: {row['label']}{', ' + row['note'] if row['note'] else ''}",
    }
