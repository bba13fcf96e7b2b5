"""The template of the 112x112 crop, and the least-squares similarity transform that brings a face to it."""

from __future__ import annotations

import cv2
import numpy as np

from ppfr.core import AlignmentError, ShapeError
from ppfr.data._image_sets import CROP_SIZE

TEMPLATE_52 = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Right eye, left eye, nose tip, right and left mouth corner of the person, as (x, y) in the 112x112 crop."""
TEMPLATE_52.flags.writeable = False

_MIN_SPREAD_PX = 1e-6


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
