"""Objects around and in front of the head: background, neck, clothes, ears, and occlusions."""

from __future__ import annotations

import cv2
import numpy as np

from ppfr.synthetic._capture import Capture, Occlusion
from ppfr.synthetic._fields import blend, clip, cover
from ppfr.synthetic._geometry import View
from ppfr.synthetic._identity import Person
from ppfr.synthetic._noise import sample_textures

_CLOTHS = np.array([(0.35, 0.62, 0.74), (0.8, 0.8, 0.8), (0.03, 0.03, 0.035), (0.25, 0.32, 0.45)], dtype=np.float32)


def background(capture: Capture, size: int) -> np.ndarray:
    """(3, size, size) linear light: a wall, a gradient, or a blurred room."""
    rng = np.random.Generator(np.random.PCG64(capture.scene))
    level = float(rng.uniform(0.03, 0.7))
    tint = level * (1.0 + 0.14 * rng.standard_normal(3))
    cells = int(rng.integers(2, 7))
    busyness = float(rng.random()) ** 1.5
    small = tint + level * busyness * 0.7 * (
        rng.standard_normal((cells, cells, 1)) + 0.22 * rng.standard_normal((cells, cells, 3))
    )
    side = max(16, size // 4)
    large = cv2.resize(small.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 5))):
        left, top = rng.uniform(-0.2, 0.9, 2) * side
        width, height = rng.uniform(0.08, 0.7, 2) * side
        colour = rng.uniform(0.0, 0.9) * (1.0 + 0.2 * rng.standard_normal(3))
        corners = (int(left), int(top)), (int(left + width), int(top + height))
        cv2.rectangle(large, *corners, tuple(float(v) for v in colour), -1)
    large = cv2.GaussianBlur(large, (0, 0), float(rng.uniform(0.4, 1.2)) * side / 28.0)
    large = cv2.resize(large, (size, size), interpolation=cv2.INTER_CUBIC)
    result: np.ndarray = np.maximum(np.stack(cv2.split(large)), 0.004)
    return result


def paint_body(image: np.ndarray, person: Person, capture: Capture, view: View, brightness: np.ndarray) -> None:
    """Neck and clothes, behind the head."""
    bones = person.bones
    rows = view.window(0.0, 125.0, -15.0, 0.0, 100.0)[0]  # all rows below the middle of the cheeks
    x, y, patch = view.x[rows], view.y[rows], image[:, rows]
    if patch.size == 0:
        return
    side = np.abs(x)
    flare = clip(y - 60.0, 0.0, 60.0)
    column = np.maximum(side - np.float32(0.74 * bones.width) - 0.004 * flare * flare, 25.0 - y)
    under = clip((view.outline[rows] - 1.0) * 0.045, 0.0, 0.6) + 0.28
    tone = (np.array(person.skin.tone) * brightness).astype(np.float32)[:, None, None]
    blend(patch, cover(column, view.density), tone * under)
    if float(y.max()) < bones.chin_length + 10.0:
        return
    shoulder = np.float32(bones.chin_length + 15.0) + 0.16 * side + 9.0 * np.exp(-((x * 0.055) ** 2))
    folds = 0.85 + 0.15 * np.sin(x * 0.13 + 0.05 * y)
    cloth = (np.array(capture.clothes) * brightness).astype(np.float32)[:, None, None]
    blend(patch, cover(shoulder - y, view.density), cloth * folds)


def paint_ears(image: np.ndarray, person: Person, view: View, diffuse: np.ndarray) -> None:
    """Both ears, behind the cheeks."""
    bones = person.bones
    tone = (np.array(person.skin.tone) * (0.95, 0.78, 0.74)).astype(np.float32)[:, None, None]
    for side in (-1.0, 1.0):
        rows, columns = view.window(side * bones.width, bones.ear_y, -22.0, 11.0, 15.0)
        patch = image[:, rows, columns]
        if patch.size == 0:
            continue
        dx = (side * view.x[rows, columns] - np.float32(bones.width - 0.2)) * np.float32(1.0 / (4.4 * bones.ear_size))
        dy = (view.y[rows, columns] - np.float32(bones.ear_y)) * np.float32(1.0 / (9.5 * bones.ear_size))
        lobe = dx + 0.25 * dy
        radius = np.sqrt(lobe * lobe + dy * dy)
        shade = 0.55 + 0.45 * clip(np.abs(radius - 0.55) * 3.0, 0.0, 1.0)
        ear = tone * shade * np.maximum(diffuse[:, rows, columns], 0.12)
        blend(patch, cover((radius - 1.0) * 5.0, view.density), ear)


def paint_occlusions(image: np.ndarray, person: Person, capture: Capture, view: View, diffuse: np.ndarray) -> None:
    """Spectacles, and at most one of sunglasses, mask, hand and hat."""
    kind = capture.occlusion
    gap = person.eyes.half_gap
    if kind is not Occlusion.SUNGLASSES and capture.wears_glasses < person.glasses:
        _paint_glasses(image, capture, view, diffuse, style=person.glasses_style, half_gap=gap, lens=0.07)
    if kind is Occlusion.NONE:
        return
    rng = np.random.Generator(np.random.PCG64(capture.scene + 1))
    colour = (rng.uniform(0.04, 0.6) * (0.45 + 0.9 * rng.random(3))).astype(np.float32)
    if kind is Occlusion.SUNGLASSES:
        style = tuple(float(value) for value in rng.random(5))
        _paint_glasses(image, capture, view, diffuse, style=style, half_gap=gap, lens=0.94)
    elif kind is Occlusion.MASK:
        _paint_mask(image, person, view, diffuse, _CLOTHS[int(rng.integers(len(_CLOTHS)))])
    elif kind is Occlusion.HAND:
        _paint_hand(image, person, view, rng, diffuse)
    elif kind is Occlusion.HAT:
        _paint_hat(image, person, view, diffuse, rng=rng, colour=colour)


def _paint_glasses(
    image: np.ndarray,
    capture: Capture,
    view: View,
    diffuse: np.ndarray,
    *,
    style: tuple[float, ...],
    half_gap: float,
    lens: float,
) -> None:
    width, height, square, thick, dark = style
    half_width, half_height = 11.5 + 3.0 * width, 7.0 + 3.5 * height
    power = 2.0 + 4.0 * square
    rows, columns = view.window(0.0, 2.0, -2.0, 50.0, 16.0)
    x, y = view.x[rows, columns], view.y[rows, columns]
    centre = half_gap + 0.8
    dx = np.abs((np.abs(x) - centre) * np.float32(1.0 / half_width))
    dy = np.abs((y - 1.5) * np.float32(1.0 / half_height))
    radius = (np.minimum(dx, 3.0) ** power + np.minimum(dy, 3.0) ** power) ** np.float32(1.0 / power)
    distance = (radius - 1.0) * np.float32(min(half_width, half_height))
    line = np.float32(0.45 + 0.95 * thick)
    rim = cover(np.abs(distance) - line, view.density)
    bridge = cover(
        np.maximum(np.abs(y + 1.5) - line * 0.9, np.abs(x) - np.float32(centre - half_width + 0.5)), view.density
    )
    arms = cover(np.maximum(np.abs(y + 1.0) - line, np.float32(centre + half_width) - np.abs(x)), view.density)
    arms = arms * (view.outline[rows, columns] < 1.0)
    patch, light = image[:, rows, columns], diffuse[:, rows, columns]
    tilt = clip((x * capture.light.towards[0] - y + 12.0) * 0.03, 0.0, 1.0) * capture.light.hardness
    glass = np.full_like(patch, 0.02) + 0.25 * tilt * light
    blend(patch, cover(distance, view.density) * np.float32(lens), glass)
    tone = np.array([0.36, 0.25, 0.16]) * (0.9 - 0.8 * dark) if square < 0.7 else np.full(3, 0.03 + 0.3 * (1.0 - dark))
    frame = tone.astype(np.float32)[:, None, None] * clip(light, 0.3, 1.5)
    blend(patch, np.maximum(np.maximum(rim, bridge), arms), frame)


def _paint_mask(image: np.ndarray, person: Person, view: View, diffuse: np.ndarray, colour: np.ndarray) -> None:
    x, y = view.x, view.y
    top = np.float32(person.nose_mouth.nose_length - 9.0) + 0.0125 * x * x - 0.000003 * x**4
    distance = np.maximum(np.maximum(top - y, view.outline - 0.8), y - np.float32(person.bones.chin_length + 2.0))
    pleats = 1.0 - 0.14 * clip(np.sin((y - 0.006 * x * x) * 0.55), 0.0, 1.0) ** 2
    blend(image, cover(distance, view.density), colour[:, None, None] * pleats * diffuse)
    straps = np.abs(y - 12.0 - 0.25 * (np.abs(x) - 36.0)) - 0.7
    strap = cover(np.maximum(np.maximum(straps, 30.0 - np.abs(x)), view.outline), view.density)
    blend(image, strap, colour[:, None, None] * diffuse * 0.9)


def _paint_hand(image: np.ndarray, person: Person, view: View, rng: np.random.Generator, diffuse: np.ndarray) -> None:
    """Three or four fingers over a cheek, the chin or the forehead."""
    size, unit = view.size, view.density
    side = float(rng.choice((-1.0, 1.0)))
    base = np.array([size / 2 + side * rng.uniform(30.0, 48.0) * unit, size / 2 + rng.uniform(5.0, 60.0) * unit])
    aim = np.array([size / 2 + side * rng.uniform(6.0, 24.0) * unit, size / 2 + rng.uniform(-30.0, 40.0) * unit])
    along = (aim - base) / max(float(np.linalg.norm(aim - base)), 1.0)
    across = np.array([-along[1], along[0]])
    length = float(rng.uniform(26.0, 44.0)) * unit
    mask = np.zeros((size, size), np.uint8)
    ridge = np.zeros((size, size), np.uint8)
    for finger, share in enumerate((0.82, 0.97, 1.0, 0.86)):
        start = base + across * (finger - 1.5) * 7.6 * unit
        fan = (finger - 1.5) * float(rng.uniform(0.02, 0.10))
        end = start + (along * np.cos(fan) + across * np.sin(fan)) * length * share
        points = [tuple(int(v) for v in np.round(point * 16)) for point in (start - along * 60 * unit, end)]
        thick = max(2, round((7.6 + 0.6 * (finger in {1, 2})) * unit))
        cv2.line(mask, points[0], points[1], 255, thick, cv2.LINE_AA, 4)
        cv2.line(ridge, points[0], points[1], 255, max(1, thick // 2), cv2.LINE_AA, 4)
    alpha = cv2.GaussianBlur(mask, (0, 0), 0.6 * unit).astype(np.float32) / 255.0
    form = 0.55 + 0.5 * cv2.GaussianBlur(ridge, (0, 0), 1.5 * unit).astype(np.float32) / 255.0
    lit = diffuse.mean(axis=(1, 2))
    blend(image, alpha, (np.array(person.skin.tone, np.float32) * lit)[:, None, None] * form)


def _paint_hat(
    image: np.ndarray, person: Person, view: View, diffuse: np.ndarray, *, rng: np.random.Generator, colour: np.ndarray
) -> None:
    """A knitted or peaked cap that covers half of the forehead."""
    x, y = view.x, view.y
    is_knitted = rng.random() < 0.5
    edge = np.float32(rng.uniform(-33.0, -24.0)) + 0.004 * x * x
    cap = cover(np.maximum(view.outline - 5.0, y - edge), view.density)
    pattern = 1.0 + 0.18 * np.sin(x * (1.3 if is_knitted else 0.12)) + 0.1 * sample_textures(x, y)[:, :, 1] * is_knitted
    lit = clip(diffuse.mean(axis=(1, 2)), 0.15, 1.4)[:, None, None]
    shape = clip(1.05 - 0.00035 * x * x, 0.4, 1.0)
    if not is_knitted:
        shadow = clip(1.0 - (y - edge) * 0.05, 0.0, 1.0) * (y > edge) * (np.abs(x) < 1.05 * person.bones.width)
        image *= 1.0 - 0.5 * shadow
    blend(image, cap, colour[:, None, None] * pattern * shape * lit)
    band = np.abs(y - edge + 1.0) - np.where(is_knitted, 4.0, 2.6 - 0.001 * x * x)
    limit = view.outline - (5.5 if is_knitted else 7.0)
    blend(
        image, cover(np.maximum(band, limit), view.density), colour[:, None, None] * lit * (0.8 if is_knitted else 0.55)
    )
