"""Traits of a synthetic person that are the same in all captures of that person.

Lengths are pixels of the 112x112 template crop. The face frame has its origin midway between the eyes, x to the
viewer's right, y down, z towards the viewer. Colours are linear light: the square of the display value.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

Colour = tuple[float, float, float]

# Display colours, light to dark, and the corresponding melanin level (0 to 1).
_SKIN_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_SKIN_TONES = (
    (0.95, 0.80, 0.72),
    (0.91, 0.73, 0.62),
    (0.82, 0.63, 0.51),
    (0.68, 0.50, 0.40),
    (0.50, 0.37, 0.30),
    (0.35, 0.255, 0.21),
)
_HAIR_TONES = {
    "black": (0.10, 0.085, 0.085),
    "dark brown": (0.20, 0.14, 0.11),
    "brown": (0.34, 0.23, 0.16),
    "light brown": (0.48, 0.34, 0.22),
    "auburn": (0.45, 0.22, 0.13),
    "red": (0.66, 0.33, 0.16),
    "blond": (0.76, 0.60, 0.38),
}
_IRIS_TONES = (
    (0.18, 0.11, 0.07),
    (0.32, 0.19, 0.10),
    (0.42, 0.33, 0.16),
    (0.34, 0.42, 0.26),
    (0.33, 0.47, 0.58),
    (0.42, 0.48, 0.53),
)


class HairStyle(enum.IntEnum):
    """Hair style; the traits of `Hair` vary within a style."""

    BALD = 0
    BUZZ = 1
    SHORT = 2
    QUIFF = 3
    FRINGE = 4
    LONG = 5
    CURLY = 6
    TIED = 7


@dataclasses.dataclass(frozen=True, slots=True)
class StyleTraits:
    """Means of a style: thickness on top and at the sides, length of the sides, waviness."""

    volume: float
    side_volume: float
    side_y: float
    waviness: float


STYLE_TRAITS = {
    HairStyle.BALD: StyleTraits(2.0, 1.2, -2.0, 0.12),
    HairStyle.BUZZ: StyleTraits(1.2, 0.8, -2.0, 0.12),
    HairStyle.SHORT: StyleTraits(5.0, 1.2, -2.0, 0.12),
    HairStyle.QUIFF: StyleTraits(7.5, 1.2, -2.0, 0.12),
    HairStyle.FRINGE: StyleTraits(5.0, 5.0, 34.0, 0.2),
    HairStyle.LONG: StyleTraits(5.0, 6.5, 58.0, 0.3),
    HairStyle.CURLY: StyleTraits(9.0, 6.5, 22.0, 1.0),
    HairStyle.TIED: StyleTraits(2.4, 0.8, -6.0, 0.12),
}


class BeardStyle(enum.IntEnum):
    """Part of the lower face that is covered by a beard."""

    NONE = 0
    STUBBLE = 1
    MOUSTACHE = 2
    GOATEE = 3
    FULL = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bones:
    """Head outline and the coarse relief of the face."""

    width: float
    forehead: float
    jaw: float
    chin_width: float
    chin_length: float
    crown: float
    squareness: float
    cheekbone: float
    cheekbone_y: float
    cheek_fullness: float
    brow_ridge: float
    chin_relief: float
    socket_depth: float
    muzzle: float
    ear_size: float
    ear_y: float
    asymmetry: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """Eyes and brows."""

    half_gap: float
    half_width: float
    openness: float
    lower_lid: float
    tilt: float
    peak: float
    crease: float
    bags: float
    iris_radius: float
    iris: Colour
    lashes: float
    brow_y: float
    brow_length: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    brow_gap: float
    brow_density: float
    brow_taper: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoseMouth:
    """Nose and mouth."""

    nose_length: float
    nose_height: float
    bridge_width: float
    bridge_height: float
    hump: float
    tip_size: float
    alar_width: float
    alar_size: float
    nostril: float
    upturn: float
    mouth_y: float
    mouth_half_width: float
    upper_lip: float
    lower_lip: float
    bow: float
    corner_tilt: float
    philtrum: float
    lip: Colour


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Skin:
    """Skin colour and its lasting marks."""

    tone: Colour
    melanin: float
    blush: float
    mottle: float
    freckles: float
    gloss: float
    spots: tuple[tuple[float, float, float, float], ...]
    texture_offset: tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hair:
    """Hair of head and face."""

    style: HairStyle
    colour: Colour
    brow_colour: Colour
    hairline_y: float
    peak: float
    recession: float
    volume: float
    side_volume: float
    side_y: float
    part_x: float
    fringe: float
    waviness: float
    texture_offset: tuple[int, int]
    beard: BeardStyle
    beard_density: float
    beard_line: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """All lasting traits of one synthetic person.

    Attributes:
        age: 0 (about twenty) to 1 (about eighty).
        glasses: share of the person's captures that show spectacles.
        glasses_style: frame traits (width, height, squareness, thickness, darkness), each in [0, 1].
    """

    age: float
    bones: Bones
    eyes: Eyes
    nose_mouth: NoseMouth
    skin: Skin
    hair: Hair
    glasses: float
    glasses_style: tuple[float, float, float, float, float]


def draw_person(seed: int) -> Person:
    """The person of a seed, the same on every machine."""
    rng = np.random.Generator(np.random.PCG64(seed))
    age = float(rng.random()) ** 1.3
    masculine = float(np.clip(0.5 + 0.9 * (rng.random() - 0.5) + 0.35 * np.sign(rng.random() - 0.5), 0.0, 1.0))
    melanin = float(rng.beta(1.0, 1.25))
    bones, eyes = _draw_bones(rng, masculine, age), _draw_eyes(rng, masculine, age, melanin)
    skin = _draw_skin(rng, melanin, age)
    nose_mouth = _draw_nose_mouth(rng, masculine, age, melanin, skin.tone)
    hair = _draw_hair(rng, masculine, age, melanin)
    glasses = float(rng.choice((0.02, 0.2, 0.75), p=(0.55, 0.25, 0.2)))
    style = rng.random(5)
    return Person(
        age=age,
        bones=bones,
        eyes=eyes,
        nose_mouth=nose_mouth,
        skin=skin,
        hair=hair,
        glasses=glasses,
        glasses_style=(float(style[0]), float(style[1]), float(style[2]), float(style[3]), float(style[4])),
    )


def _bell(rng: np.random.Generator, mean: float, spread: float) -> float:
    """A normal draw clipped at 2.2 standard deviations, to avoid implausible faces."""
    return mean + spread * float(np.clip(rng.standard_normal(), -2.2, 2.2))


def _linear(display: np.ndarray | Colour) -> Colour:
    red, green, blue = (float(np.clip(value, 0.01, 1.0)) ** 2 for value in display)
    return red, green, blue


def _draw_bones(rng: np.random.Generator, masculine: float, age: float) -> Bones:
    return Bones(
        width=_bell(rng, 39.0 + 0.8 * masculine, 1.9),
        forehead=_bell(rng, 1.0, 0.055),
        jaw=_bell(rng, 0.93 + 0.09 * masculine, 0.075),
        chin_width=_bell(rng, 0.85 + 0.35 * masculine, 0.22),
        chin_length=_bell(rng, 62.0 + 2.0 * masculine, 2.8),
        crown=_bell(rng, 62.0, 3.0),
        squareness=_bell(rng, 0.1 + 0.6 * masculine, 0.45),
        cheekbone=_bell(rng, 1.0, 0.5),
        cheekbone_y=_bell(rng, 16.0, 2.0),
        cheek_fullness=_bell(rng, 0.2 - 0.5 * age, 1.0),
        brow_ridge=_bell(rng, 0.3 + 0.9 * masculine, 0.4),
        chin_relief=_bell(rng, 1.0, 0.45),
        socket_depth=_bell(rng, 1.0 + 0.4 * age, 0.35),
        muzzle=_bell(rng, 1.0, 0.4),
        ear_size=_bell(rng, 1.0 + 0.1 * age, 0.14),
        ear_y=_bell(rng, 9.0, 2.0),
        asymmetry=_bell(rng, 0.0, 0.5),
    )


def _draw_eyes(rng: np.random.Generator, masculine: float, age: float, melanin: float) -> Eyes:
    dark_iris = rng.random() < 0.25 + 1.3 * melanin
    low, high = (0.0, 1.4) if dark_iris else (1.5, 5.0)
    shade = low + (high - low) * float(rng.random())
    levels = np.arange(len(_IRIS_TONES))
    iris = [float(np.interp(shade, levels, [tone[c] for tone in _IRIS_TONES])) for c in range(3)]
    return Eyes(
        half_gap=_bell(rng, 17.4, 0.95),
        half_width=_bell(rng, 7.9 - 0.2 * masculine, 0.55),
        openness=_bell(rng, 0.51 - 0.05 * masculine - 0.07 * age, 0.075),
        lower_lid=_bell(rng, 0.27, 0.05),
        tilt=_bell(rng, -0.06 + 0.08 * age, 0.085),
        peak=_bell(rng, -0.1, 0.22),
        crease=_bell(rng, 0.9, 0.75),
        bags=max(0.0, _bell(rng, 0.15 + 0.8 * age, 0.3)),
        iris_radius=_bell(rng, 3.6, 0.26),
        iris=_linear((iris[0], iris[1], iris[2])),
        lashes=max(0.15, _bell(rng, 0.95 - 0.5 * masculine, 0.25)),
        brow_y=_bell(rng, -11.3 + 1.6 * masculine, 1.25),
        brow_length=_bell(rng, 10.6, 0.9),
        brow_thickness=max(0.7, _bell(rng, 1.45 + 0.95 * masculine, 0.5)),
        brow_arch=_bell(rng, 1.75 - 0.75 * masculine, 0.65),
        brow_tilt=_bell(rng, 0.05, 0.09),
        brow_gap=_bell(rng, 0.0, 1.0),
        brow_density=float(np.clip(_bell(rng, 0.72 - 0.15 * age, 0.17), 0.25, 1.0)),
        brow_taper=_bell(rng, 0.0, 0.5),
    )


def _draw_skin(rng: np.random.Generator, melanin: float, age: float) -> Skin:
    tone = np.array([np.interp(melanin, _SKIN_LEVELS, [t[c] for t in _SKIN_TONES]) for c in range(3)])
    tone += rng.standard_normal() * np.array([0.012, -0.012, -0.018]) + 0.012 * rng.standard_normal()
    num_spots = int(rng.poisson(1.2 + 1.5 * age))
    spots = tuple(
        (
            float(rng.uniform(-34, 34)),
            float(rng.uniform(-34, 54)),
            float(rng.uniform(0.45, 1.0)),
            float(rng.uniform(0.25, 0.75)),
        )
        for _ in range(num_spots)
    )
    freckled = float(rng.random()) < 0.3 * (1.0 - melanin) + 0.05
    return Skin(
        tone=_linear(tone),
        melanin=melanin,
        blush=float(np.clip(_bell(rng, 0.45, 0.25), 0.0, 1.0)),
        mottle=float(np.clip(_bell(rng, 0.45 + 0.4 * age, 0.2), 0.1, 1.2)),
        freckles=float(rng.uniform(0.35, 1.0)) if freckled else 0.0,
        gloss=float(np.clip(_bell(rng, 0.5, 0.22), 0.05, 1.0)),
        spots=spots,
        texture_offset=(int(rng.integers(256)), int(rng.integers(256))),
    )


def _draw_nose_mouth(
    rng: np.random.Generator, masculine: float, age: float, melanin: float, skin_tone: Colour
) -> NoseMouth:
    lip_strength = float(np.clip(_bell(rng, 0.55 - 0.2 * masculine, 0.22), 0.1, 1.0))
    rose = np.array([0.74, 0.36, 0.36]) * (1.0 - 0.5 * melanin)
    lip = np.sqrt(np.array(skin_tone)) * (1.0 - lip_strength) * 0.94 + rose * lip_strength
    fullness = _bell(rng, 0.15 * melanin - 0.25 * age, 0.3)
    return NoseMouth(
        nose_length=_bell(rng, 20.2 + 0.6 * masculine + 0.8 * age, 1.5),
        nose_height=_bell(rng, 12.0 + 1.5 * masculine, 1.9),
        bridge_width=_bell(rng, 3.5 + 0.3 * masculine, 0.55),
        bridge_height=_bell(rng, 5.6 - 1.6 * melanin, 1.4),
        hump=_bell(rng, 0.2 * masculine, 0.9),
        tip_size=_bell(rng, 4.0 + 0.3 * masculine, 0.55),
        alar_width=_bell(rng, 7.6 + 0.5 * masculine + 1.1 * melanin, 0.8),
        alar_size=_bell(rng, 3.0, 0.35),
        nostril=_bell(rng, 1.0, 0.28),
        upturn=_bell(rng, 0.0, 0.9),
        mouth_y=_bell(rng, 40.3, 1.35),
        mouth_half_width=_bell(rng, 14.3, 1.2),
        upper_lip=max(0.9, _bell(rng, 3.6 * (1.0 + fullness), 0.55)),
        lower_lip=max(1.5, _bell(rng, 5.0 * (1.0 + fullness), 0.6)),
        bow=_bell(rng, 0.45, 0.25),
        corner_tilt=_bell(rng, 0.0, 0.9),
        philtrum=_bell(rng, 1.0, 0.45),
        lip=_linear(lip),
    )


def _hair_colour(rng: np.random.Generator, melanin: float, age: float) -> tuple[Colour, Colour]:
    """Colours of the head's hair and of the brows."""
    fair = float(np.clip(1.0 - 1.9 * melanin, 0.0, 1.0))
    names = tuple(_HAIR_TONES)
    odds = np.array([0.28, 0.28, 0.03 + 0.20 * fair, 0.13 * fair, 0.02 + 0.06 * fair, 0.07 * fair, 0.20 * fair])
    tone = np.array(_HAIR_TONES[names[int(rng.choice(len(names), p=odds / odds.sum()))]])
    tone = tone * (1.0 + 0.13 * rng.standard_normal())
    grey = float(np.clip((age - 0.45) * 2.2 + 0.35 * rng.standard_normal(), 0.0, 1.0)) if age > 0.35 else 0.0
    ash = np.array([0.70, 0.70, 0.71]) * (0.85 + 0.3 * float(rng.random()))
    return _linear(tone * (1 - grey) + ash * grey), _linear(0.85 * (tone * (1 - 0.6 * grey) + 0.5 * grey * ash))


def _draw_hair(rng: np.random.Generator, masculine: float, age: float, melanin: float) -> Hair:
    short = np.array([0.03 + 0.22 * age, 0.16, 0.3, 0.18, 0.07, 0.03, 0.10 + 0.1 * melanin, 0.02])
    long = np.array([0.0, 0.02, 0.10, 0.03, 0.2, 0.36, 0.14 + 0.1 * melanin, 0.2])
    odds = short * masculine**1.5 + long * (1.0 - masculine) ** 1.5
    style = HairStyle(int(rng.choice(len(HairStyle), p=odds / odds.sum())))
    colour, brow_colour = _hair_colour(rng, melanin, age)
    has_beard = rng.random() < 1.1 * (masculine - 0.45)
    beard = BeardStyle(int(rng.choice((1, 2, 3, 4), p=(0.36, 0.13, 0.18, 0.33)))) if has_beard else BeardStyle.NONE
    traits = STYLE_TRAITS[style]
    return Hair(
        style=style,
        colour=colour,
        brow_colour=brow_colour,
        hairline_y=_bell(rng, -35.5 - 2.5 * age * masculine, 2.6),
        peak=_bell(rng, 0.0, 1.8),
        recession=max(0.0, _bell(rng, 7.0 * age * masculine + 1.0, 2.4)),
        volume=max(0.6, traits.volume * _bell(rng, 1.0, 0.22)),
        side_volume=max(0.4, traits.side_volume * _bell(rng, 1.0, 0.28)),
        side_y=_bell(rng, traits.side_y, 6.0),
        part_x=float(rng.choice((-1.0, 1.0))) * float(rng.uniform(0.0, 18.0)),
        fringe=_bell(rng, 15.0, 4.0),
        waviness=max(0.0, _bell(rng, traits.waviness, 0.12)),
        texture_offset=(int(rng.integers(256)), int(rng.integers(256))),
        beard=beard,
        beard_density=float(rng.uniform(0.45, 0.95)),
        beard_line=_bell(rng, 0.0, 3.0),
    )
