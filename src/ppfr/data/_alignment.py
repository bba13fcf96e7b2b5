"""Aligned crops of photos, with figures of their quality: faces are found by YuNet and brought to the template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ppfr.core import AlignmentError
from ppfr.data._detection import Face, FaceDetector
from ppfr.data._quality import FaceQuality
from ppfr.data._similarity import warp_to_crop


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlignedFace:
    """The aligned crop of the face in a photo.

    Attributes:
        crop_HWC: (112, 112, 3) uint8 RGB.
        quality: figures of the face in the photo.
    """

    crop_HWC: np.ndarray
    quality: FaceQuality


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
        any_orientation: bool = True,
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
            max_side_px: larger photos are scaled down to this side for detection, and to 320 pixels for faces that
                fill the frame. The crop is cut from the original.
            any_orientation: search faces that are turned in the plane by any angle. With False, every face is taken as
                upright, which saves 32 detections in small views (about 40 ms); turned faces then give wrong crops.

        Raises:
            MissingWeightsError: the file does not exist.
            InvalidInputError: the file is not a YuNet network, or a value is out of range.
        """
        self._detector = FaceDetector(
            yunet_path, confidence=confidence, max_side_px=max_side_px, any_orientation=any_orientation
        )
        self._largest, self._refines, self._any_orientation = largest, refines, any_orientation

    def detect(self, photo_HWC: np.ndarray) -> list[Face]:
        """All faces of a photo, in descending order of confidence.

        If the most confident face is not upright, the photo is searched in four turns, and if they show no face, in the
        four diagonal ones. The turn with the most confident face decides.

        Args:
            photo_HWC: (H, W, 3) uint8 RGB, as returned by `read_image`; at least 16 pixels per side.

        Raises:
            ShapeError: the photo has another shape or type.
        """
        return self._detector.detect(photo_HWC)

    def upright(self, photo_HWC: np.ndarray, face: Face) -> Face:
        """`face` with the angle by which it is turned, and landmarks that follow it.

        The face is detected in 24 turns of a small view. YuNet's confidence is highest when a face is upright, whereas
        its landmarks do not follow a turned face. On 60 photos of LFW, the angle found differed from the true one by 3
        degrees in the median and 11 at most. Faces turned by less than 10 degrees are returned as they are.

        Raises:
            AlignmentError: the face is not found in any turn.
            ShapeError: the photo has another shape or type.
        """
        return self._detector.upright(photo_HWC, face)

    def align(self, photo_HWC: np.ndarray) -> np.ndarray:
        """`aligned_face` without the quality: (112, 112, 3) uint8 RGB; raises as it does."""
        return self.aligned_face(photo_HWC).crop_HWC

    def aligned_face(self, photo_HWC: np.ndarray) -> AlignedFace:
        """The aligned crop of the face in a photo, and its quality.

        Args:
            photo_HWC: as for `detect`.

        Raises:
            AlignmentError: the photo shows no face, or several, or a face of unknown orientation.
            ShapeError: the photo has another shape or type.
        """
        faces = self.detect(photo_HWC)
        if not faces:
            raise AlignmentError(
                "no face was found; use a well-lit photo with a face larger than about 30 pixels, or lower the minimum"
                " confidence"
            )
        if len(faces) > 1 and not self._largest:
            raise AlignmentError(
                f"{len(faces)} faces were found, expected one; crop the photo to one person, or use the"
                " largest face (--largest)"
            )
        chosen = max(faces, key=lambda face: face.area_px)
        if self._any_orientation:
            chosen = self.upright(photo_HWC, chosen)
        if self._refines:
            chosen = replace(chosen, landmarks_52=self.refined_landmarks(photo_HWC, chosen))
        crop_HWC = warp_to_crop(photo_HWC, chosen.landmarks_52)
        return AlignedFace(crop_HWC=crop_HWC, quality=FaceQuality.measure(crop_HWC, face=chosen))

    def refined_landmarks(self, photo_HWC: np.ndarray, face: Face) -> np.ndarray:
        """(5, 2) median of the landmarks of `face` over the first detection and six views of the face."""
        return self._detector.refined_landmarks(photo_HWC, face)
