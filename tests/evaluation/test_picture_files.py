"""Strips of faces in the folder of a run."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ppfr.core import ShapeError
from ppfr.evaluation._picture_files import write_strip


def test_strip_contains_the_faces_unchanged(tmp_path: Path) -> None:
    faces = np.random.default_rng(1).integers(0, 255, (2, 8, 6, 3), dtype=np.uint8)
    write_strip(faces, tmp_path / "strip.png")
    strip = cv2.imread(str(tmp_path / "strip.png"), cv2.IMREAD_UNCHANGED)
    assert strip is not None
    assert strip.shape == (8, 16, 4)
    np.testing.assert_array_equal(strip[:, :6, 2::-1], faces[0])
    np.testing.assert_array_equal(strip[:, 10:, 2::-1], faces[1])
    assert (strip[:, 6:10, 3] == 0).all()
    with pytest.raises(ShapeError, match="uint8"):
        write_strip(faces.astype(np.float32), tmp_path / "other.png")
