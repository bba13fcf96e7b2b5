"""Properties that differ between captures of a person: pose, expression, light, occlusion, camera."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from ppfr.synthetic._identity import Colour

# Probability of each occlusion, in the order of `Occlusion`.
_OCCLUSION_ODDS = (0.885, 0.03, 0.03, 0.03, 0.025)


class Occlusion(enum.IntEnum):
    """Object that covers a part of the face."""

    NONE = 0
    SUNGLASSES = 1
    MASK = 2
    HAND = 3
    HAT = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Head pose (radians) and the error of the landmark detector that cut the crop (pixels of the crop)."""

    yaw: float
    pitch: float
    landmark_error: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """Shares from 0 to 1, except smile and brows (-1 to 1) and gaze (pixels)."""

    smile: float
    mouth_open: float
    brows: float
    lids_shut: float
    gaze: tuple[float, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """One key light and its surroundings.

    Attributes:
        towards: unit vector from the face to the key light (x right, y down, z to the camera).
        key: colour and strength of the key light.
        sky: ambient light from above.
        ground: ambient light from below.
        hardness: 0 (overcast) to 1 (bare lamp); scales cast shadows and highlights.
    """

    towards: tuple[float, float, float]
    key: Colour
    sky: Colour
    ground: Colour
    hardness: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """From light to file.

    Attributes:
        gains: exposure and white balance, one factor per channel.
        contrast: exponent of the tone curve, 1 is neutral.
        blur_px: standard deviation of the defocus at 112 pixels.
        motion_px: length of the motion blur at 112 pixels; 0 means none.
        motion_angle: direction of the motion blur in radians.
        sampling: resolution of the original face as a share of the crop's; below 1 the crop was enlarged.
        noise: standard deviation of the sensor noise in display units of [0, 1].
        jpeg_quality: JPEG quality; 0 means uncompressed.
        is_grey: a black and white photograph.
        noise_offset: offset of this capture in the noise bank.
    """

    gains: Colour
    contrast: float
    blur_px: float
    motion_px: float
    motion_angle: float
    sampling: float
    noise: float
    jpeg_quality: int
    is_grey: bool
    noise_offset: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """All properties of one capture.

    Attributes:
        wears_glasses: uniform draw; the person wears spectacles if it is below `Person.glasses`.
        tousle: deviation of the hair from its usual shape, about -1 to 1 each (height, part, fringe).
        restyle: uniform draw; the hair has another style than usual if it is below a fixed share.
        beard_growth: factor on the density of the beard.
        clothes: colour of the clothes.
        scene: seed of background, hand and hat.
        flush: factor on redness, as from make-up or cold.
    """

    pose: Pose
    expression: Expression
    light: Light
    camera: Camera
    occlusion: Occlusion
    wears_glasses: float
    tousle: tuple[float, float, float]
    restyle: float
    beard_growth: float
    flush: float
    clothes: Colour
    scene: int


def draw_capture(seed: int) -> Capture:
    """The capture of a seed, independent of the person."""
    rng = np.random.Generator(np.random.PCG64(seed))
    pose, expression, light, camera = _draw_pose(rng), _draw_expression(rng), _draw_light(rng), _draw_camera(rng)
    tousle = np.clip(rng.standard_normal(3), -2.0, 2.0)
    hue = rng.random(3) ** 1.5 * float(rng.uniform(0.2, 0.9))
    return Capture(
        pose=pose,
        expression=expression,
        light=light,
        camera=camera,
        occlusion=_draw_occlusion(rng),
        wears_glasses=float(rng.random()),
        tousle=(float(tousle[0]), float(tousle[1]), float(tousle[2])),
        restyle=float(rng.random()),
        beard_growth=float(rng.uniform(0.7, 1.2) if rng.random() < 0.8 else rng.uniform(0.0, 0.5)),
        flush=float(rng.uniform(0.5, 1.6)),
        clothes=(float(hue[0]), float(hue[1]), float(hue[2])),
        scene=int(rng.integers(2**62)),
    )


def _bounded(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))


def _draw_occlusion(rng: np.random.Generator) -> Occlusion:
    level = rng.random() - _OCCLUSION_ODDS[0]
    for kind, odds in zip(list(Occlusion)[1:], _OCCLUSION_ODDS[1:], strict=True):
        if 0.0 <= level < odds:
            return kind
        level -= odds
    return Occlusion.NONE


def _draw_pose(rng: np.random.Generator) -> Pose:
    error = 0.8 * rng.standard_normal((5, 2))
    return Pose(
        yaw=_bounded(0.35 * rng.standard_normal(), -0.65, 0.65),
        pitch=_bounded(0.15 * rng.standard_normal(), -0.36, 0.36),
        landmark_error=tuple((float(x), float(y)) for x, y in error),
    )


def _draw_expression(rng: np.random.Generator) -> Expression:
    smile = (float(rng.uniform(0.3, 1.0)) if rng.random() < 0.45 else 0.0) + 0.13 * rng.standard_normal()
    mouth_open = max(0.0, 0.55 * smile * float(rng.random()) + 0.16 * rng.standard_normal())
    lids_shut = 0.95 if rng.random() < 0.03 else max(0.0, 0.12 * rng.standard_normal())
    return Expression(
        smile=_bounded(smile, -0.4, 1.0),
        mouth_open=_bounded(mouth_open, 0.0, 1.0) if rng.random() < 0.75 else 0.0,
        brows=_bounded(0.35 * rng.standard_normal(), -1.0, 1.0),
        lids_shut=float(lids_shut),
        gaze=(1.1 * _bounded(rng.standard_normal(), -2.0, 2.0), 0.45 * _bounded(rng.standard_normal(), -2.0, 2.0)),
    )


def _draw_light(rng: np.random.Generator) -> Light:
    azimuth, elevation = 0.9 * rng.standard_normal(), _bounded(0.5 + 0.35 * rng.standard_normal(), -0.5, 1.2)
    azimuth = _bounded(azimuth, -1.4, 1.4)
    towards = np.array([np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    share = float(rng.uniform(0.3, 0.95))
    warmth, cast = 0.09 * rng.standard_normal(), 0.05 * rng.standard_normal()
    key = 1.55 * share * np.array([1.0 + warmth, 1.0 + cast, 1.0 - 1.3 * warmth])
    cool = 0.08 * rng.standard_normal()
    ambient = (1.0 - share) * 1.15 + 0.05
    sky = ambient * np.array([1.0 + cool, 1.0, 1.0 - cool])
    ground = ambient * float(rng.uniform(0.35, 0.9)) * (0.8 + 0.35 * rng.random(3))
    return Light(
        towards=(float(towards[0]), float(towards[1]), float(towards[2])),
        key=tuple(float(value) for value in np.maximum(key, 0.05)),  # type: ignore[arg-type]
        sky=tuple(float(value) for value in sky),  # type: ignore[arg-type]
        ground=tuple(float(value) for value in ground),  # type: ignore[arg-type]
        hardness=float(rng.random()),
    )


def _draw_camera(rng: np.random.Generator) -> Camera:
    exposure = float(np.exp(0.28 * _bounded(rng.standard_normal(), -2.0, 2.0)))
    balance = np.exp(0.11 * np.clip(rng.standard_normal(3), -2, 2))
    is_compressed = rng.random() < 0.6
    return Camera(
        gains=tuple(float(value) for value in exposure * balance),  # type: ignore[arg-type]
        contrast=round(float(np.exp(0.16 * _bounded(rng.standard_normal(), -2.0, 2.0))), 2),
        blur_px=float(0.25 + 0.8 * rng.random() ** 2),
        motion_px=float(rng.uniform(2.0, 5.0)) if rng.random() < 0.08 else 0.0,
        motion_angle=float(rng.uniform(0.0, np.pi)),
        sampling=float(rng.uniform(0.45, 1.0)) if rng.random() < 0.25 else 1.0,
        noise=float(0.006 + 0.03 * rng.random() ** 3),
        jpeg_quality=int(rng.integers(35, 96)) if is_compressed else 0,
        is_grey=bool(rng.random() < 0.04),
        noise_offset=int(rng.integers(2**20)),
    )
