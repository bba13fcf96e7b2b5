"""Face detection with five landmarks (YuNet), for faces of any size and in any orientation in the plane.

YuNet knows upright faces of about 10 to 300 pixels. Its landmarks do not follow a turned face: whatever the angle, the
line of the eyes comes out nearly horizontal, with a confidence that may exceed the usual minimum. Size and orientation
are therefore searched, and the confidence decides.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppfr.core import AlignmentError, InvalidInputError, MissingWeightsError, ShapeError

_MIRRORED = [1, 0, 2, 4, 3]
_NMS_OVERLAP = 0.3
_WITHIN = 0.8
_MAX_CANDIDATES = 5000
_MIN_SIDE_PX = 16
_GRID_PX = 32
_VIEW_FACE_SIDES_PX = (64, 96, 128)
_VIEW_MARGIN = 2.0
_CLOSE_UP_SIDE_PX = 320  # at this size, faces that fill the frame have a size that YuNet knows
_QUARTER_TURNS_DEG = (0, 90, 180, 270)
_DIAGONAL_TURNS_DEG = (45, 135, 225, 315)
_ROLL_STEP_DEG = 15
_ROLL_WINDOW_DEG = 45
_ROLL_FACE_SIDE_PX = 64
_ROLL_CONFIDENCE = 0.5  # confidences below do not count for the orientation
_FRONTAL_CONFIDENCE = 0.87  # mean over three neighbouring angles; of 60 upright frontal faces, all had more
_CLEARLY_MORE = 0.03
_CLEARLY_LESS = 0.1
_UPRIGHT_DEG = 10.0  # less than the uncertainty of the search; such faces are used as they are


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A detected face, in pixels of the photo.

    Attributes:
        box: (x, y, width, height) of the face, (x, y) being the upper left corner; may extend beyond the photo. If
            `roll_deg` is not 0, the box is turned by it about its centre.
        landmarks_52: (5, 2) float64 (x, y): right eye, left eye, nose tip, right and left mouth corner.
        confidence: 0..1.
        roll_deg: angle by which the face is turned clockwise in the photo, -180..180. `Aligner.detect` gives the
            turn of the photo in which the face was found, in steps of 45; `Aligner.upright` the angle of the face.
    """

    box: tuple[float, float, float, float]
    landmarks_52: np.ndarray
    confidence: float
    roll_deg: float = 0.0

    @property
    def area_px(self) -> float:
        """Width times height of the box."""
        return self.box[2] * self.box[3]

    @property
    def centre_2(self) -> np.ndarray:
        """(x, y) of the middle of the box."""
        x, y, width, height = self.box
        return np.array([x + width / 2, y + height / 2])


class FaceDetector:
    """YuNet for faces of any size and orientation. Thread-safe: it processes one photo at a time."""

    def __init__(self, yunet_path: Path, *, confidence: float, max_side_px: int, any_orientation: bool) -> None:
        """Load the network; the arguments are those of `Aligner`."""
        if not 0.0 < confidence < 1.0 or max_side_px < _GRID_PX:
            raise InvalidInputError(
                f"confidence is {confidence} and max_side_px {max_side_px}; use (0, 1) and at least {_GRID_PX}"
            )
        self._path = Path(yunet_path)
        if not self._path.is_file():
            raise MissingWeightsError(
                self._path.name,
                looked_in=[str(self._path.parent)],
                remedy="Give --weights (or PPFR_WEIGHTS) the directory that holds the YuNet detector.",
            )
        self._confidence, self._max_side_px, self._any_orientation = confidence, max_side_px, any_orientation
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._network = _load_network(self._path, min(self._confidence, _ROLL_CONFIDENCE))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_network")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def detect(self, photo_HWC: np.ndarray) -> list[Face]:
        """See `Aligner.detect`."""
        photo_HWC = _checked_photo(photo_HWC)
        faces = self._search(photo_HWC, 0)
        if not self._any_orientation or (faces and self._is_upright(photo_HWC, faces[0])):
            return faces
        for turns in (_QUARTER_TURNS_DEG, _DIAGONAL_TURNS_DEG):
            found = [faces if turn == 0 else self._search(photo_HWC, turn) for turn in turns]
            best = max(found, key=lambda faces: faces[0].confidence if faces else 0.0)
            if best and not (faces and best[0].confidence < faces[0].confidence + _CLEARLY_MORE):
                return best
            if faces:
                return faces
        return []

    def upright(self, photo_HWC: np.ndarray, face: Face) -> Face:
        """See `Aligner.upright`."""
        photo_HWC = _checked_photo(photo_HWC)
        for _ in range(2):  # the second search begins at a better centre
            roll_deg = self._roll_deg(photo_HWC, face)
            if roll_deg is None:
                raise AlignmentError(
                    "a face was found, but not which way up it is; use a photo with the face upright and at least"
                    " about 30 pixels large"
                )
            if abs(roll_deg) < _UPRIGHT_DEG and face.roll_deg == 0.0:
                return face
            found = self._near(photo_HWC, replace(face, roll_deg=0.0 if abs(roll_deg) < _UPRIGHT_DEG else roll_deg))
            if found is None:
                raise AlignmentError(
                    "a face was found, but not confirmed after it was turned upright; use a photo with the face upright"
                )
            face = found
        return face

    def refined_landmarks(self, photo_HWC: np.ndarray, face: Face) -> np.ndarray:
        """See `Aligner.refined_landmarks`."""
        found = [face.landmarks_52]
        for face_side in _VIEW_FACE_SIDES_PX:
            view_HWC, matrix = _view(photo_HWC, face, face_side)
            side = len(view_HWC)
            for is_mirrored in (False, True):
                seen_HWC = np.ascontiguousarray(view_HWC[:, ::-1]) if is_mirrored else view_HWC
                rows = self._rows(seen_HWC, self._confidence)
                if not len(rows):
                    continue
                points_52 = _points(rows[_nearest(rows, side)])
                if is_mirrored:
                    points_52[:, 0] = side - 1 - points_52[:, 0]
                    points_52 = points_52[_MIRRORED]
                found.append(_mapped(points_52, cv2.invertAffineTransform(matrix)))
        result: np.ndarray = np.median(np.stack(found), axis=0)
        return result

    def _search(self, photo_HWC: np.ndarray, turn_deg: int) -> list[Face]:
        """Faces at several scales of a photo turned counter-clockwise, in descending order of confidence."""
        longer = max(photo_HWC.shape[:2])
        sides = {min(longer, self._max_side_px), min(longer, self._max_side_px, _CLOSE_UP_SIDE_PX)}
        faces = [face for side in sorted(sides) for face in self._search_scale(photo_HWC, turn_deg, side)]
        kept: list[Face] = []
        for face in sorted(faces, key=lambda face: -face.confidence):
            if not any(_overlaps(face, other) for other in kept):
                kept.append(face)
        return kept

    def _search_scale(self, photo_HWC: np.ndarray, turn_deg: int, longer_side: int) -> list[Face]:
        scale = longer_side / max(photo_HWC.shape[:2])
        seen_HWC = photo_HWC
        if scale < 1.0:
            size = [max(_MIN_SIDE_PX, round(side * scale)) for side in photo_HWC.shape[1::-1]]
            seen_HWC = cv2.resize(photo_HWC, size, interpolation=cv2.INTER_AREA)
        factor_2 = np.array([photo_HWC.shape[1] / seen_HWC.shape[1], photo_HWC.shape[0] / seen_HWC.shape[0]])
        if turn_deg == 0:
            return [_face(row, factor_2) for row in self._rows(seen_HWC, self._confidence)]
        turned_HWC, back = _turned(seen_HWC, turn_deg)
        faces = []
        for row in self._rows(turned_HWC, self._confidence):
            turned = _face(row, np.ones(2))
            width, height = turned.box[2:] * (factor_2 if turn_deg % 180 == 0 else factor_2[::-1])
            middle_2 = _mapped(turned.centre_2[None], back)[0] * factor_2
            faces.append(
                Face(
                    (middle_2[0] - width / 2, middle_2[1] - height / 2, width, height),
                    _mapped(turned.landmarks_52, back) * factor_2,
                    turned.confidence,
                    float(_signed_deg(turn_deg)),
                )
            )
        return faces

    def _is_upright(self, photo_HWC: np.ndarray, face: Face) -> bool:
        angles_A = np.arange(0, 360, _ROLL_WINDOW_DEG)
        confidence_A = self._confidence_at(photo_HWC, face, angles_A)
        return bool(np.argmax(confidence_A) in (0, 1, len(angles_A) - 1) and confidence_A.max() > 0)

    def _roll_deg(self, photo_HWC: np.ndarray, face: Face) -> float | None:
        """The angle by which a face is turned clockwise; None if that is unclear.

        The confidence as a function of the angle is nearly symmetric about the upright position. The highest mean of
        three neighbours gives its place, and the mean angle weighted by confidence within 45 degrees its centre. Faces
        in profile have lower confidences and may have a second peak upside down. Where the highest mean is not that of
        a frontal face, the angle at which the face was found is kept unless its confidence is clearly lower.
        """
        angles_A = np.arange(0, 360, _ROLL_STEP_DEG)
        confidence_A = self._confidence_at(photo_HWC, face, angles_A)
        if confidence_A.max() < self._confidence:
            return None
        smooth_A = (confidence_A + np.roll(confidence_A, 1) + np.roll(confidence_A, -1)) / 3
        best = int(np.argmax(smooth_A))
        before = round(face.roll_deg / _ROLL_STEP_DEG) % len(angles_A)
        if smooth_A[best] < _FRONTAL_CONFIDENCE:
            if smooth_A[before] > smooth_A[best] - _CLEARLY_LESS:
                return face.roll_deg
            if abs(_signed_deg(angles_A[best] - face.roll_deg)) > _ROLL_WINDOW_DEG:
                return None
        offset_A = _signed_deg(angles_A - angles_A[best])
        weight_A = np.where(np.abs(offset_A) <= _ROLL_WINDOW_DEG, np.maximum(confidence_A - _ROLL_CONFIDENCE, 0), 0)
        return float(_signed_deg(angles_A[best] + (weight_A * offset_A).sum() / weight_A.sum()))

    def _confidence_at(self, photo_HWC: np.ndarray, face: Face, angles_A: np.ndarray) -> np.ndarray:
        """(A,) confidence of a face at each angle, 0 where it is not found."""
        confidence_A = np.zeros(len(angles_A))
        for number, angle in enumerate(angles_A):
            view_HWC, _ = _view(photo_HWC, replace(face, roll_deg=float(angle)), _ROLL_FACE_SIDE_PX)
            rows = self._rows(view_HWC, _ROLL_CONFIDENCE)
            near = np.abs(rows[:, :2] + rows[:, 2:4] / 2 - len(view_HWC) / 2).max(axis=1) < len(view_HWC) / 4
            confidence_A[number] = rows[near, 14].max(initial=0.0)
        return confidence_A

    def _near(self, photo_HWC: np.ndarray, face: Face) -> Face | None:
        """The face again, detected in a view turned by its roll; None if it is not found there."""
        view_HWC, matrix = _view(photo_HWC, face, _VIEW_FACE_SIDES_PX[1])
        rows = self._rows(view_HWC, self._confidence)
        if not len(rows):
            return None
        seen = _face(rows[_nearest(rows, len(view_HWC))], np.ones(2))
        back, scale = cv2.invertAffineTransform(matrix), float(np.sqrt(np.linalg.det(matrix[:, :2])))
        middle_2 = _mapped(seen.centre_2[None], back)[0]
        width, height = seen.box[2] / scale, seen.box[3] / scale
        box = (middle_2[0] - width / 2, middle_2[1] - height / 2, width, height)
        return Face(box, _mapped(seen.landmarks_52, back), seen.confidence, face.roll_deg)

    def _rows(self, seen_HWC: np.ndarray, min_confidence: float) -> np.ndarray:
        """(N, 15) detector rows: box, five points, confidence."""
        with self._lock:
            self._network.setInputSize((seen_HWC.shape[1], seen_HWC.shape[0]))
            rows = self._network.detect(cv2.cvtColor(seen_HWC, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return np.empty((0, 15), np.float32)
        return rows[np.isfinite(rows).all(axis=1) & (rows[:, 14] >= min_confidence)]


def _view(photo_HWC: np.ndarray, face: Face, face_side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """A square view of a face turned upright, and the (2, 3) matrix from the photo to the view."""
    scale = face_side_px / max(face.box[2:])
    side = round(face_side_px * _VIEW_MARGIN / _GRID_PX) * _GRID_PX
    turn = np.radians(face.roll_deg)
    rotation = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = np.column_stack([rotation, side / 2 - rotation @ face.centre_2])
    # bilinear interpolation uses too few pixels for large reductions
    flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    return cv2.warpAffine(photo_HWC, matrix, (side, side), flags=flags), matrix


def _turned(photo_HWC: np.ndarray, turn_deg: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo turned counter-clockwise on a canvas that holds it, and the (2, 3) matrix back to the photo."""
    height, width = photo_HWC.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn_deg, 1.0)
    cosine, sine = np.abs(matrix[0, :2])
    new_width, new_height = round(width * cosine + height * sine), round(width * sine + height * cosine)
    matrix[:, 2] += [(new_width - width) / 2, (new_height - height) / 2]
    return cv2.warpAffine(photo_HWC, matrix, (new_width, new_height)), cv2.invertAffineTransform(matrix)


def _mapped(points_N2: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    mapped: np.ndarray = points_N2 @ matrix[:, :2].T + matrix[:, 2]
    return mapped


def _signed_deg(angle: Any) -> Any:
    """An angle or an array of angles in -180..180."""
    return (angle + 180) % 360 - 180


def _points(row_15: np.ndarray) -> np.ndarray:
    return row_15[4:14].reshape(5, 2).astype(np.float64)


def _nearest(rows_N15: np.ndarray, side: int) -> int:
    """The detection nearest to the middle of a view."""
    return int(np.argmin(np.abs(rows_N15[:, :2] + rows_N15[:, 2:4] / 2 - side / 2).sum(axis=1)))


def _face(row_15: np.ndarray, factor_2: np.ndarray) -> Face:
    x, y = (float(value) for value in row_15[:2] * factor_2)
    width, height = (float(value) for value in row_15[2:4] * factor_2)
    return Face((x, y, width, height), _points(row_15) * factor_2, min(1.0, float(row_15[14])))


def _overlaps(one: Face, other: Face) -> bool:
    """Whether two boxes show one face at two scales: a large intersection over union, or one within the other."""
    low = np.maximum(one.box[:2], other.box[:2])
    high = np.minimum(np.add(one.box[:2], one.box[2:]), np.add(other.box[:2], other.box[2:]))
    shared = float(np.prod(np.maximum(high - low, 0)))
    smaller, union = min(one.area_px, other.area_px), one.area_px + other.area_px - shared
    return shared > _NMS_OVERLAP * union or shared > _WITHIN * smaller


def _checked_photo(photo_HWC: np.ndarray) -> np.ndarray:
    shape = tuple(getattr(photo_HWC, "shape", ()))
    kind = getattr(photo_HWC, "dtype", type(photo_HWC).__name__)
    if len(shape) != 3 or shape[-1] != 3 or kind != np.uint8 or min(shape[:2]) < _MIN_SIDE_PX:
        raise ShapeError(
            f"the photo is {kind} of shape {shape}; it must be (H, W, 3) uint8 RGB with at least {_MIN_SIDE_PX} pixels"
            " per side. Read files with `ppfr.data.read_image`"
        )
    return np.ascontiguousarray(photo_HWC)


def _load_network(path: Path, confidence: float) -> cv2.FaceDetectorYN:
    logging = getattr(cv2.utils, "logging", None)
    level = logging.getLogLevel() if logging is not None else None
    try:
        if logging is not None:
            logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns about its own default backend
        detector = cv2.FaceDetectorYN.create(
            str(path), "", (_GRID_PX, _GRID_PX), confidence, _NMS_OVERLAP, _MAX_CANDIDATES
        )
        detector.detect(np.zeros((_GRID_PX, _GRID_PX, 3), np.uint8))
        return detector
    except cv2.error as error:
        raise InvalidInputError(
            f"{path} is not a YuNet face detector that OpenCV {cv2.__version__} can run; download it again"
        ) from error
    finally:
        if logging is not None:
            logging.setLogLevel(level)
