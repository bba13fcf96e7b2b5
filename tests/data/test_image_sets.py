"""Image sets: every kind reads the same pixels by index, whatever it is made of."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import DatasetError, ImageReadError, ImageSet, InvalidInputError, OverlapError, ProblemsError, ShapeError
from ppfr.data import (
    ArrayImageSet,
    FileImageSet,
    PairProtocol,
    assert_disjoint,
    canonical_subject,
    concatenate,
    has_name,
    read_folder,
    read_image,
    read_lfw_images,
    subject_hash,
    without_subjects_of,
    write_crop,
)
from ppfr.synthetic import SyntheticFaces, synthetic_pairs


def array_set(count: int, *, name: str = "a", first: int = 0) -> ArrayImageSet:
    images = np.stack([np.full((8, 6, 3), first + number, np.uint8) for number in range(count)])
    return ArrayImageSet(images, [f"{name}{number // 2}" for number in range(count)], name=name)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(0, 13), max_size=12))
def test_subsets_of_concatenations_read_what_they_name(chosen: list[int], asked: list[int]) -> None:
    joined = concatenate([array_set(4), array_set(1, name="b", first=4), array_set(5, name="c", first=5)], name="all")
    subset = joined.subset(chosen, name="some")
    asked = [index for index in asked if index < len(chosen)]
    read = subset.read(asked)
    assert read.shape == (len(asked), 8, 6, 3)
    assert read[:, 0, 0, 0].tolist() == [chosen[index] for index in asked]
    assert list(subset.subject_ids) == [joined.subject_ids[index] for index in chosen]
    assert isinstance(subset, ImageSet)


def test_read_rejects_invalid_indices() -> None:
    images = array_set(3)
    for bad in ([3], [-1], [0.5], [[0]], [True]):
        with pytest.raises(InvalidInputError):
            images.read(bad)
    with pytest.raises(InvalidInputError, match=r"3\.\.5 are out of range.*0\.\.2"):
        images.subset([3, 5])


def test_read_returns_a_copy() -> None:
    images = array_set(2)
    images.read([0])[:] = 99
    assert images.read([0]).max() == 0


def test_image_sets_reject_wrong_shapes_and_lengths() -> None:
    with pytest.raises(ShapeError, match="uint8 RGB"):
        ArrayImageSet(np.zeros((2, 8, 8, 3), np.float32), ["a", "b"], name="x")
    with pytest.raises(ShapeError, match="2 images and 1 subject"):
        ArrayImageSet(np.zeros((2, 8, 8, 3), np.uint8), ["a"], name="x")
    with pytest.raises(ShapeError, match="1 files and 2 subject"):
        FileImageSet([Path("a")], ["a", "b"], name="x")
    with pytest.raises(DatasetError, match="one size"):
        concatenate([array_set(1), ArrayImageSet(np.zeros((1, 8, 8, 3), np.uint8), ["a"], name="x")], name="both")
    with pytest.raises(DatasetError, match="at least one"):
        concatenate([], name="none")


def test_cached_files_read_alike_and_keep_their_fingerprint(tiny_lfw: Path) -> None:
    files = read_lfw_images(tiny_lfw)
    cached = files.cached()
    everything = range(len(files))
    np.testing.assert_array_equal(cached.read(everything), files.read(everything))
    np.testing.assert_array_equal(files.read([4])[0], read_image(files.paths[4]))
    assert cached.fingerprint() == files.fingerprint()
    assert cached.cached() is cached
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(files)).read([2]), files.read([2]))


def test_fingerprints_tell_sets_apart(tiny_lfw: Path) -> None:
    files = read_lfw_images(tiny_lfw)
    prints = {files.fingerprint(), files.subset([1, 0]).fingerprint(), files.subset([0, 1]).fingerprint()}
    prints |= {concatenate([files, files.subset([0])], name="x").fingerprint(), array_set(2).fingerprint()}
    assert len(prints) == 5
    assert read_lfw_images(tiny_lfw).fingerprint() == files.fingerprint()
    files.paths[0].write_bytes(files.paths[0].read_bytes() + b"\0")
    assert files.fingerprint() not in prints
    renamed = ArrayImageSet(array_set(2).read([0, 1]), ["x", "y"], name="a")
    assert renamed.fingerprint() != array_set(2).fingerprint()


def test_cached_lists_all_bad_files(tiny_lfw: Path, crop: Callable[..., np.ndarray]) -> None:
    files = read_lfw_images(tiny_lfw)
    files.paths[1].write_bytes(b"")
    write_crop(crop(1, (50, 40)), files.paths[3])
    files.paths[5].write_bytes(files.paths[5].read_bytes()[:300])
    assert len(files.problems()) == 3
    with pytest.raises(ProblemsError) as caught:
        files.cached()
    text = str(caught.value)
    assert "3 problem(s)" in text
    assert "0 bytes" in text
    assert "40 x 50 pixels" in text and "112 x 112" in text and "`ppfr align`" in text
    assert "truncated" in text
    with pytest.raises(ImageReadError):
        files.read([1])


def test_read_folder_lists_all_problems(tmp_path: Path, crop: Callable[..., np.ndarray]) -> None:
    with pytest.raises(DatasetError, match="add images"):
        read_folder(tmp_path)
    write_crop(crop(1), tmp_path / "stray.png")
    with pytest.raises(DatasetError, match="one folder per person"):
        read_folder(tmp_path)
    write_crop(crop(2), tmp_path / "ann" / "1.png")
    write_crop(crop(3), tmp_path / "bob" / "1.jpg")
    (tmp_path / "bob" / "2.jpg").write_bytes(b"no image")
    (tmp_path / "bob" / "notes.txt").write_text("ignored")
    (tmp_path / "cy").mkdir()
    with pytest.raises(ProblemsError) as caught:
        read_folder(tmp_path)
    assert len(caught.value.problems) == 3
    (tmp_path / "stray.png").unlink()
    (tmp_path / "bob" / "2.jpg").unlink()
    (tmp_path / "cy").rmdir()
    images = read_folder(tmp_path)
    assert list(images.subject_ids) == ["ann", "bob"]
    np.testing.assert_array_equal(images.read([0])[0], crop(2))
    with pytest.raises(FileNotFoundError, match="Pass a folder"):
        read_folder(tmp_path / "nowhere")


def test_canonical_subject_unifies_spellings_but_not_numbers() -> None:
    assert canonical_subject("José_Núñez-Ruiz") == canonical_subject("jose nunez ruiz")
    assert canonical_subject("webface/12") != canonical_subject("webface/1_2x")


@pytest.mark.parametrize(
    ("subject_id", "is_name"),
    [
        ("José_Núñez-Ruiz", True),
        ("राम", True),
        ("王伟", True),
        ("synthetic-5/00012", True),
        ("synthetic-5-00012", True),
        ("webface/12", False),
        ("0000045", False),
        ("n000123", False),
        ("-", False),
    ],
)
def test_numbers_of_one_data_set_are_no_names(subject_id: str, is_name: bool) -> None:
    assert has_name(subject_id) is is_name


def test_hashes_of_subjects_are_of_the_canonical_name_and_bound_to_their_purpose() -> None:
    assert subject_hash("José_Núñez-Ruiz") == subject_hash("JOSE NUNEZ RUIZ") != subject_hash("Jose_Nunez")
    assert subject_hash("ann") == hashlib.sha256(b"ppfr: subject of a training set\0ann").hexdigest()
    assert len(subject_hash("half a surrogate pair: \udc80")) == 64


def test_assert_disjoint_counts_overlaps_without_names() -> None:
    one = ArrayImageSet(np.zeros((3, 8, 6, 3), np.uint8), ["Zoë_Quill", "Zoë_Quill", "b"], name="train")
    other = ArrayImageSet(np.zeros((1, 8, 6, 3), np.uint8), ["zoe quill"], name="test")
    with pytest.raises(
        OverlapError, match=r"'train' and 'test'.*share 1 \(2 images of the first\).*without_subjects"
    ) as e:
        assert_disjoint(one, other)
    assert "uill" not in str(e.value)
    kept = without_subjects_of(one, other)
    assert list(kept.subject_ids) == ["b"]
    assert_disjoint(kept, other)
    with pytest.raises(DatasetError, match="larger set"):
        without_subjects_of(other, one)


def protocol(**changes: object) -> PairProtocol:
    fields = {
        "name": "p",
        "images": array_set(6),
        "first": np.array([0, 2, 0]),
        "second": np.array([1, 3, 2]),
        "is_genuine": np.array([True, True, False]),
        "fold": np.array([0, 1, 1]),
    }
    return PairProtocol(**{**fields, **changes})


def test_protocols_know_their_images_and_people() -> None:
    pairs = protocol()
    assert len(pairs) == 3
    assert pairs.num_folds == 2
    assert pairs.used().tolist() == [0, 1, 2, 3]
    assert pairs.subjects() == {"a0", "a1"}
    with pytest.raises(ValueError, match="read-only"):
        pairs.first[0] = 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"first": np.array([0, 2])}, "one N"),
        ({"first": np.array([], int), "second": np.array([], int)}, "one N"),
        ({"second": np.array([1, 6, -1])}, r"2 pairs have a second image outside 0\.\.5"),
        ({"is_genuine": np.array([1, 1, 0])}, "must be of type bool"),
        ({"is_genuine": np.array([True, False, False])}, r"1 pairs have labels that contradict.*pair 1"),
        ({"fold": np.array([0, -1, 1])}, "0 or more"),
    ],
)
def test_pair_protocol_rejects_inconsistent_arrays(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ProblemsError, match=reason):
        protocol(**changes)


def test_sample_of_pairs_has_equal_numbers_of_each_fold_and_kind() -> None:
    whole = synthetic_pairs(SyntheticFaces(20, 3, seed=1).cached(), num_pairs=80, num_folds=4, seed=1)
    few = whole.sample(16, seed=1)
    assert (len(few), few.num_folds, few.name) == (16, 4, whole.name)
    for fold in range(4):
        assert few.is_genuine[few.fold == fold].sum() == 2 and (few.fold == fold).sum() == 4
    assert len(few.images) == len(few.used()) < len(whole.used()), "unused images are not read"
    assert whole.sample(16, seed=1).first.tolist() == few.first.tolist()
    pixels = {image.tobytes() for image in whole.images.read(whole.used().tolist())}
    assert all(image.tobytes() in pixels for image in few.images.read(range(len(few.images))))
    with pytest.raises(InvalidInputError, match="8"):
        whole.sample(7, seed=1)
