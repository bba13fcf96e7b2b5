"""Eyes, brows, nose, mouth, ears and lines, painted onto the skin's albedo (linear light, (3, H, W))."""

from __future__ import annotations

import cv2
import numpy as np

from ppfr.synthetic._capture import Capture
from ppfr.synthetic._fields import Field, blend, bump, clip, cover
from ppfr.synthetic._geometry import View, mouth_corner_y, mouth_half_width
from ppfr.synthetic._identity import Colour, Person

_SCLERA: Colour = (0.56, 0.53, 0.50)
_TEETH: Colour = (0.66, 0.62, 0.54)
_FOREHEAD_LINE = [(float(x), float(0.0035 * x * x - 0.9 * np.cos(x * 0.3))) for x in np.linspace(-19.0, 19.0, 9)]
_CHEEK_FOLD = [(float(t), float(1.4 * np.sin(np.pi * t))) for t in np.linspace(0.0, 1.0, 6)]


def paint_eye(albedo: np.ndarray, person: Person, capture: Capture, view: View, side: float) -> None:
    """One eye with its lids; `side` is -1 for the left one as seen, 1 for the right one."""
    eyes, expression = person.eyes, capture.expression
    rows, columns = view.window(side * eyes.half_gap, 0.0, -4.0, 14.0, 12.0)
    patch = albedo[:, rows, columns]
    if patch.size == 0:
        return
    out = side * view.x[rows, columns] - eyes.half_gap
    down = view.y[rows, columns] - np.float32(eyes.tilt) * out
    span = out * np.float32(1.0 / eyes.half_width)
    arch = np.maximum(1.0 - span * span, np.float32(-0.25))
    squint = 1.0 - 0.3 * max(expression.smile, 0.0)
    shut = min(expression.lids_shut, 0.97)
    lower_height = eyes.lower_lid * eyes.half_width * squint
    upper_height = (
        eyes.openness * eyes.half_width * (1.0 - shut) * (1.0 + 0.12 * expression.brows) - 0.8 * shut * lower_height
    )
    upper = -np.float32(upper_height) * arch * (1.0 + np.float32(eyes.peak) * span)
    lower = np.float32(lower_height) * arch * (1.0 + 0.25 * span)
    opening = np.minimum(down - upper, lower - down)
    near = clip(1.35 - np.abs(span), 0.0, 0.35) * np.float32(1.0 / 0.35)
    fold = down - upper + np.float32(1.5 + 0.75 * eyes.crease + 0.6 * shut)
    crease = 0.42 * min(1.0, max(0.0, eyes.crease + 0.5)) + 0.2 * person.age
    patch *= 1.0 - crease * near * np.exp(-(fold * fold) * 1.6)
    sag = down - lower - 1.2
    patch *= 1.0 - (0.13 + 0.12 * person.age) * near * np.exp(-(sag * sag) * 0.8)
    open_alpha = cover(-opening, view.density)
    blend(
        patch,
        open_alpha,
        _eyeball(person, capture, out=out, down=down, upper=upper, span=span, side=side, density=view.density),
    )
    lash = (down - upper + 0.25) * np.float32(1.0 / (0.55 + 0.4 * eyes.lashes))
    lash_alpha = (
        np.exp(-lash * lash) * near * np.float32(0.5 + 0.4 * min(eyes.lashes, 1.2)) * clip(1.15 + 0.5 * span, 0.5, 1.0)
    )
    blend(patch, np.minimum(lash_alpha, 0.95), np.array(person.hair.brow_colour) * 0.25)
    rim = (down - lower) * np.float32(1.4)
    blend(patch, 0.28 * np.exp(-rim * rim) * near, np.array(person.skin.tone) * (0.55, 0.38, 0.36))


def _eyeball(
    person: Person, capture: Capture, *, out: Field, down: Field, upper: Field, span: Field, side: float, density: float
) -> np.ndarray:
    eyes = person.eyes
    gaze_x, gaze_y = capture.expression.gaze
    shading = clip(0.45 + 0.2 * (down - upper), 0.3, 1.0) * (1.0 - 0.22 * span * span)
    ball: np.ndarray = np.array(_SCLERA, dtype=np.float32)[:, None, None] * shading
    dx, dy = out - np.float32(side * gaze_x), down - np.float32(gaze_y - 0.5)
    radius = np.sqrt(dx * dx + dy * dy) * np.float32(1.0 / eyes.iris_radius)
    ring = clip(0.55 + 0.75 * radius, 0.0, 1.15) * (1.0 - 0.75 * clip((radius - 0.78) * 4.0, 0.0, 1.0))
    iris = np.array(eyes.iris, dtype=np.float32)[:, None, None] * (ring * clip(shading + 0.15, 0.0, 1.0))
    iris *= clip((radius - 0.40) * np.float32(density * eyes.iris_radius) + 0.5, 0.03, 1.0)
    blend(ball, cover((radius - 1.0) * np.float32(eyes.iris_radius), density), iris)
    x, y, _ = capture.light.towards
    spark_x, spark_y = dx - np.float32(side * 1.7 * x), dy - np.float32(min(1.6 * y, -0.5))
    spark = np.exp(-(spark_x * spark_x + spark_y * spark_y) * 2.4)
    blend(ball, spark * np.float32(0.5 + 0.4 * capture.light.hardness), (0.95, 0.95, 0.95))
    return ball


def paint_brow(albedo: np.ndarray, person: Person, capture: Capture, view: View, *, side: float, hairs: Field) -> None:
    """One brow; `hairs` is the grain texture over the crop."""
    eyes, raised = person.eyes, capture.expression.brows
    centre_x = eyes.brow_length + 8.0 + eyes.brow_gap
    y = eyes.brow_y - 2.4 * raised
    rows, columns = view.window(side * centre_x, y, -3.0, 16.0, 9.0)
    patch = albedo[:, rows, columns]
    if patch.size == 0:
        return
    out = (side * view.x[rows, columns] - centre_x) * np.float32(1.0 / eyes.brow_length)
    tilt = eyes.brow_tilt * eyes.brow_length - 1.1 * min(raised, 0.0)
    middle = np.float32(y) + np.float32(tilt) * out - np.float32(eyes.brow_arch) * (1.0 - (out - 0.3) ** 2 * 0.6)
    thickness = np.float32(eyes.brow_thickness) * clip(
        1.0 - (0.28 + 0.2 * eyes.brow_taper) * out - 0.22 * out * out, 0.1, 1.6
    )
    ends = clip((1.0 - np.abs(out)) * 4.0 + 0.35, 0.0, 1.0)
    inside = clip(0.6 + (thickness - np.abs(view.y[rows, columns] - middle)) * 0.7, 0.0, 1.0)
    alpha = inside * ends * clip(0.9 + 0.16 * hairs[rows, columns], 0.2, 1.1) * np.float32(eyes.brow_density)
    blend(patch, np.minimum(alpha, 0.97), person.hair.brow_colour)


def paint_nose(albedo: np.ndarray, person: Person, view: View, pitch: float) -> None:
    """Nostrils and the rims of the wings; the rest of the nose is relief."""
    face = person.nose_mouth
    y = face.nose_length + 3.3 - 0.5 * face.upturn
    rows, columns = view.window(0.0, y, face.nose_height * 0.6, 15.0, 9.0)
    patch = albedo[:, rows, columns]
    if patch.size == 0:
        return
    across, down = np.abs(view.x[rows, columns]), view.y[rows, columns]
    seen = min(max(0.85 + 0.25 * face.upturn + 1.2 * pitch, 0.25), 1.2)
    slanted = down - np.float32(y) + 0.25 * (across - np.float32(0.48 * face.alar_width))
    hole = bump(
        across, slanted, centre=(0.46 * face.alar_width, 0.0), radius=(1.9 * face.nostril, 1.05 * face.nostril * seen)
    )
    blend(patch, clip(1.25 * hole, 0.0, 1.0) * 0.86, np.array(person.skin.tone) * (0.10, 0.05, 0.04))
    dx, dy = across - np.float32(face.alar_width * 0.72), (down - np.float32(face.nose_length + 1.0)) * 0.85
    wing = np.sqrt(dx * dx + dy * dy) - np.float32(face.alar_size * 1.02)
    rim = np.exp(-(wing * wing) * 1.4) * clip((dx + 0.4) * 0.7, 0.0, 1.0)
    patch *= 1.0 - 0.3 * rim


def paint_mouth(albedo: np.ndarray, person: Person, capture: Capture, view: View) -> None:
    """Lips, the line between them, and what an open mouth shows."""
    face, expression = person.nose_mouth, capture.expression
    half, corner_y = mouth_half_width(person, capture), mouth_corner_y(person, capture)
    gap = view.jaw_drop
    rows, columns = view.window(0.0, face.mouth_y + gap * 0.4, 0.0, half + 6.0, 13.0 + gap)
    patch = albedo[:, rows, columns]
    if patch.size == 0:
        return
    x, y = view.x[rows, columns], view.y[rows, columns]
    span = x * np.float32(1.0 / half)
    span2 = span * span
    arch = np.maximum(1.0 - span2, 0.0)
    thin = 1.0 - 0.22 * max(expression.smile, 0.0)
    line = np.float32(face.mouth_y) + np.float32(corner_y - face.mouth_y) * span2
    line = line + np.float32(0.5 * face.bow) * np.exp(-span2 * 14.0)
    bow = 1.0 - np.float32(0.42 * face.bow) * np.exp(-span2 * 30.0)
    top = line - np.float32(face.upper_lip * thin) * arch * bow * (1.0 + 0.12 * np.cos(span * 6.0))
    inner = line + np.float32(gap) * arch
    bottom = inner + np.float32(face.lower_lip * thin) * np.sqrt(arch) * (0.72 + 0.28 * arch)
    lips = cover(np.maximum(top - y, y - bottom), view.density * 0.7)
    is_upper = clip(0.5 + (line + 0.5 * gap - y) * 0.8, 0.0, 1.0)
    tone = np.asarray(face.lip, dtype=np.float32)[:, None, None]
    shine = 1.0 + 0.22 * np.exp(-(((y - (inner + bottom) * 0.5) * 0.7) ** 2)) * (1.0 - span2)
    blend(patch, lips * 0.9, tone * (shine - 0.26 * is_upper))
    if gap > 0.4:
        _paint_gap(
            patch,
            x=x,
            y=y,
            line=line,
            inner=inner,
            density=view.density,
            smile=max(expression.smile, 0.3 * expression.mouth_open),
        )
    crack = (y - line) * 1.5
    width = clip((1.08 - np.abs(span)) * 8.0, 0.0, 1.0)
    patch *= 1.0 - (0.72 if gap <= 0.4 else 0.4) * np.exp(-crack * crack) * width


def _paint_gap(
    patch: np.ndarray, *, x: Field, y: Field, line: Field, inner: Field, density: float, smile: float
) -> None:
    opening = cover(np.maximum(line - y, y - inner), density)
    blend(patch, opening, (0.030, 0.009, 0.008))
    teeth = cover(np.maximum(line - y, y - np.minimum(inner, line + 3.3)), density) * np.float32(min(1.0, 0.35 + smile))
    shade = 1.0 - 0.16 * np.abs(np.sin(x * 1.05)) ** 6 - 0.02 * np.abs(x)
    blend(patch, teeth * 0.92, np.array(_TEETH, dtype=np.float32)[:, None, None] * np.maximum(shade, 0.3))


def ink_lines(person: Person, capture: Capture, view: View) -> Field:
    """Wrinkles, moles and spots as a darkness in [0, 1]."""
    canvas = np.zeros((view.size, view.size), np.uint8)
    lines = [line for line in _wrinkles(person, capture) if line[1] > 0.02]
    marks = [(x, y) for path, _ in lines for x, y in path] + [(spot[0], spot[1]) for spot in person.skin.spots]
    pixels = np.round(view.project(_on_head(marks)) * 16.0).astype(np.int32)
    thickness = max(1, round(0.9 * view.density))
    start = 0
    for path, darkness in lines:
        stroke = pixels[start : start + len(path)]
        cv2.polylines(canvas, [stroke], False, int(min(darkness, 0.8) * 255), thickness, cv2.LINE_AA, 4)
        start += len(path)
    for (_, _, radius, darkness), (column, row) in zip(person.skin.spots, pixels[start:].tolist(), strict=True):
        cv2.circle(canvas, (column, row), round(radius * view.density * 16.0), int(darkness * 255), -1, cv2.LINE_AA, 4)
    blurred: Field = cv2.GaussianBlur(canvas, (0, 0), 0.75 * view.density).astype(np.float32) * np.float32(1.0 / 255.0)
    return blurred


def _on_head(marks: list[tuple[float, float]]) -> np.ndarray:
    """(N, 3) points on the head's broad shape."""
    x, y = np.array(marks).reshape(-1, 2).T
    across2, along2 = (x / 41.0) ** 2, ((y - 12.0) / 62.0) ** 2
    return np.stack([x, y, -15.0 * across2 - 7.0 * across2**2 - 11.0 * along2], axis=1)


def _wrinkles(person: Person, capture: Capture) -> list[tuple[list[tuple[float, float]], float]]:
    """Paths on the face and how dark each is."""
    age, expression = person.age, capture.expression
    lines: list[tuple[list[tuple[float, float]], float]] = []
    creases = max(0.0, 1.5 * age - 0.45) + 0.5 * max(expression.brows, 0.0) * (0.3 + age)
    for number in range(3):
        y = -20.5 - 5.0 * number + 0.8 * person.bones.asymmetry
        lines.append(([(x, y + rise) for x, rise in _FOREHEAD_LINE], 0.2 * creases))
    feet = max(0.0, 1.4 * age - 0.35) + 0.45 * max(expression.smile, 0.0) * (0.2 + age)
    fold = 0.10 + 0.42 * age + 0.25 * max(expression.smile, 0.0)
    face, half, corner_y = person.nose_mouth, mouth_half_width(person, capture), mouth_corner_y(person, capture)
    outer = person.eyes.half_gap + person.eyes.half_width
    for side in (-1.0, 1.0):
        for rise in (-2.6, 0.2, 2.8):
            lines.append(
                ([(side * (outer + 2.2 + 1.2 * t), 0.3 * rise + rise * 0.32 * t) for t in (0.0, 1.5, 3.2)], 0.22 * feet)
            )
        start, end = (face.alar_width + 2.4, face.nose_length + 2.0), (half + 4.4, corner_y + 2.0)
        path = [
            (side * (start[0] + (end[0] - start[0]) * t + bulge), start[1] + (end[1] - start[1]) * t)
            for t, bulge in _CHEEK_FOLD
        ]
        lines.append((path, 0.3 * fold))
        bag = [
            (side * (person.eyes.half_gap + x), 6.6 - 0.045 * x * x + 0.9 * person.eyes.bags) for x in (-6, -3, 0, 3, 6)
        ]
        lines.append((bag, 0.16 * person.eyes.bags))
    return lines
