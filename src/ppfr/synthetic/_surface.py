"""The relief of the face, and the resulting light, shade and colour.

These fields are smooth, so they are computed on the coarse grid. Every bump and hollow is a Gaussian. One matrix
product over (x^2, |x|, y^2, y, 1) gives the exponents of all of them, and a second product sums them into the fields.
"""

from __future__ import annotations

import cv2
import numpy as np

from ppfr.synthetic._capture import Capture, Light
from ppfr.synthetic._fields import Field, clip
from ppfr.synthetic._geometry import View, enlarge, mouth_corner_y, mouth_half_width
from ppfr.synthetic._identity import Person

# (centre x, centre y, radius x, radius y, relief, shade, redness); mirrored in x.
Hill = tuple[float, float, float, float, float, float, float]


def light_surface(person: Person, capture: Capture, view: View) -> tuple[Field, Field, Field]:
    """Light on the face at the crop's resolution.

    Returns:
        (3, H, W) diffuse light, (H, W) highlights, (H, W) redness of the skin.
    """
    hills = _hills(person, capture, view.jaw_drop)
    relief, shade, redness = _sum_hills(hills, view.coarse_x, view.coarse_y)
    depth = view.coarse_depth + relief * np.float32(view.facing)
    spacing = 2.0 / view.density
    normal_x, normal_y, normal_z = _normals(depth, spacing)
    light = capture.light
    towards = light.towards
    facing = normal_x * towards[0] + normal_y * towards[1] + normal_z * towards[2]
    wrap = 0.45 - 0.3 * light.hardness
    lambert = clip((facing + wrap) * (1.0 / (1.0 + wrap)), 0.0, 1.0)
    lambert *= 1.0 - (0.35 + 0.5 * light.hardness) * _cast_shadow(depth, light, spacing)
    upward = 0.5 - 0.5 * normal_y
    open_sky = 1.0 - 0.9 * clip(shade, 0.0, 0.8)
    planes = [
        (light.key[c] * lambert + (light.sky[c] - light.ground[c]) * upward + light.ground[c]) * open_sky
        for c in range(3)
    ]
    half_x, half_y, half_z = towards[0], towards[1], towards[2] + 1.0
    length = float(np.sqrt(half_x**2 + half_y**2 + half_z**2))
    gleam = clip((normal_x * half_x + normal_y * half_y + normal_z * half_z) * (1.0 / length), 0.0, 1.0)
    gleam = gleam**2
    gleam = gleam**2
    gleam = gleam**2
    gleam = np.minimum(gleam * gleam * (0.4 + 0.6 * gleam) * lambert * open_sky, 0.5)
    lit = enlarge(np.dstack([*planes, gleam.astype(np.float32)]), view.size)
    diffuse = np.maximum(lit[:, :, :3].transpose(2, 0, 1), 0.0, order="C")
    return diffuse, np.ascontiguousarray(lit[:, :, 3]), enlarge(redness, view.size)


def _sum_hills(hills: list[Hill], x: Field, y: Field) -> tuple[Field, Field, Field]:
    table = np.array(hills, dtype=np.float32)
    centre_x, centre_y, inverse_x, inverse_y = table[:, 0], table[:, 1], 1.0 / table[:, 2] ** 2, 1.0 / table[:, 3] ** 2
    weights = np.stack(
        [
            -inverse_x,
            2.0 * centre_x * inverse_x,
            -inverse_y,
            2.0 * centre_y * inverse_y,
            -(centre_x**2) * inverse_x - centre_y**2 * inverse_y,
        ],
        axis=1,
    )
    across, along = np.abs(x).ravel(), y.ravel()
    basis = np.stack([across * across, across, along * along, along, np.ones_like(across)])
    fields = table[:, 4:].T @ np.exp(np.minimum(weights @ basis, 0.0))
    relief, shade, redness = fields.reshape(3, *x.shape)
    return relief, shade, redness


def _hills(person: Person, capture: Capture, jaw_drop: float) -> list[Hill]:
    bones, eyes, face, age = person.bones, person.eyes, person.nose_mouth, person.age
    smile, brows = capture.expression.smile, capture.expression.brows
    joy = max(smile, 0.0)
    tip, mouth_y = face.nose_length, face.mouth_y
    half, corner_y = mouth_half_width(person, capture), mouth_corner_y(person, capture)
    low = mouth_y + jaw_drop * 0.8
    chin_y = bones.chin_length - 8.5 + jaw_drop
    hills: list[Hill] = [
        (13.0, eyes.brow_y + 2.0, 11.0, 4.5, 1.6 * bones.brow_ridge, 0.0, 0.0),
        (eyes.half_gap, -1.5, 8.5, 6.0, -2.7 * bones.socket_depth, 0.16 * bones.socket_depth, 0.05),
        (7.5, -1.0, 4.0, 6.5, -1.6 * bones.socket_depth, 0.22, 0.05),
        (eyes.half_gap, 0.5, 6.2, 4.2, 1.4, 0.0, 0.0),
        (eyes.half_gap, 6.8, 7.5, 2.2, 0.5 * eyes.bags, 0.10 * eyes.bags, 0.08),
        (24.0, bones.cheekbone_y, 11.0, 8.0, 2.2 * bones.cheekbone, 0.0, 0.25),
        (24.0, 34.0, 9.0, 11.0, 1.3 * bones.cheek_fullness - 1.0 * age, 0.05 * age, 0.15),
        (19.0, 22.0, 9.0, 7.0, 1.9 * joy, 0.0, 0.5 + 0.3 * joy),
        (36.0, -22.0, 8.0, 14.0, -1.8, 0.05, 0.0),
        (0.0, tip, face.tip_size, face.tip_size * 0.9, 3.4, -0.04, 0.55),
        (face.alar_width * 0.82, tip + 1.6, face.alar_size, face.alar_size, 2.6, 0.0, 0.3),
        (0.0, tip * 0.45, face.bridge_width, tip * 0.45, 2.3, -0.05, 0.0),
        (0.0, tip * 0.42, 3.0, 4.5, 1.3 * face.hump, 0.0, 0.0),
        (face.bridge_width + 5.0, tip * 0.55, 3.2, 7.0, -1.1, 0.13, 0.0),
        (face.alar_width + 3.4, tip + 1.0, 2.0, 3.5, -1.6, 0.2, 0.2),
        (0.0, tip + 4.8 - 0.5 * face.upturn, face.alar_width * 0.8, 2.4, -1.2, 0.38, 0.2),
        (0.0, tip + 10.0, 1.7, 3.6, -0.55 * face.philtrum, 0.05 * face.philtrum, 0.0),
        (0.0, mouth_y - 1.0, 15.0, 11.0, 2.6 * bones.muzzle, 0.0, 0.0),
        (0.0, mouth_y - 0.55 * face.upper_lip, half * 0.75, 0.75 * face.upper_lip, 1.0, 0.0, 0.0),
        (0.0, low + 0.6 * face.lower_lip, half * 0.6, 0.65 * face.lower_lip, 1.8, 0.0, 0.0),
        (0.0, low + face.lower_lip + 3.2, 10.5, 2.8, -1.7, 0.26, 0.0),
        (half + 1.8, corner_y + 0.5, 2.3, 2.6, -1.0 - 0.8 * joy, 0.16, 0.0),
        (0.0, chin_y, 9.5, 6.5, 2.9 * bones.chin_relief, 0.0, 0.2),
        (0.0, chin_y + 1.0, 1.6, 4.5, -0.9 * max(0.0, bones.chin_relief - 1.2), 0.0, 0.0),
    ]
    fold = 0.35 + 0.9 * age + 0.8 * joy
    start, end = np.array([face.alar_width + 2.6, tip + 2.5]), np.array([half + 4.6, corner_y + 1.0])
    for part in (0.15, 0.45, 0.75, 1.0):
        x, y = start + (end - start) * part
        hills.append((float(x), float(y), 2.2, 3.0, -0.38 * fold, 0.06 * fold, 0.0))
        hills.append((float(x) + 4.0, float(y) - 1.0, 3.4, 3.8, 0.3 * fold, 0.0, 0.0))
    frown = max(-brows, 0.0) + 0.5 * age
    hills.append((2.6, eyes.brow_y + 1.0, 1.5, 3.5, -0.7 * frown, 0.1 * frown, 0.0))
    return hills


def _normals(depth: Field, spacing: float) -> tuple[Field, Field, Field]:
    scale = 1.0 / (8.0 * spacing)
    slope_x = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3, scale=scale)
    slope_y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3, scale=scale)
    normal_z = 1.0 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1.0)
    return -slope_x * normal_z, -slope_y * normal_z, normal_z


def _cast_shadow(depth: Field, light: Light, spacing: float) -> Field:
    """Share of the key light that the relief blocks, 0 to 1."""
    x, y, z = light.towards
    level = float(np.hypot(x, y))
    if level < 0.15:
        return np.zeros_like(depth)
    rise = z / level
    blocked = np.zeros_like(depth)
    for distance in (4.0, 7.0, 11.0, 16.0):
        shift = np.array([[1.0, 0.0, x / level * distance / spacing], [0.0, 1.0, y / level * distance / spacing]])
        moved = cv2.warpAffine(
            depth,
            shift,
            depth.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        blocked = np.maximum(blocked, moved - depth - np.float32(distance * rise))
    shadow: Field = cv2.GaussianBlur(clip(blocked * 0.4, 0.0, 1.0), (5, 5), 0.9)
    return shadow
