"""LFW and CFP in their official layouts: generated small ones for what goes wrong, the real ones for the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppfr.core import DatasetError, InvalidInputError, MissingAssetError, OverlapError, ProblemsError
from ppfr.data import (
    assert_disjoint,
    read_cfp,
    read_cfp_images,
    read_image,
    read_lfw,
    read_lfw_images,
    training_split_for_cfp,
    training_split_for_lfw,
)


def file_names(protocol: object, side: np.ndarray) -> list[str]:
    return [protocol.images.paths[index].name for index in side]


def test_lfw_pairs_are_the_ones_listed(tiny_lfw: Path) -> None:
    pairs = read_lfw(tiny_lfw)
    assert file_names(pairs, pairs.first)[:4] == [
        "Ann_Lee_0001.jpg",
        "Bob_Ray_0002.jpg",
        "Ann_Lee_0001.jpg",
        "Ed_Elm_0002.jpg",
    ]
    assert file_names(pairs, pairs.second)[:4] == [
        "Ann_Lee_0002.jpg",
        "Bob_Ray_0003.jpg",
        "Bob_Ray_0003.jpg",
        "Bob_Ray_0001.jpg",
    ]
    assert pairs.is_genuine.tolist() == [True, True, False, False] * 2
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4
    assert len(pairs.images) == 18
    assert "Flo_Ash" not in pairs.subjects()
    assert len(read_lfw(tiny_lfw / "lfw112")) == 8


def test_missing_images_of_pairs_are_all_listed_by_line(tiny_lfw: Path) -> None:
    for name in ("Ann_Lee/Ann_Lee_0001.jpg", "Cy_Fox/Cy_Fox_0002.jpg"):
        (tiny_lfw / "lfw112" / name).unlink()
    with pytest.raises(ProblemsError) as caught:
        read_lfw(tiny_lfw)
    assert caught.value.problems == (
        "line 2: the first image is missing",
        "line 4: the first image is missing",
        "line 6: the second image is missing",
    )
    assert "fetch the set again" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[1:], "first line must be"),
        (lambda lines: lines[:-1], "announces 2 folds of 2 x 2 pairs"),
        (lambda lines: [], "first line must be"),
        (lambda lines: [lines[0], "Ann_Lee\tone\t2", *lines[2:]], "line 2: expected a genuine pair"),
        (lambda lines: [*lines[:3], lines[1], *lines[4:]], "line 4: expected a impostor pair"),
    ],
)
def test_read_lfw_rejects_malformed_pair_lists(change: object, reason: str, tiny_lfw: Path) -> None:
    path = tiny_lfw / "lfw112" / "pairs.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(DatasetError if "line must" in reason or "announces" in reason else ProblemsError, match=reason):
        read_lfw(tiny_lfw)


def test_missing_sets_name_directories_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="ppfr data fetch lfw") as caught:
        read_lfw(tmp_path)
    assert caught.value.looked_in == (str(tmp_path / "lfw112"), str(tmp_path))
    with pytest.raises(MissingAssetError, match="distributed by its authors"):
        read_cfp(tmp_path, "FF")
    (tmp_path / "pairs.txt").write_text("10\t300\n")
    with pytest.raises(DatasetError, match="contains no image"):
        read_lfw(tmp_path)


def test_cfp_pairs_take_frontal_then_profile(tiny_cfp: Path) -> None:
    for kind, second in (("FF", "frontal"), ("FP", "profile")):
        pairs = read_cfp(tiny_cfp, kind)
        assert len(pairs) == 40
        assert pairs.num_folds == 10
        shown = [pairs.images.paths[index].parts[-3:] for index in (pairs.first[2], pairs.second[2])]
        assert shown == [("001", "frontal", "01.jpg"), ("004", second, "02.jpg")]
        assert pairs.is_genuine[:4].tolist() == [True, True, False, False]
    with pytest.raises(InvalidInputError, match=r"kind is 'PP'.*'FF' and 'FP'"):
        read_cfp(tiny_cfp, "PP")


def test_cfp_problems_are_all_listed(tiny_cfp: Path) -> None:
    folder = tiny_cfp / "cfp112"
    (folder / "002/profile/01.jpg").unlink()
    (folder / "Protocol/Split/FP/03/same.txt").unlink()
    (folder / "Protocol/Split/FP/04/diff.txt").write_text("1;2\n1,99\n")
    with pytest.raises(ProblemsError) as caught:
        read_cfp(tiny_cfp, "FP")
    assert caught.value.problems == (
        "Protocol/Pair_list_P.txt line 3: 002/profile/01.jpg is missing",
        "Protocol/Split/FP/03/same.txt is missing",
        "Protocol/Split/FP/04/diff.txt line 1: expected 'number,number'",
        "Protocol/Split/FP/04/diff.txt line 2: a number is not in the pair list",
    )
    (folder / "names.txt").write_text("Ann Lee\nAnn Lee\n")
    with pytest.raises(DatasetError, match=r"names\.txt .*a person twice.*download"):
        read_cfp_images(tiny_cfp)


def test_splits_are_disjoint_although_the_sets_spell_names_differently(tiny_cfp: Path) -> None:
    lfw_pairs, cfp_pairs = read_lfw(tiny_cfp), read_cfp(tiny_cfp, "FF")
    train = training_split_for_lfw(tiny_cfp)
    assert set(train.subject_ids) == {"Guy_Bay", "Hal_Ivy", "Flo_Ash"}
    assert_disjoint(train, lfw_pairs.used_images())
    train = training_split_for_cfp(tiny_cfp)
    assert set(train.subject_ids) == {"Bob_Ray", "Cy_Fox", "Di_Oak", "Flo_Ash"}
    assert_disjoint(train, cfp_pairs.used_images())
    listed = training_split_for_lfw(tiny_cfp, leaves_out="listed")
    assert set(listed.subject_ids) == {"ED_ELM", "Guy_Bay", "Hal_Ivy", "Flo_Ash"}
    with pytest.raises(OverlapError, match="share 1 "):
        assert_disjoint(listed, lfw_pairs.used_images())
    with pytest.raises(InvalidInputError, match=r"leaves_out is 'some'.*'all' or 'listed'"):
        training_split_for_lfw(tiny_cfp, leaves_out="some")


@pytest.mark.real_data
def test_real_lfw_is_complete(data_root: Path) -> None:
    pairs = read_lfw(data_root)
    assert (len(pairs), pairs.num_folds, int(pairs.is_genuine.sum())) == (6000, 10, 3000)
    assert np.bincount(pairs.fold).tolist() == [600] * 10
    assert (len(pairs.images), len(set(pairs.images.subject_ids))) == (13_233, 5_749)
    assert np.unique(np.bincount(pairs.fold[pairs.is_genuine])).tolist() == [300]


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["FF", "FP"])
def test_real_cfp_is_complete(kind: str, data_root: Path) -> None:
    pairs = read_cfp(data_root, kind)
    assert (len(pairs), pairs.num_folds, int(pairs.is_genuine.sum())) == (7000, 10, 3500)
    assert (len(pairs.images), len(set(pairs.images.subject_ids))) == (7_000, 500)
    poses = {pairs.images.paths[index].parent.name for index in pairs.second}
    assert poses == {"frontal" if kind == "FF" else "profile"}


@pytest.mark.real_data
def test_real_splits_are_disjoint_and_the_list_by_exact_names_is_not(data_root: Path) -> None:
    lfw_used, cfp = read_lfw(data_root).used_images(), read_cfp_images(data_root)
    train = training_split_for_lfw(data_root)
    assert (len(train), len(set(train.subject_ids))) == (5_679, 1_763)
    assert_disjoint(train, lfw_used)
    listed = training_split_for_lfw(data_root, leaves_out="listed")
    assert len(listed) == 6_141
    with pytest.raises(OverlapError, match=r"share 31 \(434 images"):
        assert_disjoint(listed, lfw_used)
    train = training_split_for_cfp(data_root)
    assert (len(train), len(set(train.subject_ids))) == (10_403, 5_544)
    assert_disjoint(train, cfp)
    listed = training_split_for_cfp(data_root, leaves_out="listed")
    assert len(listed) == 11_376
    with pytest.raises(OverlapError, match="share 33 "):
        assert_disjoint(listed, cfp)


@pytest.mark.real_data
def test_crops_equal_the_decoded_files(data_root: Path) -> None:
    images = read_lfw_images(data_root)
    for index in (7, 1000, 13_232):
        np.testing.assert_array_equal(images.read([index])[0], read_image(images.paths[index]))
