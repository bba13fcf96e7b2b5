"""Synthetic faces: pure in their numbers, aligned, hard for pixels, learnable."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ppfr.core import ImageSet, PpfrError, RangeError
from ppfr.data import ArrayImageSet, assert_disjoint
from ppfr.synthetic import SyntheticFaces, contact_sheet, face_seeds, render_face, synthetic_pairs
from ppfr.synthetic._capture import Occlusion, draw_capture
from ppfr.synthetic._geometry import TEMPLATE_PX, landmarks, look
from ppfr.synthetic._identity import HairStyle, draw_person
from ppfr.synthetic._render import render_capture


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return SyntheticFaces(4, 3, seed=5)


def test_is_an_image_set_of_uint8_crops_with_subjects(faces: SyntheticFaces) -> None:
    assert isinstance(faces, ImageSet)
    assert len(faces) == 12
    images = faces.read([0, 11])
    assert images.shape == (2, 112, 112, 3)
    assert images.dtype == np.uint8
    assert len(set(faces.subject_ids)) == 4
    assert faces.subject_ids[0] == faces.subject_ids[2] != faces.subject_ids[3]


def test_an_image_depends_neither_on_order_nor_on_the_size_of_the_set(faces: SyntheticFaces) -> None:
    forward, backward = faces.read(range(12)), faces.read(range(11, -1, -1))
    np.testing.assert_array_equal(forward, backward[::-1])
    larger = SyntheticFaces(40, 7, seed=5)
    np.testing.assert_array_equal(larger.read([7, 8, 16]), forward[[3, 4, 8]])
    later = SyntheticFaces(2, 3, seed=5, first_subject=2)
    np.testing.assert_array_equal(later.read(range(6)), forward[6:])
    assert list(later.subject_ids) == list(faces.subject_ids)[6:]


def test_neither_global_randomness_nor_opencv_threads_matter(faces: SyntheticFaces) -> None:
    expected = faces.read([1, 7])
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        single = faces.read([1, 7])
        cv2.setNumThreads(4)
        several = faces.read([1, 7])
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(single, expected)
    np.testing.assert_array_equal(several, expected)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]


def test_ranges_of_subjects_are_disjoint_and_seeds_are_other_people() -> None:
    first, second = SyntheticFaces(5, 1, seed=1), SyntheticFaces(5, 1, seed=1, first_subject=5)
    assert_disjoint(first, second)
    assert_disjoint(first, SyntheticFaces(5, 1, seed=2))
    with pytest.raises(PpfrError):
        assert_disjoint(first, SyntheticFaces(1, 1, seed=1, first_subject=4))


def test_fingerprint_tells_sets_apart() -> None:
    sets = [
        SyntheticFaces(2, 2, seed=1),
        SyntheticFaces(2, 2, seed=2),
        SyntheticFaces(2, 2, seed=1, first_subject=1),
        SyntheticFaces(4, 1, seed=1),
        SyntheticFaces(2, 2, seed=1, size=64),
    ]
    assert len({images.fingerprint() for images in sets}) == len(sets)
    assert sets[0].fingerprint() == SyntheticFaces(2, 2, seed=1).fingerprint()


def test_pictures_stay_what_they_were() -> None:
    """Means of a 4x4 grid, within 3 levels: a change of look must raise GENERATOR_VERSION and these numbers."""
    images = SyntheticFaces(3, 1, seed=2024).read(range(3)).astype(np.float32)
    means = images.reshape(3, 4, 28, 4, 28, 3).mean(axis=(2, 4, 5)).reshape(3, 16)
    np.testing.assert_allclose(means, _GOLDEN, atol=3.0)


_GOLDEN = [
    [103, 120, 123, 87, 101, 140, 148, 109, 116, 137, 147, 130, 101, 142, 151, 117],
    [59, 77, 98, 62, 126, 115, 129, 104, 175, 119, 135, 152, 198, 121, 131, 167],
    [48, 34, 40, 40, 44, 69, 93, 52, 51, 95, 134, 81, 57, 79, 119, 73],
]


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_lie_at_the_template(seed: int) -> None:
    """Without the detector's error the five points fit the template as well as a similarity can bring them there."""
    person, capture = draw_person(seed), draw_capture(seed)
    capture = dataclasses.replace(
        capture, pose=dataclasses.replace(capture.pose, landmark_error=((0.0, 0.0),) * 5, yaw=0.2, pitch=-0.1)
    )
    for size in (112, 256):
        view = look(person, capture, size, 1.0)
        found = view.project(landmarks(person, capture))
        target = (TEMPLATE_PX - 56.0) * size / 112 + size / 2 - 0.5
        distance_px = np.linalg.norm(found - target, axis=1) * 112 / size
        assert distance_px.max() < 7.0
        np.testing.assert_allclose(found.mean(axis=0), target.mean(axis=0), atol=1e-3)
        eye_column, eye_row = np.round(found[0]).astype(int)
        assert abs(view.x[eye_row, eye_column] + person.eyes.half_gap) < 1.5
        assert abs(view.y[eye_row, eye_column]) < 1.5


@pytest.mark.parametrize("occlusion", list(Occlusion))
@pytest.mark.parametrize("style", list(HairStyle))
def test_every_style_and_occlusion_gives_a_picture(occlusion: Occlusion, style: HairStyle) -> None:
    person, capture = draw_person(int(style)), draw_capture(int(occlusion))
    person = dataclasses.replace(person, hair=dataclasses.replace(person.hair, style=style), glasses=1.0)
    pose = dataclasses.replace(capture.pose, yaw=0.65 if style % 2 else -0.65, pitch=0.36 if occlusion % 2 else -0.36)
    capture = dataclasses.replace(capture, pose=pose, occlusion=occlusion)
    picture = render_capture(person, capture, 48)
    assert picture.shape == (48, 48, 3)
    assert picture.std() > 8.0


def test_a_larger_size_is_the_same_picture() -> None:
    seeds = face_seeds(3, 1, 1)
    small, large = render_face(*seeds), render_face(*seeds, size=224)
    shrunk = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - shrunk).mean() < 8.0
    assert render_face(*seeds, size=64, field_of_view=2.0).shape == (64, 64, 3)


def test_contact_sheet_has_a_row_for_each_person(faces: SyntheticFaces) -> None:
    sheet = contact_sheet(2, 3, seed=5, first_subject=1)
    assert sheet.shape == (224, 336, 3)
    np.testing.assert_array_equal(sheet[112:, 224:], faces.read([8])[0])


def _verification_accuracy(embeddings: np.ndarray, pairs_of: ArrayImageSet, num_pairs: int) -> float:
    """Best accuracy of one threshold on cosine scores: an upper bound on the 10-fold one."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    protocol = synthetic_pairs(pairs_of, num_pairs=num_pairs, num_folds=2, seed=1)
    scores = (unit[protocol.first] * unit[protocol.second]).sum(axis=1)
    ordered = protocol.is_genuine[np.argsort(scores)]
    correct = ordered.sum() + np.concatenate([[0], np.cumsum(np.where(ordered, -1, 1))])
    return float(correct.max() / len(ordered))


def test_pixels_fail_where_a_learned_projection_succeeds() -> None:
    """Nearest neighbours in pixels are near chance; directions learned on other people are far better."""
    test = SyntheticFaces(30, 6, seed=9).cached()
    train = SyntheticFaces(70, 7, seed=9, first_subject=40)
    people = np.repeat(np.arange(30), 6)
    pixels = test.read(range(180)).reshape(180, -1).astype(np.float32)
    normal = (pixels - pixels.mean(axis=1, keepdims=True)) / pixels.std(axis=1, keepdims=True)
    unit = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    references, probes = unit[::6], np.delete(unit, np.s_[::6], axis=0)
    hit = (probes @ references.T).argmax(axis=1) == np.delete(people, np.s_[::6])
    assert hit.mean() < 0.3  # chance is 0.033
    by_pixels = _verification_accuracy(normal, test, 400)
    assert by_pixels < 0.70

    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    lda.fit(_small(train.read(range(len(train)))), np.repeat(np.arange(70), 7))
    by_projection = _verification_accuracy(lda.transform(_small(test.read(range(180))))[:, :48], test, 400)
    assert by_projection > by_pixels + 0.1


def _small(images_BHWC: np.ndarray) -> np.ndarray:
    grey = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (24, 24), interpolation=cv2.INTER_AREA)
        for image in images_BHWC
    ]
    flat = np.stack(grey).reshape(len(grey), -1).astype(np.float64)
    result: np.ndarray = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    return result


def test_captures_of_one_person_differ_about_as_much_as_people_do() -> None:
    images = SyntheticFaces(12, 4, seed=4).read(range(48)).reshape(12, 4, -1).astype(np.float32)
    genuine = [np.abs(person[0] - person[1]).mean() for person in images]
    impostor = [np.abs(images[k, 2] - images[(k + 1) % 12, 3]).mean() for k in range(12)]
    assert min(genuine) > 12.0
    assert np.mean(genuine) > 0.7 * np.mean(impostor)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_subjects": 0, "images_per_subject": 1}, "num_subjects=0 .* at least 1"),
        ({"num_subjects": 1, "images_per_subject": -2}, "images_per_subject=-2"),
        ({"num_subjects": 1, "images_per_subject": 1, "first_subject": -1}, "first_subject=-1"),
        (
            {"num_subjects": 1, "images_per_subject": 1, "size": 113},
            "size=113 px .* even number from 32 to 1024",
        ),
        ({"num_subjects": 1, "images_per_subject": 1, "size": 16}, "size=16 px"),
    ],
)
def test_constructor_rejects_numbers_out_of_range(arguments: dict[str, int], text: str) -> None:
    with pytest.raises(RangeError, match=text):
        SyntheticFaces(seed=1, **arguments)  # type: ignore[misc]


def test_reading_and_rendering_reject_values_out_of_range(faces: SyntheticFaces) -> None:
    with pytest.raises(PpfrError):
        faces.read([12])
    with pytest.raises(RangeError, match=r"field_of_view=0\.5"):
        render_face(1, 2, field_of_view=0.5)
    with pytest.raises(RangeError, match=r"subject_seed=-1 .* at least 0"):
        render_face(-1, 2)


@settings(deadline=None, max_examples=25)
@given(
    num_subjects=st.integers(8, 40),
    images_per_subject=st.integers(3, 6),
    num_folds=st.integers(2, 4),
    each=st.integers(1, 4),
    seed=st.integers(0, 2**40),
)
def test_pairs_are_balanced_distinct_and_their_folds_share_nobody(
    num_subjects: int, images_per_subject: int, num_folds: int, each: int, seed: int
) -> None:
    faces = SyntheticFaces(num_subjects, images_per_subject, seed=1)
    protocol = synthetic_pairs(faces, num_pairs=2 * num_folds * each, num_folds=num_folds, seed=seed)
    again = synthetic_pairs(faces, num_pairs=2 * num_folds * each, num_folds=num_folds, seed=seed)
    np.testing.assert_array_equal(protocol.first, again.first)
    np.testing.assert_array_equal(protocol.second, again.second)
    ids = np.asarray(faces.subject_ids)
    people_of_fold = []
    for fold in range(num_folds):
        rows = protocol.fold == fold
        assert protocol.is_genuine[rows].sum() == (~protocol.is_genuine[rows]).sum() == each
        people_of_fold.append(set(ids[protocol.first[rows]]) | set(ids[protocol.second[rows]]))
    assert sum(map(len, people_of_fold)) == len(set().union(*people_of_fold))
    assert len(set(zip(protocol.first.tolist(), protocol.second.tolist(), strict=True))) == len(protocol)
    assert (protocol.first < protocol.second).all()


@pytest.mark.parametrize(
    ("num_pairs", "num_folds", "text"),
    [
        (10, 1, "num_folds=1"),
        (10, 2, "num_pairs=10 is not a positive multiple of 2 \\* num_folds = 4"),
        (0, 2, "num_pairs=0"),
        (18, 9, "6 people .* num_folds=9 .*use fewer folds"),
        (40, 2, "10 genuine comparisons, but its 3 people give 9"),
    ],
)
def test_synthetic_pairs_rejects_impossible_numbers(num_pairs: int, num_folds: int, text: str) -> None:
    with pytest.raises(RangeError, match=text):
        synthetic_pairs(SyntheticFaces(6, 3, seed=1), num_pairs=num_pairs, num_folds=num_folds, seed=1)


def test_synthetic_pairs_rejects_too_few_people_for_impostor_pairs() -> None:
    with pytest.raises(RangeError, match="impostor comparisons, but its 2 people give 16"):
        synthetic_pairs(SyntheticFaces(4, 4, seed=1), num_pairs=48, num_folds=2, seed=1)
