"""Galleries on disk: reading, damaged files, and interrupted appends."""

from __future__ import annotations

import pickle
import stat

import numpy as np
import pytest

from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    OutdatedTemplateError,
    PolynomialKeys,
    PolynomialShape,
    ProblemsError,
    RangeError,
    ShapeError,
    StorageError,
    UnsupportableError,
    new_reference_ids,
)
from ppfr.matching import KeyedGallery, KeyedMatcher


@pytest.fixture(scope="module")
def enrolled(make_enrolled):
    return make_enrolled(30, 20, 5, 1)


@pytest.fixture(params=["float32", "int8"])
def stored(request, enrolled, tmp_path):
    """(gallery on disk, its two paths, enrolled, ids)."""
    shape, _, templates, keys = enrolled
    paths = tmp_path / "a" / "templates.gal", tmp_path / "b" / "keys.gal"
    gallery = KeyedGallery.create(*paths, shape=shape, values=request.param)
    ids = new_reference_ids(30)
    for part in (slice(0, 10), slice(10, 11), slice(11, 30)):
        gallery.append(templates[part], part_of(keys, part), ids=ids[part])
    return gallery, paths, enrolled, ids


def part_of(keys, part):
    return PolynomialKeys(coefficients_Mm=keys.coefficients_Mm[part], exponents_Mm=keys.exponents_Mm[part])


def test_gallery_on_disk_equals_gallery_in_memory(stored):
    gallery, paths, (shape, rows, templates, keys), ids = stored
    opened = KeyedGallery.open(*paths)
    in_memory = KeyedGallery.in_memory(shape, templates, keys, ids=ids, values=gallery.values)
    assert opened.shape == shape and opened.values == gallery.values and len(opened) == len(gallery) == 30
    everything = np.arange(30)
    for one in (gallery, opened):
        np.testing.assert_array_equal(one.ids_of(everything), ids)
        np.testing.assert_array_equal(one.templates_of(everything), in_memory.templates_of(everything))
        np.testing.assert_array_equal(one.keys_of(everything).coefficients_Mm, keys.coefficients_Mm)
        np.testing.assert_array_equal(
            KeyedMatcher(one).top_k(rows, k=3).reference_Nk, KeyedMatcher(in_memory).top_k(rows, k=3).reference_Nk
        )
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if gallery.values == "float32":
        stored_bits = np.array([row[:-16].view("<f4") for row in opened._template_rows])
        np.testing.assert_array_equal(stored_bits, templates)


def test_keys_and_templates_are_in_different_files(stored):
    _, (templates_path, keys_path), (_, _, templates, keys), ids = stored
    packed = keys.coefficients_Mm[3].tobytes() + keys.exponents_Mm[3].tobytes()
    assert packed in keys_path.read_bytes() and packed not in templates_path.read_bytes()
    assert ids[3].tobytes() in templates_path.read_bytes() and ids[3].tobytes() not in keys_path.read_bytes()
    assert templates[3].tobytes() not in keys_path.read_bytes()


def test_append_does_not_rewrite_existing_rows(stored):
    gallery, paths, (_, _, templates, keys), _ = stored
    before = [path.read_bytes() for path in paths]
    gallery.append(templates[:2], part_of(keys, slice(0, 2)))
    for path, earlier in zip(paths, before, strict=True):
        assert path.read_bytes()[4096 : len(earlier)] == earlier[4096:]
    assert len(KeyedGallery.open(*paths)) == 32


def test_append_sees_references_that_another_handle_appended(stored):
    gallery, paths, (_, _, templates, keys), _ = stored
    other = KeyedGallery.open(*paths)
    added = gallery.append(templates[:1], part_of(keys, slice(0, 1)))
    with pytest.raises(ProblemsError, match="entry 0: its id is already in the gallery"):
        other.append(templates[:1], part_of(keys, slice(0, 1)), ids=added)
    other.append(templates[1:2], part_of(keys, slice(1, 2)))
    assert len(other) == 32 == len(KeyedGallery.open(*paths))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("cut", [1, 100, None])
def test_truncated_files_are_rejected(stored, which, cut):
    _, paths, _, _ = stored
    whole = paths[which].read_bytes()
    paths[which].write_bytes(whole[: len(whole) - cut] if cut else whole[:3000])
    with pytest.raises(CorruptTemplateError, match="is truncated"):
        KeyedGallery.open(*paths, verifies=False)


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_rows_are_detected(stored, which):
    _, paths, _, _ = stored
    damaged = bytearray(paths[which].read_bytes())
    damaged[-1] ^= 1
    paths[which].write_bytes(damaged)
    with pytest.raises(CorruptTemplateError):
        KeyedGallery.open(*paths)


def test_invalid_keys_are_rejected_even_without_verification(stored):
    """With invalid exponents, a kernel would read outside its tables."""
    _, paths, _, _ = stored
    damaged = bytearray(paths[1].read_bytes())
    damaged[-1] = 99
    paths[1].write_bytes(damaged)
    with pytest.raises(CorruptTemplateError, match="invalid keys; restore it"):
        KeyedGallery.open(*paths, verifies=False)


@pytest.mark.parametrize("at", [0, 10, 20, 40, 60])
def test_damaged_headers_are_detected(stored, at):
    _, paths, _, _ = stored
    damaged = bytearray(paths[0].read_bytes())
    damaged[at] ^= 1
    paths[0].write_bytes(damaged)
    with pytest.raises(CorruptTemplateError):
        KeyedGallery.open(*paths)


def test_later_versions_and_other_files_are_distinguished(stored, tmp_path):
    _, paths, _, _ = stored
    damaged = bytearray(paths[0].read_bytes())
    damaged[8] = 2
    paths[0].write_bytes(damaged)
    with pytest.raises(OutdatedTemplateError, match="format version 2"):
        KeyedGallery.open(*paths)
    with pytest.raises(CorruptTemplateError, match="not a gallery file of templates"):
        KeyedGallery.open(paths[1], paths[1])
    with pytest.raises(CorruptTemplateError, match="cannot be read"):
        KeyedGallery.open(tmp_path / "absent", paths[1])


def test_one_damaged_commit_is_tolerated_but_not_two(stored):
    """A crash while a commit is written does not damage the other one."""
    gallery, paths, _, _ = stored
    damaged = bytearray(paths[0].read_bytes())
    latest = 512 if int.from_bytes(damaged[512:520], "little") > int.from_bytes(damaged[1024:1032], "little") else 1024
    damaged[latest + 2] ^= 1
    paths[0].write_bytes(damaged)
    assert len(KeyedGallery.open(*paths, verifies=False)) == 11 < len(gallery)
    damaged[1536 - latest + 2] ^= 1
    paths[0].write_bytes(damaged)
    with pytest.raises(CorruptTemplateError, match="no readable commit"):
        KeyedGallery.open(*paths)


def test_append_interrupted_between_the_files_keeps_the_earlier_gallery(stored, monkeypatch):
    gallery, paths, (_, _, templates, keys), _ = stored
    from ppfr.matching import _row_files

    real, calls = _row_files.append, []

    def fails_on_templates(opened, header, latest, rows, ids_crc):
        calls.append(header.kind)
        if header.kind == "templates":
            raise StorageError("disk full")
        return real(opened, header, latest, rows, ids_crc)

    monkeypatch.setattr(_row_files, "append", fails_on_templates)
    with pytest.raises(StorageError, match="disk full"):
        gallery.append(templates[:3], part_of(keys, slice(0, 3)))
    assert calls == ["keys", "templates"]
    monkeypatch.undo()
    assert len(gallery) == 30 == len(KeyedGallery.open(*paths))
    gallery.append(templates[3:5], part_of(keys, slice(3, 5)))
    again = KeyedGallery.open(*paths)
    assert len(again) == 32
    np.testing.assert_array_equal(again.keys_of([30, 31]).coefficients_Mm, keys.coefficients_Mm[3:5])


def test_files_of_different_galleries_are_rejected(stored, tmp_path):
    _, paths, (shape, *_), _ = stored
    KeyedGallery.create(tmp_path / "t2", tmp_path / "k2", shape=shape)
    with pytest.raises(CorruptTemplateError, match="belong to different galleries"):
        KeyedGallery.open(paths[0], tmp_path / "k2")


def test_copy_can_omit_references_and_quantise(stored, tmp_path):
    gallery, _, _, ids = stored
    copy = gallery.copy_to(tmp_path / "t2", tmp_path / "k2", without=[bytes(ids[4]), bytes(ids[29])], values="int8")
    kept = [i for i in range(30) if i not in (4, 29)]
    assert len(copy) == 28 and copy.values == "int8"
    np.testing.assert_array_equal(copy.ids_of(np.arange(28)), ids[kept])
    np.testing.assert_allclose(copy.templates_of(np.arange(28)), gallery.templates_of(kept), atol=0.02)
    np.testing.assert_array_equal(copy.keys_of([4]).exponents_Mm, gallery.keys_of([5]).exponents_Mm)
    with pytest.raises(InvalidInputError, match="1 of the 1 ids in `without` are not in the gallery"):
        gallery.copy_to(tmp_path / "t3", tmp_path / "k3", without=[bytes(16)])


def test_all_duplicates_are_listed_and_nothing_is_added(stored):
    gallery, _, (_, _, templates, keys), ids = stored
    fresh = new_reference_ids(2)
    given = np.concatenate([ids[3:4], fresh, fresh[1:]])
    with pytest.raises(ProblemsError) as caught:
        gallery.append(templates[:4], part_of(keys, slice(0, 4)), ids=given)
    assert list(caught.value.problems) == [
        "entry 0: its id is already in the gallery",
        "entry 3: its id occurs more than once in the given ids",
    ]
    assert len(gallery) == 30


def test_memory_overhead_is_small():
    for overlap in range(5):
        shape = PolynomialShape(dim=512, num_terms=5, overlap=overlap)
        for values, size in (("float32", 4), ("int8", 1)):
            keys = PolynomialKeys(
                coefficients_Mm=np.tile(np.arange(1, 6, dtype=np.int8), (50, 1)),
                exponents_Mm=np.tile(np.arange(1, 6, dtype=np.uint8), (50, 1)),
            )
            templates = np.full((50, shape.num_windows), shape.num_windows**-0.5)
            gallery = KeyedGallery.in_memory(shape, templates, keys, values=values)
            assert gallery.num_bytes <= 1.3 * 50 * (shape.num_windows * size + 10)


def test_invalid_input_is_rejected(enrolled, tmp_path):
    shape, _, templates, keys = enrolled
    damaged = templates.copy()
    damaged[2, 0] = np.nan
    with pytest.raises(RangeError, match="templates contain values that are not finite"):
        KeyedGallery.in_memory(shape, damaged, keys)
    with pytest.raises(RangeError, match="30 of 30"):
        KeyedGallery.in_memory(shape, 2 * templates, keys)
    with pytest.raises(ShapeError, match="one key per template"):
        KeyedGallery.in_memory(shape, templates[:3], keys)
    with pytest.raises(ShapeError, match=r"must be \(M, "):
        KeyedGallery.in_memory(shape, templates[:, :-1], keys)
    with pytest.raises(ShapeError, match=r"\(30, 4\); must be \(30, 16\) bytes"):
        KeyedGallery.in_memory(shape, templates, keys, ids=np.zeros((30, 4), np.uint8))
    with pytest.raises(InvalidInputError, match="values='float16'; allowed: float32, int8"):
        KeyedGallery.in_memory(shape, templates, keys, values="float16")
    with pytest.raises(InvalidInputError, match="use two different files"):
        KeyedGallery.create(tmp_path / "one", tmp_path / "one", shape=shape)
    KeyedGallery.create(tmp_path / "t", tmp_path / "k", shape=shape)
    with pytest.raises(InvalidInputError, match="exists"):
        KeyedGallery.create(tmp_path / "t", tmp_path / "other", shape=shape)
    with pytest.raises(InvalidInputError, match="exists"):
        KeyedGallery.create(tmp_path / "other", tmp_path / "k", shape=shape)
    assert not (tmp_path / "other").exists()


def test_gallery_redacts_its_contents_and_cannot_be_pickled(enrolled):
    shape, _, templates, keys = enrolled
    gallery = KeyedGallery.in_memory(shape, templates, keys)
    assert "redacted" in repr(gallery) and "redacted" in repr(keys)
    for secret in (gallery, keys):
        with pytest.raises(UnsupportableError, match="cannot be pickled"):
            pickle.dumps(secret)


def test_half_precision_templates_are_normalised(enrolled):
    shape, _, templates, keys = enrolled
    gallery = KeyedGallery.in_memory(shape, templates.astype(np.float16), keys)
    stored = np.array([row[:-16].view("<f4") for row in gallery._template_rows], dtype=np.float64)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
