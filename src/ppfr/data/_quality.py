"""Quality of a face image: detector confidence, size, pose from five landmarks, and sharpness, with limits on them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np

from ppfr.core import AlignmentError, RangeError, ShapeError
from ppfr.data._detection import Face
from ppfr.data._image_sets import CROP_SHAPE
from ppfr.data._similarity import TEMPLATE_52

# A head of mean shape in inter-eye distances: x and y as in the template, z away from the camera. The depths are those
# of the canonical face model of MediaPipe: nose tip 0.636 and mouth corners 0.130 in front of the middles of the eyes.
_INTER_EYE_IN_CROP_PX = float(np.linalg.norm(TEMPLATE_52[0] - TEMPLATE_52[1]))
_HEAD_53 = np.column_stack([TEMPLATE_52 / _INTER_EYE_IN_CROP_PX, [0.0, 0.0, -0.636, -0.130, -0.130]])
_FROM_HEAD_35 = np.linalg.pinv(_HEAD_53 - _HEAD_53.mean(axis=0))
_MIN_SCALE_PX = 1e-3

_FACE = (slice(36, 104), slice(22, 90))  # eyes to mouth in the crop; outside are hair and background
_SIGMA_PX = 1.0
_SECOND_DERIVATIVES = (
    np.array([[1.0, -2.0, 1.0]]),
    np.array([[1.0], [-2.0], [1.0]]),
    np.diag([0.5, -1.0, 0.5]),
    np.fliplr(np.diag([0.5, -1.0, 0.5])),
)
_MIN_VARIANCE = 1.0  # of grey values 0..255; a smaller one is that of an empty picture


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceQuality:
    """Quality figures of one face image. None: not measured, because only the aligned crop is known.

    Attributes:
        confidence: of the detector, 0..1. It falls for covered, tiny and very dark faces.
        inter_eye_px: distance between the eyes in pixels of the photo, as it would be if the face were turned to the
            camera (ISO/IEC 29794-5 multiplies the distance by the secant of yaw for the same purpose).
        yaw_deg: positive if the nose points to the right of the photo. See Limitations.
        pitch_deg: positive if the face looks down.
        roll_deg: angle by which the face is turned clockwise in the photo.
        sharpness: smallest standard deviation of the second derivative of the crop over four directions, divided by the
            standard deviation of the grey values; 0 for an empty picture. It does not change with brightness, contrast
            or, since every crop has the same scale, the size of the photo. The smallest direction is used because
            motion blurs only one.

    Limitations:
        The angles are those of a head of mean shape and depend on YuNet's points, which do not follow a head to the
        profile: profiles of CFP (about 90 degrees) are estimated at 45 degrees in the median, frontal faces of CFP at 3
        (`benchmarks/enrolment_quality.json`). Noise counts as sharpness.

    References:
        ISO/IEC 29794-5:2025, Face image data quality (measures and terms).
        DeMenthon and Davis, IJCV 15, 1995 (pose from the affine least-squares camera, here made orthonormal by SVD).
        Depths of the head: `canonical_face_model.obj` of MediaPipe (Apache-2.0).
    """

    confidence: float | None = None
    inter_eye_px: float | None = None
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    sharpness: float

    @classmethod
    def measure(cls, crop_HWC: np.ndarray, *, face: Face | None = None) -> Self:
        """Measure a crop, and the face in the photo that it was cut from.

        Args:
            crop_HWC: (112, 112, 3) uint8 RGB, aligned.
            face: gives confidence and landmarks. Without it only the sharpness is measured.

        Raises:
            ShapeError: the crop or the landmarks have another shape or type.
            AlignmentError: the landmarks coincide.
        """
        if crop_HWC.shape != CROP_SHAPE or crop_HWC.dtype != np.uint8:
            raise ShapeError(
                f"the crop is {crop_HWC.dtype} of shape {crop_HWC.shape}; it must be uint8 of shape {CROP_SHAPE}."
                " Align photos with `Aligner`"
            )
        sharpness = _sharpness(crop_HWC)
        if face is None:
            return cls(sharpness=sharpness)
        return cls(confidence=face.confidence, sharpness=sharpness, **_pose(face.landmarks_52))

    def not_measured(self) -> tuple[str, ...]:
        """Names of the figures that are None."""
        return tuple(field.name for field in dataclasses.fields(self) if getattr(self, field.name) is None)


class _Check(NamedTuple):
    limit: str
    figure: str
    words: str
    unit: str
    remedy: str


_CHECKS = (
    _Check("min_confidence", "confidence", "confidence", "", "use a well-lit photo in which nothing covers the face"),
    _Check("min_inter_eye_px", "inter_eye_px", "inter-eye distance", " px", "use a larger photo or a closer shot"),
    _Check("max_yaw_deg", "yaw_deg", "yaw", " degrees", "use a photo in which the face looks into the camera"),
    _Check("max_pitch_deg", "pitch_deg", "pitch", " degrees", "use a photo taken at the height of the eyes"),
    _Check("min_sharpness", "sharpness", "sharpness", "", "use a photo in focus, without motion, and not enlarged"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLimits:
    """Limits on the quality of photos for enrolment. None: no limit.

    The defaults are chosen from measurements with the recogniser `mobilefacenet-y1`
    (`benchmarks/enrolment_quality.py`). Other recognisers may need others. Pitch has no default limit because no photos
    of known pitch were at hand.

    Attributes:
        min_confidence: 0..1.
        min_inter_eye_px: documents of identity require 90 (ISO/IEC 39794-5); recognition works with much less.
        max_yaw_deg: of the absolute value.
        max_pitch_deg: of the absolute value.
        min_sharpness: at least 0.
    """

    min_confidence: float | None = 0.85
    min_inter_eye_px: float | None = 12.0
    max_yaw_deg: float | None = 30.0
    max_pitch_deg: float | None = None
    min_sharpness: float | None = 0.04

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            limit = getattr(self, field.name)
            highest = 1.0 if field.name == "min_confidence" else math.inf
            if limit is not None and not (0.0 <= limit <= highest and math.isfinite(limit)):
                allowed = "0..1" if highest == 1.0 else "a finite number of at least 0"
                raise RangeError(f"`{field.name}` is {limit}; use {allowed}, or None for no limit")

    def problems(self, quality: FaceQuality) -> tuple[str, ...]:
        """Every limit that a face image fails, with its figure, the limit and the remedy.

        Figures that were not measured fail no limit; `FaceQuality.not_measured` lists them.
        """
        found = []
        for check in _CHECKS:
            limit, figure = getattr(self, check.limit), getattr(quality, check.figure)
            if limit is None or figure is None:
                continue
            is_minimum = check.limit.startswith("min_")
            if figure < limit if is_minimum else abs(figure) > limit:
                option = "--" + check.limit.removesuffix("_deg").replace("_", "-")
                bound = f"{'minimum' if is_minimum else 'maximum'} {limit:g}{check.unit}, {option}"
                found.append(f"{check.words} is {figure:.3g}{check.unit} ({bound}): {check.remedy}")
        return tuple(found)


def _pose(landmarks_52: np.ndarray) -> dict[str, float]:
    """The scaled rotation of the mean head whose projection is nearest to the landmarks' affine least-squares camera.

    The rotation is Rz(roll) Ry(-yaw) Rx(pitch) in a right-handed system with x to the right and y down.
    """
    if landmarks_52.shape != (5, 2):
        raise ShapeError(f"the landmarks have shape {landmarks_52.shape}; pass five points, (5, 2)")
    camera_23 = (_FROM_HEAD_35 @ (landmarks_52 - landmarks_52.mean(axis=0))).T
    left_22, scale_2, right_23 = np.linalg.svd(camera_23, full_matrices=False)
    if not scale_2.mean() > _MIN_SCALE_PX:
        raise AlignmentError("the landmarks coincide, so the pose cannot be estimated; use another photo")
    x_3, y_3 = left_22 @ right_23
    z_3 = np.cross(x_3, y_3)
    return {
        "inter_eye_px": float(scale_2.mean()),
        "yaw_deg": math.degrees(math.asin(min(1.0, max(-1.0, z_3[0])))),
        "pitch_deg": math.degrees(math.atan2(z_3[1], z_3[2])),
        "roll_deg": math.degrees(math.atan2(y_3[0], x_3[0])),
    }


def _sharpness(crop_HWC: np.ndarray) -> float:
    grey_HW = cv2.cvtColor(crop_HWC, cv2.COLOR_RGB2GRAY).astype(np.float64)
    smooth_HW = cv2.GaussianBlur(grey_HW, (0, 0), _SIGMA_PX)  # single pixels of noise are no detail
    least = min(float(cv2.filter2D(smooth_HW, -1, kernel)[_FACE].var()) for kernel in _SECOND_DERIVATIVES)
    return math.sqrt(least / max(float(grey_HW[_FACE].var()), _MIN_VARIANCE))
