"""Face coordinates of each pixel of the crop: head shape, pose, and alignment to the five-point template.

The head is a height field z(x, y) over the face frame of `_identity`. The camera sees it turned by yaw and pitch; the
crop is cut by the similarity transform that maps the five projected landmarks to the template, as for a photograph.
Fields are computed on a grid of half the crop's resolution with a border of `_PAD` samples and enlarged by two.
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from ppfr.synthetic._capture import Capture
from ppfr.synthetic._fields import Field, bump, clip
from ppfr.synthetic._identity import Person

TEMPLATE_PX = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_PAD = 4
_OUTLINE_BINS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """The crop's pixels in face coordinates.

    Attributes:
        size: crop's side in pixels.
        density: crop pixels per template pixel.
        x, y: (size, size) face coordinates of each pixel.
        outline: (size, size) signed distance to the head's outline, negative inside, template pixels.
        coarse_x, coarse_y: the same coordinates on the half-resolution grid with its border.
        coarse_depth: depth towards the camera on that grid, template pixels.
        coarse_outline: distance to the outline on that grid.
        facing: cosine of the angle between the face's axis and the camera's.
        projection: (2, 4) face-frame point (x, y, z, 1) to crop pixels.
        projection_rows: the same as Python floats.
        jaw_drop: how far the chin is lowered, template pixels.
    """

    size: int
    density: float
    x: Field
    y: Field
    outline: Field
    coarse_x: Field
    coarse_y: Field
    coarse_depth: Field
    coarse_outline: Field
    facing: float
    projection: np.ndarray
    projection_rows: list[list[float]]
    jaw_drop: float

    def project(self, points_N3: np.ndarray) -> np.ndarray:
        """Face-frame points (N, 3) to crop pixels (N, 2)."""
        pixels: np.ndarray = points_N3 @ self.projection[:, :3].T + self.projection[:, 3]
        return pixels

    def window(self, x: float, y: float, z: float, radius_x: float, radius_y: float) -> tuple[slice, slice]:
        """Rows and columns of the crop that contain everything within the radii (template pixels) of a face point."""
        (ax, ay, az, a), (bx, by, bz, b) = self.projection_rows
        column, row = ax * x + ay * y + az * z + a, bx * x + by * y + bz * z + b
        half_x, half_y, size = radius_x * self.density + 2.0, radius_y * self.density + 2.0, self.size
        return (
            slice(_within(row - half_y, size), _within(row + half_y + 1.0, size)),
            slice(_within(column - half_x, size), _within(column + half_x + 1.0, size)),
        )


def _within(position: float, size: int) -> int:
    return int(min(max(position, 0.0), size))


def enlarge(coarse: Field, size: int) -> Field:
    """Resample a coarse field (n, n) or (n, n, C <= 4) to the crop's resolution."""
    side = coarse.shape[0] * 2
    large = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return large[2 * _PAD : 2 * _PAD + size, 2 * _PAD : 2 * _PAD + size]


def look(person: Person, capture: Capture, size: int, field_of_view: float) -> View:
    """Compute the face point that each pixel shows.

    Args:
        person: person in the picture.
        capture: provides the pose and the errors of the landmarks.
        size: crop's side in pixels, even.
        field_of_view: 1 is the template crop; 1.5 shows a field 1.5 times as wide around the same centre.
    """
    yaw, pitch = capture.pose.yaw, capture.pose.pitch
    rotation = _rotation(yaw, pitch)
    jaw_drop = 7.0 * capture.expression.mouth_open
    marks = landmarks(person, capture)
    density = size / (112.0 * field_of_view)
    target = (TEMPLATE_PX + np.array(capture.pose.landmark_error) - 56.0) * density + size / 2.0 - 0.5
    to_crop = _similarity(marks @ rotation[:2].T, target)
    grid = np.arange(-_PAD, size // 2 + _PAD, dtype=np.float32) * 2.0 + 0.5
    projection = np.column_stack([to_crop[:, :2] @ rotation[:2], to_crop[:, 2]])
    turn, lean = to_crop[0, 0], to_crop[0, 1]
    inverse = np.array([[turn, -lean], [lean, turn]]) / (turn * turn + lean * lean)
    offset = -inverse @ to_crop[:, 2]
    column, row = grid[None, :], grid[:, None]
    u = (np.float32(inverse[0, 0]) * column + np.float32(inverse[0, 1]) * row + np.float32(offset[0])).astype(
        np.float32
    )
    v = (np.float32(inverse[1, 0]) * column + np.float32(inverse[1, 1]) * row + np.float32(offset[1])).astype(
        np.float32
    )
    x, y, depth = _unproject(person, u, v, yaw, pitch)
    outline = _outline(person, x, y, jaw_drop)
    fine = enlarge(np.dstack([x, y, outline]), size)
    fine_x, fine_y, fine_outline = (np.ascontiguousarray(fine[:, :, c]) for c in range(3))
    return View(
        size,
        density,
        fine_x,
        fine_y,
        fine_outline,
        x,
        y,
        depth,
        outline,
        float(rotation[2, 2]),
        projection,
        projection.tolist(),
        jaw_drop,
    )


def landmarks(person: Person, capture: Capture) -> np.ndarray:
    """(5, 3) face coordinates of eyes, nose tip and mouth corners, left as seen first."""
    eyes, face = person.eyes, person.nose_mouth
    corner_y = mouth_corner_y(person, capture)
    half = mouth_half_width(person, capture)
    eye_z, mouth_z = -4.0, -2.5
    return np.array(
        [
            [-eyes.half_gap, 0.0, eye_z],
            [eyes.half_gap, 0.0, eye_z],
            [0.0, face.nose_length, face.nose_height + 1.0],
            [-half, corner_y, mouth_z],
            [half, corner_y, mouth_z],
        ]
    )


def mouth_corner_y(person: Person, capture: Capture) -> float:
    """Height of the mouth's corners under this expression."""
    expression = capture.expression
    face = person.nose_mouth
    return face.mouth_y + face.corner_tilt - 3.4 * expression.smile + 1.8 * expression.mouth_open


def mouth_half_width(person: Person, capture: Capture) -> float:
    """Half the mouth's width under this expression."""
    expression = capture.expression
    return person.nose_mouth.mouth_half_width * (1.0 + 0.17 * expression.smile - 0.10 * expression.mouth_open)


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    about_y = np.array([[cos_yaw, 0.0, sin_yaw], [0.0, 1.0, 0.0], [-sin_yaw, 0.0, cos_yaw]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cos_pitch, -sin_pitch], [0.0, sin_pitch, cos_pitch]])
    rotation: np.ndarray = about_x @ about_y
    return rotation


def _similarity(source_N2: np.ndarray, target_N2: np.ndarray) -> np.ndarray:
    """Least-squares similarity (2, 3) from source to target; in complex numbers it is one division."""
    source = [complex(x, y) for x, y in source_N2.tolist()]
    target = [complex(x, y) for x, y in target_N2.tolist()]
    source_mean, target_mean = sum(source) / len(source), sum(target) / len(target)
    over = sum((p - source_mean).conjugate() * (q - target_mean) for p, q in zip(source, target, strict=True))
    turn = over / sum(abs(p - source_mean) ** 2 for p in source)
    shift = target_mean - turn * source_mean
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _proxy_depth(person: Person, x: Field, y: Field) -> Field:
    """The coarse shape of the head, which determines parallax."""
    nose = person.nose_mouth
    across, along = x * (1.0 / 41.0), (y - 12.0) * (1.0 / 62.0)
    across2, along2 = np.minimum(across * across, 2.2), np.minimum(along * along, 2.0)
    depth = -15.0 * across2 - 7.0 * across2 * across2 - 11.0 * along2
    tip_y = nose.nose_length
    depth += (nose.nose_height * 0.95) * bump(x, y, centre=(0.0, tip_y - 3.0), radius=(7.5, 8.5))
    depth += nose.bridge_height * 0.8 * bump(x, y, centre=(0.0, 3.0), radius=(6.5, 10.0))
    result: Field = depth
    return result


def _unproject(person: Person, u: Field, v: Field, yaw: float, pitch: float) -> tuple[Field, Field, Field]:
    """Face coordinates and camera depth for points of the camera plane, by fixed-point iteration on z."""
    sin_yaw, cos_yaw = np.float32(np.sin(yaw)), np.float32(np.cos(yaw))
    sin_pitch, cos_pitch = np.float32(np.sin(pitch)), np.float32(np.cos(pitch))
    z = np.zeros_like(u)
    x, y, turned = u, v, z
    for _ in range(4):
        x = (u - z * sin_yaw) / cos_yaw
        turned = z * cos_yaw - x * sin_yaw
        y = (v + turned * sin_pitch) / cos_pitch
        z = 0.3 * z + 0.7 * _proxy_depth(person, x, y)
    return x, y, y * sin_pitch + turned * cos_pitch


@functools.lru_cache(maxsize=1024)
def _outline_radius(person: Person) -> np.ndarray:
    """Radius of the head's outline about (0, 5) for `_OUTLINE_BINS` angles from the crown to the chin."""
    bones = person.bones
    w, chin = bones.width, bones.chin_length
    jaw, cheek, square = w * bones.jaw, 0.5 * bones.cheek_fullness, bones.squareness
    halves = [
        (0.0, -bones.crown),
        (0.62 * w * bones.forehead, -bones.crown * 0.90),
        (0.90 * w * bones.forehead, -bones.crown * 0.64),
        (0.985 * w * bones.forehead, -24.0),
        (1.0 * w, -5.0),
        (0.995 * w + 0.4 * bones.cheekbone, 11.0),
        (0.945 * jaw + 0.03 * w + cheek, 25.0),
        (0.845 * jaw + cheek + 0.9 * square, 38.0 + 0.8 * square),
        (0.655 * jaw + 0.5 * cheek + 1.2 * square, chin - 12.0 + 0.7 * square),
        (0.40 * jaw * (0.55 + 0.45 * bones.chin_width) + 0.9 * square, chin - 3.2),
        (0.20 * jaw * (0.5 + 0.5 * bones.chin_width) + 0.4 * square, chin - 0.4),
        (0.0, chin),
    ]
    angle = np.array([np.arctan2(x, -(y - 5.0)) for x, y in halves])
    radius = np.array([np.hypot(x, y - 5.0) for x, y in halves])
    table = np.interp(np.linspace(0.0, np.pi, _OUTLINE_BINS), angle, radius)
    mirrored = np.concatenate([table[::-1], table, table[::-1]])
    kernel = np.hanning(45)
    smooth = np.convolve(mirrored, kernel / kernel.sum(), mode="same")[_OUTLINE_BINS : 2 * _OUTLINE_BINS]
    return smooth.astype(np.float32)


def _outline(person: Person, x: Field, y: Field, jaw_drop: float) -> Field:
    lowered = y - jaw_drop * clip((y - 30.0) * (1.0 / 25.0), 0.0, 1.0)
    centred_x = np.abs(x + np.float32(person.bones.asymmetry) * clip((y - 5.0) * 0.02, 0.0, 1.0))
    radius, angle = cv2.cartToPolar(5.0 - lowered, centred_x)
    bins = np.minimum((angle * np.float32(_OUTLINE_BINS / np.pi)).astype(np.int32), _OUTLINE_BINS - 1)
    distance: Field = radius - _outline_radius(person)[bins]
    return distance
