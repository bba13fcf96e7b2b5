"""Sets packed in one file: InsightFace .bin and .rec, WebDataset shards."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppfr.core import DatasetError, ImageReadError, InvalidInputError, MissingAssetError, PpfrError, ProblemsError
from ppfr.data import read_image, read_insightface_bin, read_rec, read_shards, write_insightface_bin
from ppfr.data._rec import read_record
from ppfr.systems import read_images
from reference import recordio

Crop = Callable[..., np.ndarray]


def jpeg(crop_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(crop_HWC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def encoded(crop: Crop) -> list[bytes]:
    return [jpeg(crop(seed)) for seed in range(24)]


FLAGS = [True, False, True, True, False, True, False, False, True, True, False, True]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["lists", "arrays", "scalars", "numbers"])
def test_bin_of_every_pickle_protocol(protocol: int, form: str, encoded: list[bytes], tmp_path: Path) -> None:
    content: tuple[Any, Any] = {
        "lists": (encoded, FLAGS),
        "arrays": ([np.frombuffer(image, np.uint8) for image in encoded], np.array(FLAGS)),
        "scalars": (encoded, [np.bool_(flag) for flag in FLAGS]),
        "numbers": (tuple(encoded), [int(flag) for flag in FLAGS]),
    }[form]
    (tmp_path / "tiny.bin").write_bytes(pickle.dumps(content, protocol=protocol))
    pairs = read_insightface_bin(tmp_path / "tiny.bin")
    assert pairs.name == "tiny"
    assert pairs.is_genuine.tolist() == FLAGS
    assert pairs.fold.tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(pairs.images.read([5])[0], read_image(encoded[5]))
    assert len(pairs.images.fingerprint()) == 64


def test_bin_of_python_2(encoded: list[bytes], tmp_path: Path) -> None:
    """Protocol 2 with byte strings, as the original script under Python 2 wrote it."""
    out = b"\x80\x02]("
    for image in encoded:
        out += b"T" + len(image).to_bytes(4, "little") + image
    out += b"e](" + b"".join(b"\x88" if flag else b"\x89" for flag in FLAGS) + b"e\x86."
    (tmp_path / "old.bin").write_bytes(out)
    pairs = read_insightface_bin(tmp_path / "old.bin")
    np.testing.assert_array_equal(pairs.images.read([3])[0], read_image(encoded[3]))


def python_2_text(data: bytes) -> bytes:
    """A byte string in a pickle of protocol 0, as Python 2 wrote it."""
    return b"S'" + b"".join(b"\\x%02x" % byte for byte in data) + b"'\n"


def test_bin_of_python_2_in_text(encoded: list[bytes], tmp_path: Path) -> None:
    """Protocol 0: byte strings in text, which `pickletools` takes for ASCII."""
    out = b"((l" + b"".join(python_2_text(image) + b"a" for image in encoded)
    out += b"(l" + b"".join(b"I01\na" if flag else b"I00\na" for flag in FLAGS) + b"t."
    (tmp_path / "old.bin").write_bytes(out)
    pairs = read_insightface_bin(tmp_path / "old.bin")
    assert pairs.is_genuine.tolist() == FLAGS
    np.testing.assert_array_equal(pairs.images.read([3])[0], read_image(encoded[3]))


def test_bin_of_python_2_with_scalars(encoded: list[bytes], tmp_path: Path) -> None:
    """NumPy booleans of Python 2 hold text; a text with one zero byte counted as true."""
    out = b"\x80\x02](" + b"".join(b"T" + len(image).to_bytes(4, "little") + image for image in encoded) + b"e]("
    for flag in FLAGS:
        out += b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02b1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        out += b"J\xff\xff\xff\xffK\x00tbU\x01" + bytes([flag]) + b"tR"
    (tmp_path / "old.bin").write_bytes(out + b"e\x86.")
    assert read_insightface_bin(tmp_path / "old.bin").is_genuine.tolist() == FLAGS


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<i4", ">i4", "<i8", ">i8"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_bin_with_integer_arrays_as_flags(dtype: str, protocol: int, encoded: list[bytes], tmp_path: Path) -> None:
    """Each byte of an integer counted as a flag."""
    (tmp_path / "a.bin").write_bytes(pickle.dumps((encoded, np.array(FLAGS).astype(dtype)), protocol=protocol))
    assert read_insightface_bin(tmp_path / "a.bin").is_genuine.tolist() == FLAGS


def test_bin_is_written_and_read_back(encoded: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps((encoded, FLAGS)))
    pairs = read_insightface_bin(tmp_path / "a.bin")
    write_insightface_bin(pairs, tmp_path / "b.bin")
    back = read_insightface_bin(tmp_path / "b.bin")
    assert back.is_genuine.tolist() == FLAGS
    np.testing.assert_array_equal(back.images.read(range(24)), pairs.images.read(range(24)))
    images, flags = pickle.loads((tmp_path / "b.bin").read_bytes())  # as InsightFace itself reads it
    assert (len(images), flags) == (24, FLAGS)


def test_bin_joins_who_is_provably_one_person(encoded: list[bytes], tmp_path: Path) -> None:
    images = [*encoded[:4], encoded[0], *encoded[5:]]  # image 4 is image 0 again: pairs 0 and 2 show one person
    (tmp_path / "a.bin").write_bytes(pickle.dumps((images, FLAGS)))
    subjects = read_insightface_bin(tmp_path / "a.bin").images.subject_ids
    assert subjects[0] == subjects[1] == subjects[4] == subjects[5]
    assert len(set(subjects)) == 24 - sum(FLAGS) - 1


def test_bin_that_contradicts_itself_keeps_to_its_flags(encoded: list[bytes], tmp_path: Path) -> None:
    """Label noise: the same bytes on both sides of an impostor pair (pair 1 is images 2 and 3)."""
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([*encoded[:3], encoded[2], *encoded[4:]], FLAGS)))
    pairs = read_insightface_bin(tmp_path / "a.bin")
    assert pairs.is_genuine.tolist() == FLAGS
    assert len(set(pairs.images.subject_ids)) == 24 - sum(FLAGS)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path, how: str) -> None:
        self.path, self.how = path, how

    def __reduce__(self) -> tuple[Any, ...]:
        if self.how == "system":
            return os.system, (f"touch {self.path}",)
        if self.how == "eval":
            return eval, (f"open({str(self.path)!r}, 'w')",)
        return __import__, ("antigravity",)


@pytest.mark.parametrize("how", ["system", "eval", "import"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["image", "flags", "all"])
def test_malicious_pickles_are_not_run(
    how: str, protocol: int, place: str, encoded: list[bytes], tmp_path: Path
) -> None:
    hostile = Hostile(tmp_path / "owned", how)
    content = {"image": ([*encoded[:-1], hostile], FLAGS), "flags": (encoded, hostile), "all": hostile}[place]
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(DatasetError, match=r"calls .*Nothing in it was run"):
        read_insightface_bin(tmp_path / "evil.bin")
    assert not (tmp_path / "owned").exists()


def test_a_huge_memo_index_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    with pytest.raises(DatasetError):
        read_insightface_bin(tmp_path / "a.bin")


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_pickles_raise_dataset_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(([b"ab", b"cd"] * 12, FLAGS), protocol=data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("bin") / "a.bin"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        read_insightface_bin(path)
    except PpfrError as error:
        assert "a.bin" in str(error) or "pair" in str(error)


def test_bin_without_enough_pairs_or_absent(encoded: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps((encoded[:-1], FLAGS)))
    with pytest.raises(DatasetError, match=r"23 images for 12 pairs.*Download it again"):
        read_insightface_bin(tmp_path / "a.bin")
    with pytest.raises(MissingAssetError, match="data zoo"):
        read_insightface_bin(tmp_path / "b.bin")
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([b"junk%d" % number for number in range(24)], FLAGS)))
    with pytest.raises(ImageReadError, match="image 3 of 'a'"):
        read_insightface_bin(tmp_path / "a.bin").images.read([3])


def write_training_set(path: Path, encoded: list[bytes], *, as_array: bool) -> None:
    """Six images of three classes, the records of the classes after them and the header before, as InsightFace does."""
    records = [(0, recordio.image_record(b"", [7.0, 10.0], 0, as_array=True))]
    for key in range(1, 7):
        labels = [float((key - 1) // 2), 1.0] if as_array else [float((key - 1) // 2)]
        records.append((key, recordio.image_record(encoded[key], labels, key, as_array=as_array)))
    for number in range(3):
        first = 1.0 + 2 * number
        records.append((7 + number, recordio.image_record(b"", [first, first + 2], 7 + number, as_array=True)))
    recordio.write_rec(path, records)


@pytest.mark.parametrize("as_array", [False, True])
def test_rec_gives_images_and_classes(as_array: bool, encoded: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "faces" / "train.rec"
    path.parent.mkdir()
    write_training_set(path, encoded, as_array=as_array)
    images = read_rec(path, path.with_suffix(".idx"))
    assert images.name == "faces"
    assert list(images.subject_ids) == ["faces/0", "faces/0", "faces/1", "faces/1", "faces/2", "faces/2"]
    expected = np.stack([read_image(encoded[key]) for key in (6, 1, 3)])
    np.testing.assert_array_equal(images.read([5, 0, 2]), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images)).read([5, 0, 2]), expected)
    assert len(images.fingerprint()) == 64


def test_rec_without_a_header_record_takes_every_key(encoded: list[bytes], tmp_path: Path) -> None:
    records = [(key, recordio.image_record(encoded[key], [key], key, as_array=False)) for key in (0, 1, 2)]
    recordio.write_rec(tmp_path / "a.rec", records)
    images = read_rec(tmp_path / "a.rec", name="plain")
    assert list(images.subject_ids) == ["plain/0", "plain/1", "plain/2"]


def test_rec_with_more_records_than_float32_counts(encoded: list[bytes], tmp_path: Path) -> None:
    """The header states the first class record as float32: 2^24 + 3 reads as 2^24 + 4, a class record's key."""
    first_class = (1 << 24) + 3
    records = [(0, recordio.image_record(b"", [float(first_class), first_class + 2.0], 0, as_array=True))]
    for number, key in enumerate((1, 2, first_class - 2, first_class - 1)):
        records.append((key, recordio.image_record(encoded[key % 24], [float(number // 2)], key, as_array=False)))
    for key in (first_class, first_class + 1):
        records.append((key, recordio.image_record(b"", [1.0, 3.0], key, as_array=True)))
    recordio.write_rec(tmp_path / "a.rec", records)
    images = read_rec(tmp_path / "a.rec", name="big")
    assert list(images.subject_ids) == ["big/0", "big/0", "big/1", "big/1"]
    recordio.write_rec(tmp_path / "a.rec", [(0, recordio.image_record(encoded[0], [2.0**24], 0, as_array=False))])
    with pytest.raises(DatasetError, match="number them from 0"):
        read_rec(tmp_path / "a.rec")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.binary(max_size=9), st.just(bytes.fromhex("0a23d7ce"))), max_size=9).map(b"".join))
def test_records_that_hold_the_magic_word_come_back_whole(data: bytes) -> None:
    before = recordio.record(b"before!")
    assert read_record(before + recordio.record(data), len(before)) == data


def test_read_rec_rejects_damaged_files_with_a_remedy(encoded: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    write_training_set(path, encoded, as_array=False)
    whole, index = path.read_bytes(), path.with_suffix(".idx").read_text()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="ends before"):
        read_rec(path)
    path.write_bytes(whole)
    path.with_suffix(".idx").write_text(index.replace("\n3\t", "\n3\t1"))
    with pytest.raises(DatasetError, match="download both files again"):
        read_rec(path)
    path.with_suffix(".idx").write_text("0\t0\none\t2\n3\n")
    with pytest.raises(ProblemsError, match=r"(?s)2 problem.*line 2.*line 3"):
        read_rec(path)
    path.with_suffix(".idx").write_text(index + index.splitlines()[2] + "\n")
    with pytest.raises(ProblemsError, match="key 2 occurs in an earlier line"):
        read_rec(path)
    path.with_suffix(".idx").unlink()
    with pytest.raises(MissingAssetError, match="pass both paths"):
        read_rec(path)
    path.with_suffix(".idx").write_text("0\t0\n")
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="is empty"):
        read_rec(path)
    path.write_bytes(recordio.image_record(b"x" * 40, [1.5], 0, as_array=False))
    with pytest.raises(DatasetError, match="not class numbers"):
        read_rec(path)


def write_shard(path: Path, files: dict[str, bytes], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_shards_are_read_in_any_order(encoded: list[bytes], crop: Crop, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(crop(99)).save(buffer, "PNG")
    first = {"a/001.jpg": encoded[1], "a/001.cls": b"12\n", "b/001.jpg": encoded[2], "b/001.cls": b"13"}
    second = {
        "003.json": json.dumps({"subject": "Ann_Lee", "age": 3}).encode(),
        "003.png": buffer.getvalue(),
        "003.caption.txt": b"passed over",
        "004.jpeg": encoded[4],
        "004.json": json.dumps({"label": 7}).encode(),
    }
    shards = [write_shard(tmp_path / "0.tar", first), write_shard(tmp_path / "1.tar", second)]
    images = read_shards(shards, name="web")
    assert list(images.subject_ids) == ["web/12", "web/13", "Ann_Lee", "web/7"]
    expected = np.stack([crop(99), read_image(encoded[1]), read_image(encoded[4]), read_image(encoded[2])])
    np.testing.assert_array_equal(images.read([2, 0, 3, 1]), expected)
    assert pickle.loads(pickle.dumps(images)).fingerprint() == images.fingerprint()


def test_shards_with_dots_in_names_and_labels_of_other_kinds(encoded: list[bytes], tmp_path: Path) -> None:
    """Files were grouped up to the first dot, so that names with several dots were passed over."""
    files = {
        "Ann.Lee.001.jpg": encoded[0],
        "Ann.Lee.001.cls": b"Ann Lee",
        "Ann.Lee.002.JPG": encoded[1],
        "Ann.Lee.002.txt": b"\xef\xbb\xbfAnn Lee\r\n",
        "7.png": encoded[2],
        "7.json": b'{"label": 7.0}',
        "7.mask.png": encoded[3],
        "7.caption.txt": b"a field of sample 7",
    }
    images = read_shards([write_shard(tmp_path / "0.tar", files)], name="web")
    assert list(images.subject_ids) == ["Ann Lee", "Ann Lee", "web/7"]
    np.testing.assert_array_equal(images.read([2])[0], read_image(encoded[2]))


@pytest.mark.parametrize("how", ["folder", "range"])
def test_many_shards_are_one_set(how: str, encoded: list[bytes], tmp_path: Path) -> None:
    for number in (8, 9, 10):
        write_shard(tmp_path / f"web-{number:03}.tar", {"1.jpg": encoded[number], "1.cls": str(number % 2).encode()})
    images = read_images(str(tmp_path if how == "folder" else tmp_path / "web-{008..010}.tar"))
    prefix = tmp_path.name if how == "folder" else "web"
    assert list(images.subject_ids) == [f"{prefix}/0", f"{prefix}/1", f"{prefix}/0"]
    with pytest.raises(MissingAssetError, match="1 of 4 shards"):
        read_images(str(tmp_path / "web-{008..011}.tar"))
    with pytest.raises(InvalidInputError, match="range"):
        read_images(str(tmp_path / "web-{11..08}.tar"))


def test_read_shards_lists_all_problems(encoded: list[bytes], tmp_path: Path) -> None:
    files = {
        "1.jpg": encoded[1],
        "2.cls": b"2",
        "3.jpg": encoded[3],
        "3.json": b"{not json",
        "4.jpg": encoded[4],
        "4.json": b'{"age": 3}',
        "5.jpg": encoded[5],
        "5.cls": b" ",
        "6.jpg": encoded[6],
        "6.cls": b"6",
    }
    good = write_shard(tmp_path / "good.tar", files)
    packed = write_shard(tmp_path / "packed.tar", files, mode="w:gz")
    (tmp_path / "text.tar").write_text("no tar")
    (tmp_path / "cut.tar").write_bytes(good.read_bytes()[:1500])
    with pytest.raises(ProblemsError) as caught:
        read_shards([good, packed, tmp_path / "text.tar", tmp_path / "cut.tar"], name="web")
    text = str(caught.value)
    for part in ("has no subject", "no image", "damaged .json", "without a subject", "unpack it to a plain .tar"):
        assert part in text, part
    assert "text.tar is damaged" in text
    assert "cut.tar: ends within" in text
    with pytest.raises(MissingAssetError, match="1 of 2 shards"):
        read_shards([good, tmp_path / "absent.tar"], name="web")
    with pytest.raises(DatasetError, match="at least one"):
        read_shards([], name="web")
    with pytest.raises(DatasetError, match="no samples"):
        read_shards([write_shard(tmp_path / "none.tar", {"readme.txt": b"x"})], name="web")
