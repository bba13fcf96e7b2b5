"""Pictures of a run, kept beside the record and never in it: strips of faces as PNG files and a list of them.

`pictures/index.json` holds {"rows": [{"file", "label", "note", "kind"}]}; each strip shows the same
victims from left to right. Suffixes: N faces, H W pixels.
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


def write_index(folder: Path, *, rows: Sequence[dict[str, str]]) -> None:
    """Write the list of strips in `folder`, which is the run's `pictures` folder."""
    write_json({"rows": list(rows)}, folder / INDEX)
