"""Pictures of a run, stored in separate files and never in the record: strips of faces as PNG files and an index.

`pictures/index.json` holds {"rows": [{"file", "label", "note", "kind"}]}. All strips show the same target subjects in
the same order. Suffixes: N faces, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr.assets import write_atomically, write_json
from ppfr.core import ShapeError, StorageError

INDEX = "index.json"
_GAP_PX = 4


def write_strip(faces_NHWC: NDArray[np.uint8], path: Path) -> None:
    """Write N faces side by side as one PNG, with a transparent gap between them.

    Args:
        faces_NHWC: (N, H, W, 3) uint8 RGB.
        path: the PNG file.

    Raises:
        ShapeError: the array has another shape or type.
        StorageError: the file cannot be written.
    """
    if faces_NHWC.ndim != 4 or faces_NHWC.shape[-1] != 3 or len(faces_NHWC) == 0 or faces_NHWC.dtype != np.uint8:
        raise ShapeError(
            f"expected faces of shape (N, H, W, 3) with N >= 1 as uint8, got {faces_NHWC.shape} as {faces_NHWC.dtype}"
        )
    num, height, width, _ = faces_NHWC.shape
    strip = np.zeros((height, num * width + (num - 1) * _GAP_PX, 4), dtype=np.uint8)
    for index, face in enumerate(faces_NHWC):
        left = index * (width + _GAP_PX)
        strip[:, left : left + width] = cv2.cvtColor(face, cv2.COLOR_RGB2BGRA)
    with write_atomically(path) as temporary:
        if not cv2.imwrite(str(temporary), strip):
            raise StorageError(f"cannot write {path.name}; free disk space, or choose another directory")


def write_index(folder: Path, *, rows: Sequence[dict[str, str]]) -> None:
    """Write the index of strips into `folder`, the folder `pictures` of the run."""
    write_json({"rows": list(rows)}, folder / INDEX)
