"""Aligned crops of photos: face detection with five landmarks (YuNet) and a least-squares similarity transform."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppfr.core import AlignmentError, InvalidInputError, MissingWeightsError, ShapeError
from ppfr.data._image_sets import CROP_SIZE

TEMPLATE_52 = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Right eye, left eye, nose tip, right and left mouth corner of the person, as (x, y) in the 112x112 crop."""
TEMPLATE_52.flags.writeable = False

_MIRRORED = [1, 0, 2, 4, 3]
_NMS_OVERLAP = 0.3
_MAX_CANDIDATES = 5000
_MIN_SIDE_PX = 16
_VIEW_FACE_SIDES_PX = (64, 96, 128)
_VIEW_MARGIN = 2.0
_GRID_PX = 32
_MIN_SPREAD_PX = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A detected face, in pixels of the photo.

    Attributes:
        box: (x, y, width, height) of the face, (x, y) being the upper left corner; may extend beyond the photo.
        landmarks_52: (5, 2) float64 (x, y): right eye, left eye, nose tip, right and left mouth corner.
        confidence: 0..1.
    """

    box: tuple[float, float, float, float]
    landmarks_52: np.ndarray
    confidence: float

    @property
    def area_px(self) -> float:
        """Width times height of the box."""
        return self.box[2] * self.box[3]


def similarity_transform(from_N2: np.ndarray, to_N2: np.ndarray) -> np.ndarray:
    """The rotation, scale and translation that map points onto others with the least squared error.

    Args:
        from_N2: (N, 2) points, N >= 2, not all equal.
        to_N2: (N, 2) target points.

    Returns:
        (2, 3) float64 matrix M; a point p is mapped to M[:, :2] @ p + M[:, 2]. It contains no reflection.

    Raises:
        ShapeError: the shapes differ or are not (N, 2) with N >= 2.
        AlignmentError: all points coincide.

    References:
        Umeyama, PAMI 13(4), 1991; in two dimensions without reflection it has the closed form used here.
    """
    if from_N2.shape != to_N2.shape or from_N2.ndim != 2 or from_N2.shape[1] != 2 or len(from_N2) < 2:
        raise ShapeError(
            f"points have shapes {from_N2.shape} and {to_N2.shape}; pass two (N, 2) arrays of equal length, N >= 2"
        )
    from_mean, to_mean = from_N2.mean(axis=0), to_N2.mean(axis=0)
    source, target = from_N2 - from_mean, to_N2 - to_mean
    spread = float((source**2).sum())
    if not spread > _MIN_SPREAD_PX:
        raise AlignmentError("the landmarks coincide, so the face cannot be aligned; use another photo")
    cosine = float((source * target).sum()) / spread
    sine = float((source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum()) / spread
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.hstack([rotation, (to_mean - rotation @ from_mean)[:, None]])


def warp_to_crop(photo_HWC: np.ndarray, landmarks_52: np.ndarray) -> np.ndarray:
    """Cut the (112, 112, 3) uint8 crop that maps the landmarks onto the template; bilinear, black outside the photo."""
    matrix = similarity_transform(np.asarray(landmarks_52, np.float64), TEMPLATE_52)
    return cv2.warpAffine(photo_HWC, matrix, CROP_SIZE[::-1], flags=cv2.INTER_LINEAR)


class Aligner:
    """Finds faces in photos and aligns them. Thread-safe: one object processes one photo at a time."""

    def __init__(
        self,
        yunet_path: Path,
        *,
        largest: bool = False,
        confidence: float = 0.7,
        refines: bool = True,
        max_side_px: int = 1280,
    ) -> None:
        """Load the detector.

        Args:
            yunet_path: the YuNet network as ONNX.
            largest: align the face with the largest box if a photo shows several. By default several faces are an
                error.
            confidence: minimum confidence of a face, between 0 and 1.
            refines: detect the chosen face again in six views (three sizes, each also mirrored) and take the median of
                each landmark. YuNet's landmarks differ by some pixels between sizes of one photo. The median is more
                stable and costs about six detections in a 250x250 photo.
            max_side_px: larger photos are scaled down to this side for detection. The crop is cut from the original.

        Raises:
            MissingWeightsError: the file does not exist.
            InvalidInputError: the file is not a YuNet network, or a value is out of range.
        """
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
        self._largest, self._confidence = largest, confidence
        self._refines, self._max_side_px = refines, max_side_px
        self._lock = threading.Lock()
        self._detector = _load_detector(self._path, confidence)

    def __getstate__(self) -> dict[str, Any]:
        kept = {"_path", "_largest", "_confidence", "_refines", "_max_side_px"}
        return {name: value for name, value in self.__dict__.items() if name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._detector = _load_detector(self._path, self._confidence)

    def detect(self, photo_HWC: np.ndarray) -> list[Face]:
        """All faces of a photo, in descending order of confidence.

        Args:
            photo_HWC: (H, W, 3) uint8 RGB, upright, as returned by `read_image`; at least 16 pixels per side.

        Raises:
            ShapeError: the photo has another shape or type.
        """
        photo_HWC = _checked_photo(photo_HWC)
        longer = max(photo_HWC.shape[:2])
        scale = min(1.0, self._max_side_px / longer)
        seen_HWC = photo_HWC
        if scale < 1.0:
            size = [max(_MIN_SIDE_PX, round(side * scale)) for side in photo_HWC.shape[1::-1]]
            seen_HWC = cv2.resize(photo_HWC, size, interpolation=cv2.INTER_AREA)
        factor_2 = np.array([photo_HWC.shape[1] / seen_HWC.shape[1], photo_HWC.shape[0] / seen_HWC.shape[0]])
        faces = [_face(row, factor_2) for row in self._rows(seen_HWC)]
        return sorted(faces, key=lambda face: -face.confidence)

    def align(self, photo_HWC: np.ndarray) -> np.ndarray:
        """The aligned crop of the face in a photo.

        Args:
            photo_HWC: as for `detect`.

        Returns:
            (112, 112, 3) uint8 RGB.

        Raises:
            AlignmentError: the photo shows no face, or several.
            ShapeError: the photo has another shape or type.
        """
        faces = self.detect(photo_HWC)
        if not faces:
            raise AlignmentError(
                "no face was found; use a well-lit photo with an upright face larger than about 30 pixels, or"
                " lower the minimum confidence"
            )
        if len(faces) > 1 and not self._largest:
            raise AlignmentError(
                f"{len(faces)} faces were found, expected one; crop the photo to one person, or use the"
                " largest face (--largest)"
            )
        chosen = max(faces, key=lambda face: face.area_px)
        landmarks_52 = self.refined_landmarks(photo_HWC, chosen) if self._refines else chosen.landmarks_52
        return warp_to_crop(photo_HWC, landmarks_52)

    def refined_landmarks(self, photo_HWC: np.ndarray, face: Face) -> np.ndarray:
        """(5, 2) median of the landmarks of `face` over the first detection and six views of the face."""
        x, y, width, height = face.box
        centre_2 = np.array([x + width / 2, y + height / 2])
        found = [face.landmarks_52]
        for face_side in _VIEW_FACE_SIDES_PX:
            scale = face_side / max(width, height)
            side = round(face_side * _VIEW_MARGIN / _GRID_PX) * _GRID_PX
            shift_2 = side / 2 - scale * centre_2
            matrix = np.array([[scale, 0, shift_2[0]], [0, scale, shift_2[1]]])
            # bilinear interpolation uses too few pixels for large reductions
            flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
            view_HWC = cv2.warpAffine(photo_HWC, matrix, (side, side), flags=flags)
            for is_mirrored in (False, True):
                seen_HWC = np.ascontiguousarray(view_HWC[:, ::-1]) if is_mirrored else view_HWC
                rows = self._rows(seen_HWC)
                if not len(rows):
                    continue
                middles_N2 = rows[:, :2] + rows[:, 2:4] / 2
                nearest = int(np.argmin(np.abs(middles_N2 - side / 2).sum(axis=1)))
                points_52 = rows[nearest, 4:14].reshape(5, 2).astype(np.float64)
                if is_mirrored:
                    points_52[:, 0] = side - 1 - points_52[:, 0]
                    points_52 = points_52[_MIRRORED]
                found.append((points_52 - shift_2) / scale)
        result: np.ndarray = np.median(np.stack(found), axis=0)
        return result

    def _rows(self, seen_HWC: np.ndarray) -> np.ndarray:
        """(N, 15) detector rows: box, five points, confidence."""
        with self._lock:
            self._detector.setInputSize((seen_HWC.shape[1], seen_HWC.shape[0]))
            rows = self._detector.detect(cv2.cvtColor(seen_HWC, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return np.empty((0, 15), np.float32)
        return rows[np.isfinite(rows).all(axis=1)]


def _face(row_15: np.ndarray, factor_2: np.ndarray) -> Face:
    x, y = (float(value) for value in row_15[:2] * factor_2)
    width, height = (float(value) for value in row_15[2:4] * factor_2)
    landmarks_52 = row_15[4:14].reshape(5, 2).astype(np.float64) * factor_2
    return Face((x, y, width, height), landmarks_52, min(1.0, float(row_15[14])))


def _checked_photo(photo_HWC: np.ndarray) -> np.ndarray:
    shape = tuple(getattr(photo_HWC, "shape", ()))
    kind = getattr(photo_HWC, "dtype", type(photo_HWC).__name__)
    if len(shape) != 3 or shape[-1] != 3 or kind != np.uint8 or min(shape[:2]) < _MIN_SIDE_PX:
        raise ShapeError(
            f"the photo is {kind} of shape {shape}; it must be (H, W, 3) uint8 RGB with at least {_MIN_SIDE_PX} pixels"
            " per side. Read files with `ppfr.data.read_image`"
        )
    return np.ascontiguousarray(photo_HWC)


def _load_detector(path: Path, confidence: float) -> cv2.FaceDetectorYN:
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
