"""Rendering: person and capture to photograph."""

from __future__ import annotations

import numpy as np

from ppfr.synthetic._camera import photograph
from ppfr.synthetic._capture import Capture
from ppfr.synthetic._features import ink_lines, paint_brow, paint_eye, paint_mouth, paint_nose
from ppfr.synthetic._fields import Field, blend, clip, cover
from ppfr.synthetic._geometry import View, look
from ppfr.synthetic._hair import beard_coverage, hair_layers, worn_hair
from ppfr.synthetic._identity import Person
from ppfr.synthetic._noise import sample_textures
from ppfr.synthetic._scene import background, paint_body, paint_ears, paint_occlusions
from ppfr.synthetic._surface import light_surface


def render_capture(person: Person, capture: Capture, size: int, field_of_view: float = 1.0) -> np.ndarray:
    """One photograph, (size, size, 3) uint8 RGB.

    Args:
        person: person in the picture.
        capture: conditions of the capture.
        size: side in pixels, even.
        field_of_view: 1 is the aligned crop; larger values show more around the face.
    """
    view = look(person, capture, size, field_of_view)
    diffuse, gleam, redness = light_surface(person, capture, view)
    brightness = clip(
        diffuse[:, size // 4 : -size // 4 : 4, size // 4 : -size // 4 : 4].reshape(3, -1).mean(axis=1), 0.1, 1.5
    )
    behind, over, hair_colour = hair_layers(person, worn_hair(person.hair, capture), capture, view)
    hair_light = (0.55 * diffuse + 0.45 * brightness[:, None, None]) * np.float32(0.95)
    hair = hair_colour * hair_light
    image = background(capture, size)
    paint_body(image, person, capture, view, brightness)
    blend(image, behind, hair * 0.72)
    paint_ears(image, person, view, diffuse)
    face = _albedo(person, capture, view, redness) * diffuse
    face += (
        gleam
        * np.float32(0.34 * person.skin.gloss * (0.25 + 0.75 * capture.light.hardness))
        * np.array(capture.light.key, dtype=np.float32)[:, None, None]
    )
    blend(image, cover(view.outline, view.density * 0.8), face)
    blend(image, over, hair)
    paint_occlusions(image, person, capture, view, diffuse)
    return photograph(image, capture.camera)


def _albedo(person: Person, capture: Capture, view: View, redness: Field) -> np.ndarray:
    """Skin with everything painted on it, (3, H, W) linear light before shading."""
    skin = person.skin
    u = view.x * np.float32(1.25) + np.float32(skin.texture_offset[0])
    v = view.y * np.float32(1.25) + np.float32(skin.texture_offset[1])
    textures = sample_textures(u, v)
    blotches, grain, freckles = textures[:, :, 0], textures[:, :, 1], textures[:, :, 2]
    tone = np.array(skin.tone, dtype=np.float32)
    uneven = 1.0 + np.float32(skin.mottle) * (0.045 * blotches + 0.035 * grain)
    flush = clip(redness * np.float32(0.8 * skin.blush * capture.flush) + 0.06 * blotches, -0.3, 1.2)
    marks = 1.0 - np.float32(0.38 * skin.freckles) * freckles * clip(1.15 - np.abs(view.y - 14.0) * 0.028, 0.0, 1.0)
    marks = np.minimum(marks, 1.0) * (1.0 - ink_lines(person, capture, view))
    base = uneven * marks
    albedo = np.stack(
        [
            tone[0] * base * (1.0 + 0.02 * flush),
            tone[1] * base * (1.0 - 0.17 * flush),
            tone[2] * base * (1.0 - 0.16 * flush),
        ]
    )
    beard = beard_coverage(person, capture, view, grain)
    if beard is not None:
        strands = clip(0.8 + 0.3 * grain, 0.2, 1.6)
        blend(albedo, beard, np.array(person.hair.brow_colour, dtype=np.float32)[:, None, None] * strands)
    for side in (-1.0, 1.0):
        paint_eye(albedo, person, capture, view, side)
        paint_brow(albedo, person, capture, view, side=side, hairs=grain)
    paint_nose(albedo, person, view, capture.pose.pitch)
    paint_mouth(albedo, person, capture, view)
    return albedo
