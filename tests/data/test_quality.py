"""Quality of face images: pose of known heads, sharpness of blurred crops, limits; all faces are generated."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import AlignmentError, InvalidInputError, ProblemsError, RangeError, ShapeError
from ppfr.data import (
    TEMPLATE_52,
    AlignedFace,
    Aligner,
    Face,
    FaceQuality,
    QualityLimits,
    align_folder,
    write_crop,
)
from ppfr.synthetic import SyntheticFaces

# Middles of the eyes (of the two corners each), nose tip and mouth corners of MediaPipe's canonical face in cm, with y
# up and z towards the camera: another shape of face than the one by which poses are estimated.
CANONICAL_53 = np.array(
    [
        (-3.151, 2.625, 3.466),
        (3.151, 2.625, 3.466),
        (0.0, -1.127, 7.476),
        (-2.456, -4.343, 4.284),
        (2.456, -4.343, 4.284),
    ]
) * [1, -1, -1]


@pytest.fixture(scope="module")
def faces_NHWC() -> np.ndarray:
    return SyntheticFaces(6, 1, seed=3).read(range(6))


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Rotation of a head: x to the right, y down, z away from the camera; first pitch, then yaw, then roll."""
    yaw, pitch, roll = np.radians([-yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def photographed(angles_deg: tuple[float, float, float], *, distance_cm: float, px_per_cm: float) -> np.ndarray:
    """(5, 2) landmarks of the canonical head, turned and seen in perspective."""
    turned_53 = (CANONICAL_53 - CANONICAL_53.mean(axis=0)) @ rotation(*angles_deg).T
    return np.asarray(px_per_cm * distance_cm * turned_53[:, :2] / (distance_cm + turned_53[:, 2:]) + [200, 150])


def quality_of(landmarks_52: np.ndarray, crop_HWC: np.ndarray) -> FaceQuality:
    return FaceQuality.measure(crop_HWC, face=Face((0, 0, 1, 1), landmarks_52, 0.9))


def angles(quality: FaceQuality) -> tuple[float | None, ...]:
    return quality.yaw_deg, quality.pitch_deg, quality.roll_deg


@settings(deadline=None, max_examples=50)
@given(scale=st.floats(0.1, 20), roll_deg=st.floats(-179, 179), shift=st.floats(-500, 500))
def test_points_of_the_template_are_a_frontal_face(scale: float, roll_deg: float, shift: float) -> None:
    points_52 = scale * TEMPLATE_52 @ rotation(0, 0, roll_deg)[:2, :2].T + shift
    quality = quality_of(points_52, np.zeros((112, 112, 3), np.uint8))
    assert angles(quality) == pytest.approx((0, 0, roll_deg), abs=1e-6)
    assert quality.inter_eye_px == pytest.approx(scale * np.linalg.norm(TEMPLATE_52[0] - TEMPLATE_52[1]))


@pytest.mark.parametrize("yaw_deg", [-60, -45, -30, -15, 0, 15, 30, 45, 60])
@pytest.mark.parametrize("roll_deg", [0, -25, 90])
def test_yaw_of_a_photographed_head_is_found(yaw_deg: float, roll_deg: float, faces_NHWC: np.ndarray) -> None:
    points_52 = photographed((yaw_deg, 0, roll_deg), distance_cm=80, px_per_cm=10)
    quality = quality_of(points_52, faces_NHWC[0])
    assert quality.yaw_deg == pytest.approx(yaw_deg, abs=4)
    assert quality.roll_deg == pytest.approx(roll_deg, abs=5)
    # the distance of a frontal face: 6.3 cm, whatever the yaw
    assert quality.inter_eye_px == pytest.approx(63, rel=0.08)


def test_pitch_of_a_photographed_head_differs_as_the_heads_do(faces_NHWC: np.ndarray) -> None:
    found = [
        quality_of(photographed((0, pitch_deg, 0), distance_cm=80, px_per_cm=10), faces_NHWC[0]).pitch_deg
        for pitch_deg in (-20, 0, 20)
    ]
    assert np.diff(found) == pytest.approx([20, 20], abs=3)


@pytest.mark.parametrize("number", range(6))
def test_blur_lowers_sharpness_monotonically(number: int, faces_NHWC: np.ndarray) -> None:
    found = [FaceQuality.measure(faces_NHWC[number]).sharpness]
    for sigma in (0.7, 1.0, 1.5, 2.0, 3.0, 4.0):
        found.append(FaceQuality.measure(cv2.GaussianBlur(faces_NHWC[number], (0, 0), sigma)).sharpness)
    assert all(after < 0.95 * before for before, after in itertools.pairwise(found))
    assert found[0] > 0.04 > found[-1]


@pytest.mark.parametrize("kernel", [np.ones((1, 13)), np.ones((13, 1)), np.eye(13), np.fliplr(np.eye(13))])
def test_motion_in_each_direction_lowers_sharpness(kernel: np.ndarray, faces_NHWC: np.ndarray) -> None:
    for face_HWC in faces_NHWC:
        moved_HWC = cv2.filter2D(face_HWC, -1, kernel / kernel.sum())
        assert FaceQuality.measure(moved_HWC).sharpness < 0.5 * FaceQuality.measure(face_HWC).sharpness


def test_sharpness_ignores_brightness_and_contrast(faces_NHWC: np.ndarray) -> None:
    for face_HWC in faces_NHWC:
        dull_HWC = np.round(face_HWC * 0.5 + 60).astype(np.uint8)
        expected = FaceQuality.measure(face_HWC).sharpness
        assert FaceQuality.measure(dull_HWC).sharpness == pytest.approx(expected, rel=0.05)
    assert FaceQuality.measure(np.full((112, 112, 3), 128, np.uint8)).sharpness == 0.0


def test_all_failed_limits_are_reported_with_figure_limit_and_remedy() -> None:
    poor = FaceQuality(
        confidence=0.71, inter_eye_px=6.2, yaw_deg=-41.0, pitch_deg=33.0, roll_deg=170.0, sharpness=0.0123
    )
    problems = QualityLimits(max_pitch_deg=20).problems(poor)
    expected = [
        ("0.71", "0.85", "--min-confidence", "well-lit"),
        ("6.2", "12", "--min-inter-eye-px", "closer"),
        ("-41", "30", "--max-yaw", "into the camera"),
        ("33", "20", "--max-pitch", "height of the eyes"),
        ("0.0123", "0.04", "--min-sharpness", "focus"),
    ]
    assert len(problems) == len(expected)
    for problem, words in zip(problems, expected, strict=True):
        assert all(word in problem for word in words), problem
    assert (
        QualityLimits(**dict.fromkeys(field.name for field in dataclasses.fields(QualityLimits))).problems(poor) == ()
    )


def test_a_figure_equal_to_its_limit_passes() -> None:
    limits = QualityLimits(max_pitch_deg=20)
    just = FaceQuality(
        confidence=0.85, inter_eye_px=12.0, yaw_deg=-30.0, pitch_deg=20.0, roll_deg=0.0, sharpness=limits.min_sharpness
    )
    assert limits.problems(just) == ()


def test_figures_that_were_not_measured_are_named(faces_NHWC: np.ndarray) -> None:
    quality = FaceQuality.measure(faces_NHWC[0])
    assert quality.not_measured() == ("confidence", "inter_eye_px", "yaw_deg", "pitch_deg", "roll_deg")
    assert QualityLimits().problems(quality) == ()
    assert quality_of(TEMPLATE_52, faces_NHWC[0]).not_measured() == ()


@pytest.mark.parametrize(
    ("name", "value"), [("min_confidence", 1.1), ("max_yaw_deg", -1.0), ("min_sharpness", float("nan"))]
)
def test_limits_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(RangeError, match=re.escape(f"`{name}` is {value}")):
        QualityLimits(**{name: value})


def test_measure_refuses_other_shapes_and_coinciding_points(faces_NHWC: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="112"):
        FaceQuality.measure(faces_NHWC[0][:100])
    with pytest.raises(ShapeError, match="float64"):
        FaceQuality.measure(faces_NHWC[0] / 255)
    with pytest.raises(ShapeError, match=r"\(4, 2\)"):
        quality_of(TEMPLATE_52[:4], faces_NHWC[0])
    with pytest.raises(AlignmentError, match="coincide"):
        quality_of(np.ones((5, 2)), faces_NHWC[0])


class CropsAsPhotos:
    """An aligner for photos that are crops: their landmarks are those of the template."""

    def aligned_face(self, photo_HWC: np.ndarray) -> AlignedFace:
        return AlignedFace(crop_HWC=photo_HWC, quality=quality_of(TEMPLATE_52, photo_HWC))


def test_align_folder_writes_only_crops_within_the_limits(tmp_path: Path, faces_NHWC: np.ndarray) -> None:
    write_crop(faces_NHWC[0], tmp_path / "in" / "ana" / "sharp.png")
    write_crop(cv2.GaussianBlur(faces_NHWC[1], (0, 0), 4), tmp_path / "in" / "bo" / "blurred.png")
    aligner, seen = CropsAsPhotos(), []
    with pytest.raises(InvalidInputError, match="keeps_existing=False"):
        align_folder(tmp_path / "in", tmp_path / "out", aligner, limits=QualityLimits())

    def align(limits: QualityLimits | None) -> None:
        align_folder(
            tmp_path / "in",
            tmp_path / "out",
            aligner,
            keeps_existing=False,
            limits=limits,
            on_aligned=lambda photo, quality: seen.append((photo.name, quality)),
        )

    with pytest.raises(ProblemsError, match="1 of 2 photos are aligned") as caught:
        align(QualityLimits())
    (problem,) = caught.value.problems
    assert "blurred.png" in problem and "sharpness" in problem and "delete" not in problem
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["sharp.png"]
    assert [name for name, _ in seen] == ["sharp.png"] and seen[0][1].not_measured() == ()
    align(QualityLimits(min_sharpness=0.001))
    with pytest.raises(ProblemsError, match=r"delete .*blurred\.png"):
        align(QualityLimits())


@pytest.mark.real_data
def test_the_detector_measures_synthetic_photos(weights_root: Path, faces_NHWC: np.ndarray) -> None:
    aligner = Aligner(weights_root / "yunet.onnx")
    for face_HWC in faces_NHWC:
        photo_HWC = np.full((300, 300, 3), 128, np.uint8)
        photo_HWC[90:202, 90:202] = face_HWC
        face = aligner.aligned_face(photo_HWC)
        np.testing.assert_array_equal(face.crop_HWC, aligner.align(photo_HWC))
        assert QualityLimits().problems(face.quality) == ()
        assert abs(face.quality.yaw_deg) < 20 and 28 < face.quality.inter_eye_px < 40
        small = aligner.aligned_face(cv2.resize(photo_HWC, (75, 75), interpolation=cv2.INTER_AREA)).quality
        assert small.inter_eye_px == pytest.approx(face.quality.inter_eye_px / 4, rel=0.15)
        assert any("inter-eye distance" in problem for problem in QualityLimits().problems(small))
