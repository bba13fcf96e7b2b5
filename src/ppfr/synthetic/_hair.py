"""Hair of head and beard: coverage, colour and strand texture."""

from __future__ import annotations

import dataclasses

import numpy as np

from ppfr.synthetic._capture import Capture
from ppfr.synthetic._fields import Field, bump, clip, cover
from ppfr.synthetic._geometry import View, mouth_half_width
from ppfr.synthetic._identity import STYLE_TRAITS, BeardStyle, Hair, HairStyle, Person
from ppfr.synthetic._noise import sample_strands

_RESTYLED = 0.4  # share of the captures with another hair style than usual

# Other styles that are possible for hair whose usual style is the key.
_ALSO_WORN = {
    HairStyle.SHORT: (HairStyle.QUIFF, HairStyle.SHORT, HairStyle.BUZZ),
    HairStyle.QUIFF: (HairStyle.SHORT, HairStyle.SHORT, HairStyle.BUZZ),
    HairStyle.BUZZ: (HairStyle.SHORT,),
    HairStyle.LONG: (HairStyle.TIED, HairStyle.FRINGE, HairStyle.LONG),
    HairStyle.FRINGE: (HairStyle.TIED, HairStyle.LONG, HairStyle.SHORT),
    HairStyle.TIED: (HairStyle.LONG, HairStyle.LONG, HairStyle.FRINGE),
    HairStyle.CURLY: (HairStyle.TIED, HairStyle.SHORT),
}


def worn_hair(hair: Hair, capture: Capture) -> Hair:
    """The person's hair in this capture: usually the usual style, sometimes another possible one."""
    others = _ALSO_WORN.get(hair.style, ())
    if capture.restyle >= _RESTYLED or not others:
        return hair
    style = others[int(capture.restyle / _RESTYLED * len(others))]
    usual, worn = STYLE_TRAITS[hair.style], STYLE_TRAITS[style]
    return dataclasses.replace(
        hair,
        style=style,
        volume=hair.volume * worn.volume / usual.volume,
        side_volume=hair.side_volume * worn.side_volume / usual.side_volume,
        side_y=hair.side_y - usual.side_y + worn.side_y,
        waviness=max(0.0, hair.waviness - usual.waviness + worn.waviness),
        part_x=hair.part_x * (-1.0 if capture.restyle < 0.5 * _RESTYLED else 1.0),
    )


def hair_layers(person: Person, hair: Hair, capture: Capture, view: View) -> tuple[Field, Field, np.ndarray]:
    """Coverage behind the head, coverage over the face, and albedo (3, H, W) of the hair."""
    x, y = view.x, view.y
    strands = _strand_texture(hair, capture, x, y)
    bulk = _bulk(person, hair, capture, view=view, strands=strands)
    front = _front(person, hair, capture, view=view, strands=strands)
    side = np.abs(x)
    is_long = hair.side_y > 10.0
    end = np.float32(hair.side_y) + 3.0 * strands
    behind = np.maximum(bulk, (y - end) * (0.35 if is_long else 0.9))
    over = np.maximum(np.maximum(front, bulk), y - end)
    if hair.style is HairStyle.BALD:
        ring = 0.9 * person.bones.width - side + 0.03 * (y + 10.0) ** 2 + strands
        over = np.maximum(ring, bulk) if person.age > 0.4 else np.full_like(x, 9.0)
        behind = np.maximum(bulk, np.abs(y + 8.0) * 0.25 - 3.0)
    soft = 0.28 if hair.style in (HairStyle.BUZZ, HairStyle.BALD) else 0.55
    opacity = 0.82 if hair.style is HairStyle.BUZZ else 0.98
    shade = clip(0.72 + 0.30 * strands, 0.18, 1.7)
    sheen_y = np.float32(-46.0 + 4.0 * capture.light.towards[1])
    sheen = np.exp(-(((y - sheen_y) * 0.11) ** 2)) * clip(0.5 + 0.5 * strands, 0.0, 1.4)
    base = np.array(hair.colour, dtype=np.float32)[:, None, None]
    colour = base * shade + (0.35 * base + 0.035) * (sheen * np.float32(0.3 + 0.7 * capture.light.hardness))
    parts = clip((x - hair.part_x - 4.0 * capture.tousle[1]) * 0.5, -4.0, 4.0)
    if hair.style in (HairStyle.SHORT, HairStyle.LONG, HairStyle.TIED):
        colour *= 1.0 - 0.45 * np.exp(-parts * parts) * (y < -30.0)
    return cover(behind, view.density * soft), opacity * cover(over, view.density * soft), colour


def _strand_texture(hair: Hair, capture: Capture, x: Field, y: Field) -> Field:
    """Strands follow the flow of the style: away from the parting, down the sides, in curls."""
    offset_u, offset_v = (np.float32(value) for value in hair.texture_offset)
    part = np.float32(hair.part_x + 4.0 * capture.tousle[1])
    if hair.style is HairStyle.CURLY:
        twist = 3.0 * np.sin(y * 0.33 + 1.3 * np.sin(x * 0.21))
        return sample_strands(x * 0.8 + offset_u + twist, y * 0.8 + offset_v + 2.5 * np.sin(x * 0.37))
    wave = np.float32(6.0 * hair.waviness) * np.sin(y * 0.16 + 0.05 * x)
    spread = 1.0 + 0.013 * clip(y + 58.0, 0.0, 60.0)
    u = (x - part) * 1.35 / spread + wave + offset_u + np.float32(1.5 * capture.tousle[2])
    along = 0.10 if hair.style in (HairStyle.LONG, HairStyle.TIED, HairStyle.FRINGE) else 0.24
    return sample_strands(
        u.astype(np.float32), (y * np.float32(along) + offset_v + 0.05 * np.abs(x - part)).astype(np.float32)
    )


def _bulk(person: Person, hair: Hair, capture: Capture, *, view: View, strands: Field) -> Field:
    """Signed distance to the hair's outer edge."""
    x, y = view.x, view.y
    tousle = 1.0 + 0.25 * capture.tousle[0]
    top_share = clip((-12.0 - y) * 0.03, 0.0, 1.0)
    volume = np.float32(hair.side_volume * tousle) * (1.0 - top_share) + np.float32(hair.volume * tousle) * top_share
    rough = {HairStyle.CURLY: 1.6, HairStyle.QUIFF: 1.2, HairStyle.BUZZ: 0.2, HairStyle.TIED: 0.3}.get(hair.style, 0.7)
    if hair.style is HairStyle.QUIFF:
        volume = volume + 2.5 * top_share * clip((x * np.float32(np.sign(hair.part_x + 0.01))) * 0.04, -0.8, 0.8)
    distance = view.outline - volume - rough * strands
    if hair.side_y > 10.0:
        drape = np.abs(x) - np.float32(person.bones.width + hair.side_volume * tousle) - 0.8 * strands
        drape -= np.float32(2.0 * hair.waviness) * np.sin(y * 0.2)
        distance = np.where(y > 0.0, np.minimum(distance, drape), distance)
    return distance


def _front(person: Person, hair: Hair, capture: Capture, *, view: View, strands: Field) -> Field:
    """Signed distance to the hairline: negative where hair covers forehead, temples and cheeks."""
    x, y = view.x, view.y
    width = np.float32(person.bones.width)
    side = np.abs(x)
    share2 = (x / width) ** 2
    fall = share2 * share2 * share2 * 52.0 - 3.0 * share2
    line = np.float32(hair.hairline_y) + fall + np.float32(hair.peak) * np.exp(-x * x * 0.03)
    line -= np.float32(hair.recession) * np.exp(-(((side - 19.0) * 0.12) ** 2))
    fringe = hair.fringe + 2.0 * capture.tousle[2]
    part = np.float32(hair.part_x + 4.0 * capture.tousle[1])
    if hair.style is HairStyle.FRINGE:
        line = np.maximum(line, np.float32(hair.hairline_y + fringe) + 0.06 * np.abs(x - part) + 1.4 * strands)
    elif hair.style is HairStyle.SHORT:
        sweep = clip((x - part) * np.sign(-part), -4.0, 40.0)
        line += np.float32(0.3 * max(fringe - 8.0, 0.0)) * clip(sweep * 0.06, -0.3, 1.2)
    elif hair.style is HairStyle.LONG:
        spread = np.abs(x - 0.6 * part)
        line += clip(spread - 5.0, 0.0, 60.0) ** 1.45 * np.float32(0.14 + 0.004 * fringe)
    elif hair.style is HairStyle.TIED:
        line -= 1.5
    result: np.ndarray = y - line - (0.4 if hair.style is HairStyle.TIED else 0.8) * strands
    return result


def beard_coverage(person: Person, capture: Capture, view: View, grain: Field) -> Field | None:
    """Coverage of the beard, 0 to 1, or None if there is no beard."""
    hair, face = person.hair, person.nose_mouth
    if hair.beard is BeardStyle.NONE:
        return None
    x, y = view.x, view.y
    half, drop = mouth_half_width(person, capture), view.jaw_drop
    side = np.abs(x)
    lip_y = 0.5 * (face.nose_length + 5.0 + face.mouth_y - face.upper_lip)
    lip = bump(x, y - 0.09 * side, centre=(0.0, lip_y - 0.3), radius=(half * 1.02, 3.6))
    lip = clip(2.2 * lip - 0.75, 0.0, 1.0)
    chin_y = face.mouth_y + face.lower_lip + drop + 10.5
    chin = clip(2.4 * bump(x, y, centre=(0.0, chin_y), radius=(14.0, 9.5)) - 0.9, 0.0, 1.0)
    if hair.beard is BeardStyle.MOUSTACHE:
        alpha = lip
    elif hair.beard is BeardStyle.GOATEE:
        corner = bump(side, y, centre=(half + 2.5, face.mouth_y + 4.0), radius=(3.2, 9.0))
        alpha = np.maximum(np.maximum(lip, chin), clip(1.8 * corner - 0.7, 0.0, 1.0))
    else:
        edge = 44.0 + hair.beard_line - 0.032 * clip(side - 5.0, 0.0, 40.0) ** 2 + 1.2 * grain
        jaw = clip((y - edge) * 0.22 + 0.4, 0.0, 1.0)
        alpha = np.maximum(np.maximum(lip, chin), jaw)
    u, v = (2.3 * x + hair.texture_offset[0]).astype(np.float32), (0.7 * y + hair.texture_offset[1]).astype(np.float32)
    strands = sample_strands(u, v)
    density = hair.beard_density * capture.beard_growth * (0.5 if hair.beard is BeardStyle.STUBBLE else 1.0)
    coverage: Field = np.minimum(
        alpha * clip(0.85 + 0.22 * strands + 0.1 * grain, 0.1, 1.2) * np.float32(density), 0.96
    )
    return coverage
