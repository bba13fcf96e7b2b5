"""Changes: validation of subjects, and digests that the three parties and a client can compare."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest

from ppfr.core import InvalidInputError, ShapeError, UnsupportableError, new_reference_ids
from ppfr.secure import (
    Enrolment,
    FixedPoint,
    Refresh,
    Removal,
    gallery_digest,
    normalised_subject,
    normalised_subjects,
    share_rows,
)

POINT = FixedPoint(dim=8)
NAMES = ("ana", "\u00e9va")
REFUSED = {
    "control": "a\nb",
    "escape": "a\x1b[2Jb",
    "del": "a\x7f",
    "c1": "a\x85",
    "surrogate": "a\ud800",
    "line": "a\u2028b",
    "paragraph": "a\u2029b",
    "right to left": "a\u202eb",
    "isolate": "a\u2066b",
    "soft hyphen": "a\u00adb",
    "zero width space": "a\u200bb",
    "mark of order": "\ufeffa",
    "tag": "a\U000e0041",
    "private": "a\ue000",
    "unassigned": "a\u0378",
    "joiner at the end": "a\u200d",
    "joiner at the start": "\u200da",
    "joiner after a digit": "1\u200da",
}


def parts(change_id=b"c" * 16, subjects=NAMES):
    unit_ND = np.eye(8)[: len(subjects)]
    return [Enrolment(change_id=change_id, rows=rows, subjects=subjects) for rows in share_rows(unit_ND, POINT)]


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED.keys())
def test_a_subject_with_a_refused_character_is_rejected_by_position_and_code_point(name):
    place = next(n for n, character in enumerate(name) if character not in "ab1[2J")
    for failing in (
        lambda: normalised_subject(name),
        lambda: normalised_subjects(["fine", name]),
        lambda: parts(subjects=("fine", name)),
    ):
        with pytest.raises(InvalidInputError, match=rf"U\+{ord(name[place]):04X} at position {place}") as error:
            failing()
        assert name not in str(error.value)


@pytest.mark.parametrize(
    "name", ["ana", "p-17", "O'Neil 3", "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\u00e9va", "\u6797"]
)
def test_names_of_many_scripts_are_accepted_unchanged(name):
    assert normalised_subject(name) == name
    assert parts(subjects=("fine", name))[0].subjects[1] == name


def test_spellings_of_one_name_become_one():
    assert normalised_subjects(["e\u0301va", "\u00e9va", "\u212bsa"]) == ("\u00e9va", "\u00e9va", "\u00c5sa")


def test_a_subject_that_is_not_normalised_is_refused_with_the_remedy():
    with pytest.raises(InvalidInputError, match=r"Entry 1: .*normalised_subject\(\)"):
        parts(subjects=("ana", "e\u0301va"))


@pytest.mark.parametrize("name", ["", "a" * 101, "\u00e9" * 51, 7, None])
def test_a_name_of_another_length_or_type_is_rejected(name):
    with pytest.raises(InvalidInputError, match=r"1 to 100 bytes.*Use a pseudonym"):
        normalised_subject(name)


def test_the_length_is_that_of_the_normal_form():
    assert len(normalised_subject("e\u0301" * 50).encode()) == 100


def test_the_content_digest_is_equal_at_the_three_parties_and_the_digest_is_not():
    changes = parts()
    assert len({change.content_digest() for change in changes}) == 1
    assert len({change.digest() for change in changes}) == 3
    assert len(changes[0].content_digest()) == 32


def test_the_content_digest_covers_each_public_field():
    first = parts()[0]
    rows = first.rows
    others = [
        dataclasses.replace(first, change_id=b"d" * 16),
        dataclasses.replace(first, subjects=("ana", "eva")),
        dataclasses.replace(first, subjects=("an", "a\u00e9va")),  # the same characters, divided in another way
        dataclasses.replace(first, rows=dataclasses.replace(rows, ids_N16=rows.ids_N16[::-1])),
        dataclasses.replace(first, rows=dataclasses.replace(rows, ids_N16=new_reference_ids(2))),
        Removal(change_id=first.change_id, reference_ids=(b"a" * 16,)),
        Removal(change_id=first.change_id, reference_ids=(b"b" * 16,)),
        Removal(change_id=b"d" * 16, reference_ids=(b"b" * 16,)),
        Removal(change_id=b"d" * 16, reference_ids=(b"b" * 16, b"a" * 16)),
        Refresh(change_id=first.change_id, seed=b"a" * 32),
        Refresh(change_id=first.change_id, seed=b"b" * 32),
        Refresh(change_id=b"d" * 16, seed=b"b" * 32),
    ]
    digests = [change.content_digest() for change in (first, *others)]
    assert len(set(digests)) == len(digests)


def test_the_gallery_digest_covers_parameters_ids_subjects_and_epoch():
    ids_N16 = new_reference_ids(2)
    base = {"fixed_point": POINT, "ids_N16": ids_N16, "subjects": NAMES, "epoch": 0}
    others = [
        {"fixed_point": FixedPoint(dim=9)},
        {"fixed_point": FixedPoint(dim=8, values="int8")},
        {"ids_N16": ids_N16[::-1]},
        {"subjects": NAMES[::-1]},
        {"subjects": ("ana\u00e9", "va")},
        {"epoch": 1},
        {"ids_N16": ids_N16[:1], "subjects": NAMES[:1]},
        {"ids_N16": ids_N16[:0], "subjects": ()},
    ]
    digests = [gallery_digest(**base | other) for other in ({}, *others)]
    assert len(set(digests)) == len(digests)
    assert gallery_digest(**base | {"ids_N16": np.asfortranarray(ids_N16), "subjects": list(NAMES)}) == digests[0]
    with pytest.raises(ShapeError, match=r"\(1, 16\), got \(2, 16\)"):
        gallery_digest(**base | {"subjects": NAMES[:1]})


def test_a_refresh_hides_its_seed_and_checks_its_fields():
    seed = b"\x01seed of thirty-two random bytes"
    change = Refresh(change_id=b"c" * 16, seed=seed)
    assert "seed of" not in repr(change)
    with pytest.raises(UnsupportableError, match="secret"):
        pickle.dumps(change)
    for given in ({"seed": seed[1:]}, {"seed": "a" * 32}, {"seed": bytes(32)}, {"change_id": b"c"}):
        with pytest.raises(InvalidInputError, match=r"must be (32 random|16) bytes"):
            Refresh(**{"change_id": b"c" * 16, "seed": seed} | given)


def digest_of(*parts):
    """Written out: a prefix, then each part after its length as eight bytes, least significant first."""
    joined = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.sha256(b"ppfr change 1" + joined).digest()


def test_digests_and_refreshes_are_as_written_out_since_programs_of_two_releases_compare_them():
    first = parts()[0]
    ids = first.rows.ids_N16.tobytes()
    content = (8).to_bytes(4, "little") + b"int16", ids, bytes([3, 0, 0, 0, 4, 0, 0, 0]), "ana\u00e9va".encode()
    assert first.content_digest() == digest_of(b"enrolment", b"c" * 16, *content)
    assert gallery_digest(POINT, first.rows.ids_N16, NAMES, 5) == digest_of(
        b"gallery", (5).to_bytes(8, "little"), *content
    )
    removal = Removal(change_id=b"c" * 16, reference_ids=(b"b" * 16, b"a" * 16))
    assert removal.content_digest() == digest_of(b"removal", b"c" * 16, b"b" * 16 + b"a" * 16)
    refresh = Refresh(change_id=b"c" * 16, seed=b"s" * 32)
    assert refresh.content_digest() == digest_of(b"refresh", b"c" * 16, b"s" * 32)
    added = refresh.applied(first.rows).words_NW - first.rows.words_NW
    for row, added_W in zip(first.rows.ids_N16, added, strict=True):
        drawn = hashlib.shake_256(b"s" * 32 + row.tobytes()).digest(2 * 8 * 4)
        np.testing.assert_array_equal(added_W, np.frombuffer(drawn, "<u4"))


def test_invalid_changes_are_rejected():
    rows = share_rows(np.eye(8)[:2], POINT)[1]
    none = dataclasses.replace(rows, ids_N16=rows.ids_N16[:0], words_NW=rows.words_NW[:0])
    twice = dataclasses.replace(rows, ids_N16=rows.ids_N16[[0, 0]])
    for kind, given, error, message in (
        (Enrolment, {"rows": none, "subjects": ()}, InvalidInputError, "has no rows"),
        (Enrolment, {"rows": rows, "subjects": ("a",)}, ShapeError, "each of 2 rows, got 1"),
        (Enrolment, {"rows": rows, "subjects": ("a", "")}, InvalidInputError, "Entry 1: Expected a subject"),
        (Enrolment, {"rows": rows, "subjects": ("a" * 101, "a")}, InvalidInputError, "Entry 0: Expected a subject"),
        (Enrolment, {"rows": rows, "subjects": ("a", "\ud800")}, InvalidInputError, "Entry 1: Expected a subject"),
        (Enrolment, {"rows": rows, "subjects": ("a", 7)}, InvalidInputError, "Entry 1: Expected a subject"),
        (Enrolment, {"rows": twice, "subjects": ("a", "b")}, InvalidInputError, "contains an id twice"),
        (Removal, {"reference_ids": ()}, InvalidInputError, "at least one reference"),
        (Removal, {"reference_ids": (b"a" * 16,) * 2}, InvalidInputError, "no duplicates"),
        (Removal, {"reference_ids": (b"a" * 15,)}, InvalidInputError, "must be 16 bytes"),
    ):
        with pytest.raises(error, match=message):
            kind(change_id=b"c" * 16, **given)
    for change_id in (b"", b"c" * 17, "c" * 16):
        with pytest.raises(InvalidInputError, match="change id must be 16 bytes"):
            Removal(change_id=change_id, reference_ids=(b"a" * 16,))
