"""Folders, text files and pair lists as people have them: upper case, links, hidden files, other encodings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppfr.core import DatasetError, InvalidInputError, MissingAssetError, ProblemsError
from ppfr.data import (
    AlignedFace,
    FaceQuality,
    align_folder,
    list_photos,
    parse_lfw_pairs,
    read_cfp,
    read_folder,
    read_lfw,
    read_pair_list,
)
from ppfr.data._text import read_lines
from ppfr.systems import read_protocol

Crop = Callable[..., np.ndarray]


class Resizer:
    """An aligner that takes the photo itself for the face."""

    def aligned_face(self, photo_HWC: np.ndarray) -> AlignedFace:
        crop_HWC = np.asarray(Image.fromarray(photo_HWC).resize((112, 112)))
        return AlignedFace(crop_HWC=crop_HWC, quality=FaceQuality.measure(crop_HWC))


@pytest.fixture
def mixed_folder(tmp_path: Path, crop: Crop) -> Path:
    """Photos of rarer suffixes, a linked folder, hidden files, and files that are no photos."""
    outside, folder = tmp_path / "outside", tmp_path / "photos"
    for person in (outside, folder / "ann"):
        person.mkdir(parents=True)
    for name in ("A.JPG", "b.jpe", "c.jfif", "d.Pgm", "e.pnm", "f.png"):
        kind = {".pgm": "PPM", ".pnm": "PPM", ".png": "PNG"}.get(Path(name).suffix.lower(), "JPEG")
        Image.fromarray(crop(1)).save(folder / "ann" / name, kind)
    Image.fromarray(crop(2)).save(outside / "1.png")
    (folder / "bob").symlink_to(outside, target_is_directory=True)
    (folder / "ann" / "link.png").symlink_to(outside / "1.png")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "1.png").write_bytes(b"no image")
    (folder / "ann" / "._A.JPG").write_bytes(b"resource fork of macOS")
    (folder / "ann" / "x.HEIC").write_bytes(b"heic")
    (folder / "notes.txt").write_text("left out")
    return folder


def test_every_reader_finds_the_same_photos(mixed_folder: Path, tmp_path: Path) -> None:
    listing = list_photos(mixed_folder)
    found = [path.relative_to(mixed_folder).as_posix() for path in listing.photos]
    names = ["A.JPG", "b.jpe", "c.jfif", "d.Pgm", "e.pnm", "f.png", "link.png"]
    assert found == [*(f"ann/{name}" for name in names), "bob/1.png"]
    assert [path.name for path in listing.left_out] == ["x.HEIC", "notes.txt"]
    assert "2: 1 .heic (convert it to JPEG" in listing.describe_left_out()
    assert [path.relative_to(mixed_folder).as_posix() for path in read_folder(mixed_folder).paths] == found
    crops = align_folder(mixed_folder, tmp_path / "crops", Resizer())
    assert [path.relative_to(tmp_path / "crops").as_posix() for path in crops][-1] == "bob/1.png"
    assert len(crops) == len(found)


def test_folders_without_photos_say_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heif").write_bytes(b"heif")
    with pytest.raises(DatasetError, match=r"no photo.*1 \.heif \(convert it to JPEG"):
        align_folder(tmp_path / "in", tmp_path / "out", Resizer())
    with pytest.raises(MissingAssetError, match="Give a folder"):
        list_photos(tmp_path / "absent")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    with pytest.raises(InvalidInputError, match="remove the link"):
        list_photos(tmp_path / "in")


def test_read_folder_says_what_is_in_folders_without_images(mixed_folder: Path) -> None:
    for name, file in (("cleo", "a.heif"), ("dan", "2020/a.jpg"), ("eve", "a.zip"), ("fay", ".a.jpg")):
        (mixed_folder / name / file).parent.mkdir(parents=True)
        (mixed_folder / name / file).write_bytes(b"file")
    with pytest.raises(ProblemsError) as caught:
        read_folder(mixed_folder, check=False)
    expected = {"cleo": "1 .heif (convert it", "dan": "2020/ (move", "eve": ".zip (unpack it first", "fay": "none"}
    assert len(caught.value.problems) == len(expected)
    for problem, (name, left_out) in zip(caught.value.problems, expected.items(), strict=True):
        assert problem.startswith(f"{name}/") and left_out in problem, problem
    with pytest.raises(DatasetError, match=r"cleo contains no image .*1: 1 \.heif \(convert it to JPEG"):
        read_folder(mixed_folder / "cleo")
    with pytest.raises(DatasetError, match=r"1 are directly in it.*left out: none"):
        read_folder(mixed_folder / "dan" / "2020")


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \n"])
def test_lines_are_read_in_any_encoding(encoding: str, end: str, tmp_path: Path) -> None:
    lines = ["Ann_Lee\t1\t2", "", "José\t1"]
    (tmp_path / "a.txt").write_bytes(end.join([*lines, "", ""]).encode(encoding))
    assert read_lines(tmp_path / "a.txt") == lines
    (tmp_path / "a.txt").write_bytes("José".encode("latin-1"))
    with pytest.raises(DatasetError, match="save it as UTF-8"):
        read_lines(tmp_path / "a.txt")


@pytest.mark.parametrize("change", ["utf-16", "crlf", "blanks"])
def test_official_lists_are_read_as_editors_save_them(change: str, tiny_cfp: Path) -> None:
    def save(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        if change == "blanks":
            text = "\n".join(line.replace("\t", "  ") + "  " for line in text.splitlines()) + "\n\n"
        path.write_bytes(
            (text.replace("\n", "\r\n") if change == "crlf" else text).encode(
                "utf-16" if change == "utf-16" else "utf-8"
            )
        )

    expected_lfw, expected_cfp = read_lfw(tiny_cfp), read_cfp(tiny_cfp, "FP")
    save(tiny_cfp / "lfw112" / "pairs.txt")
    for path in (tiny_cfp / "cfp112").rglob("*.txt"):
        if path.name != "also_in_lfw.txt" or change != "blanks":  # names in it contain blanks
            save(path)
    for found, expected in ((read_lfw(tiny_cfp), expected_lfw), (read_cfp(tiny_cfp, "FP"), expected_cfp)):
        np.testing.assert_array_equal(found.first, expected.first)
        np.testing.assert_array_equal(found.second, expected.second)
        assert found.images.subject_ids == expected.images.subject_ids


def test_development_lists_of_lfw_are_divided_into_folds(tiny_lfw: Path) -> None:
    official = (tiny_lfw / "lfw112" / "pairs.txt").read_text().splitlines()
    lines = ["2", *official[1:5]]
    pairs = parse_lfw_pairs(lines, read_lfw(tiny_lfw).images, name="dev")
    assert pairs.is_genuine.tolist() == [True, True, False, False]
    assert pairs.fold.tolist() == [0, 1, 0, 1]
    (tiny_lfw / "lfw112" / "pairsDevTest.txt").write_text("\n".join(lines))
    assert len(read_protocol(str(tiny_lfw / "lfw112" / "pairsDevTest.txt"))) == 4


@pytest.fixture
def own_faces(tmp_path: Path, crop: Crop) -> Path:
    for person in ("ann", "bob"):
        (tmp_path / person).mkdir()
        for number in (1, 2):
            Image.fromarray(crop(number)).save(tmp_path / person / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_own_pairs_over_an_own_folder_are_a_protocol(separator: str, own_faces: Path) -> None:
    rows = [("ann/1.png", "ann/2.png", "1"), ("./bob/1.png", "bob\\2.png", "same"), ("ann/1.png", "bob/1.png", "0")]
    (own_faces / "mine.csv").write_text("# pairs\n\n" + "\n".join(separator.join(row) for row in rows) + "\n")
    pairs = read_protocol(str(own_faces / "mine.csv"))
    assert pairs.name == "mine"
    assert [pairs.images.paths[index].parent.name for index in pairs.second] == ["ann", "bob", "bob"]
    assert pairs.is_genuine.tolist() == [True, True, False]


def test_all_problems_of_a_pair_list_are_reported(own_faces: Path) -> None:
    path = own_faces / "mine.txt"
    path.write_text("ann/1.png ann/9.png 1\nann/1.png bob/1.png\nann/1.png bob/1.png maybe\n")
    with pytest.raises(ProblemsError) as caught:
        read_pair_list(path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["line 1", "line 2", "line 3"]
    path.write_text("# nothing\n")
    with pytest.raises(DatasetError, match="no pairs"):
        read_pair_list(path)
    with pytest.raises(MissingAssetError, match="list of pairs"):
        read_pair_list(own_faces / "absent.txt")
    path.write_text("ann/1.png bob/1.png 1\n")
    with pytest.raises(ProblemsError, match="contradict"):
        read_pair_list(path)
