"""How well faces are found in photos that are turned in the plane, with the search over all angles and without it.

Every photo is turned by each angle. A face counts as found if the mean distance of its five points from those of the
upright photo, turned by the same angle, is below a quarter of the distance between the eyes. Without the search, a
detection is used as it is. Nothing is random: the first photos in order of their paths are taken.

Run: python benchmarks/turned_faces.py --photos DATA/lfw_photos --weights WEIGHTS --json benchmarks/turned_faces.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from ppfr.core import AlignmentError
from ppfr.data import Aligner, Face, read_image

ANGLES_DEG = (0, 30, 45, 90, 180, 270)
LIMIT = 0.25


def turned(photo_HWC: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo turned counter-clockwise, and the (2, 3) matrix that does it."""
    height, width = photo_HWC.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    cosine, sine = np.abs(matrix[0, :2])
    size = (round(width * cosine + height * sine), round(width * sine + height * cosine))
    matrix[:, 2] += [(size[0] - width) / 2, (size[1] - height) / 2]
    return cv2.warpAffine(photo_HWC, matrix, size), matrix


def points(aligner: Aligner, photo_HWC: np.ndarray, *, searches: bool) -> np.ndarray | None:
    """(5, 2) refined points of the face that the detector is most confident of; None without a usable face."""
    try:
        faces: list[Face] = aligner.detect(photo_HWC)
        if not faces:
            return None
        face = aligner.upright(photo_HWC, faces[0]) if searches else faces[0]
        return aligner.refined_landmarks(photo_HWC, face)
    except AlignmentError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of <person>/<photo>.jpg, not aligned")
    parser.add_argument("--weights", type=Path, required=True, help="directory of yunet.onnx")
    parser.add_argument("--num", type=int, default=60, help="photos")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.photos.glob("*/*.jpg"))[: arguments.num]
    yunet = arguments.weights / "yunet.onnx"
    searching, plain = Aligner(yunet), Aligner(yunet, any_orientation=False)
    errors: dict[str, dict[int, list[float]]] = {
        name: {angle: [] for angle in ANGLES_DEG} for name in ("search", "no search")
    }
    num_used = 0
    for path in paths:
        photo_HWC = read_image(path)
        upright_52 = points(plain, photo_HWC, searches=False)
        if upright_52 is None:
            continue
        num_used += 1
        between = float(np.linalg.norm(upright_52[0] - upright_52[1]))
        for angle in ANGLES_DEG:
            turned_HWC, matrix = turned(photo_HWC, angle)
            expected_52 = upright_52 @ matrix[:, :2].T + matrix[:, 2]
            for name, aligner in (("search", searching), ("no search", plain)):
                found_52 = points(aligner, turned_HWC, searches=name == "search")
                distance = np.inf if found_52 is None else np.linalg.norm(found_52 - expected_52, axis=1).mean()
                errors[name][angle].append(float(distance / between))
    result = {
        "command": f"python benchmarks/turned_faces.py --photos DATA --weights WEIGHTS --num {arguments.num}",
        "num_photos": num_used,
        "limit_in_eye_distances": LIMIT,
        "found": {
            name: {str(a): int(sum(e < LIMIT for e in each)) for a, each in by_angle.items()}
            for name, by_angle in errors.items()
        },
        "largest_error_with_search": {
            str(angle): round(max(each), 3) if np.isfinite(max(each)) else None
            for angle, each in errors["search"].items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
