"""The record as a file: what is accepted, what is refused and how it is told, what never gets into it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.assets import read_record, write_record
from ppfr.core import InvalidInputError, MissingAssetError, ProblemsError, check_record, record_schema, without_paths

Json = dict[str, Any]


def test_schema_is_itself_valid_and_closed() -> None:
    schema = record_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    free = {"config", "packages", "tar_at_far", "fit", "notes", "fits", "items", "gaps"}
    later = {
        "reported",
        "masked",
        "questions",
        "guarantee",
    }  # records of the first versions have none, and stay readable

    def closed(value: Any, name: str) -> None:
        if isinstance(value, dict):
            if value.get("type") == "object" and "properties" in value:
                assert value["additionalProperties"] is False, name
                assert set(value["required"]) == set(value["properties"]) - later, name
            elif value.get("type") == "object":
                assert name in free, f"{name} takes anything"
            for key, item in value.items():
                closed(item, key)
        elif isinstance(value, list):
            for item in value:
                closed(item, name)

    closed(dict(schema), "record")


def test_made_record_survives_writing_and_reading(made_record: Json, tmp_path: Path) -> None:
    write_record(made_record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == made_record
    assert read_record(tmp_path) == made_record


def _edited(record: Json, path: str, value: Any) -> Json:
    edited = copy.deepcopy(record)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place: Any = edited
    for part in parents:
        place = place[part]
    if value is _GONE:
        del place[last]
    else:
        place[last] = value
    return edited


_GONE = object()
_ACCURACY = "arms.1.protocols.0.accuracy"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("experiment.seed", "seven", r"\$\.experiment\.seed: 'seven' is not of type 'integer'"),
        ("machine.host", "laptop-of-ada", r"\$\.machine: Additional properties are not allowed"),
        ("attacks", _GONE, r"\$: 'attacks' is a required property"),
        (f"{_ACCURACY}.n", 0, r"\$\.arms\[1\]\.protocols\[0\]\.accuracy\.n: 0 is less than the minimum"),
        (f"{_ACCURACY}.low", 0.995, r"accuracy: the interval does not hold its value"),
        ("arms.1.baseline", "nobody", r"\$\.arms\[1\]\.baseline: no arm has this name"),
        ("attacks.1.arm", "nobody", r"\$\.attacks\[1\]\.arm: no arm has this name"),
        ("attacks.1.judge", "nobody", r"\$\.attacks\[1\]\.judge: no judge has this name"),
        ("attacks.0.control", None, r"control: there for controls, and for controls alone"),
        ("attacks.1.outcome.linkage.gallery_size", 1, r"linkage\.gallery_size: 1 is less than the minimum of 2"),
        ("arms.0.name", "ppfr-fd", r"two entries have one name"),
        ("status", "partial", r"status: is 'partial', but the stages say 'complete'"),
        ("arms.0.protocols.0.roc.far", [0.0, 0.1], r"far and tar differ in length"),
        ("disjointness.0.num_shared_subjects", 3, r"0 was expected"),
    ],
)
def test_tampered_records_are_refused_by_place(made_record: Json, path: str, value: Any, told: str) -> None:
    with pytest.raises(ProblemsError, match=told):
        check_record(_edited(made_record, path, value))


def test_every_problem_is_told_at_once(made_record: Json) -> None:
    bad = _edited(_edited(made_record, "experiment.people", "none"), "arms.0.role", "hero")
    with pytest.raises(ProblemsError, match=r"2 problem\(s\)"):
        check_record(bad)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "not a ppfr result record"),
        ('{"status": "complete"}', "not a ppfr result record"),
        ('{"schema_version": 99}', "schema version 99; this ppfr reads version 1"),
        ('{"schema_version": 1, "wall_s": NaN}', "NaN is not a JSON number"),
    ],
)
def test_files_that_are_no_record(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(InvalidInputError, match=told):
        read_record(tmp_path / "record.json")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"record\.json was not found"):
        read_record(tmp_path / "record.json")
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_record(tmp_path / "record.json")


def test_a_record_that_breaks_the_schema_is_not_written(made_record: Json, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError):
        write_record(_edited(made_record, "status", "splendid"), tmp_path / "record.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("ppfr run x --data /home/ada/faces --out=/home/ada/o/p", "ppfr run x --data …/faces --out=…/p"),
        ("could not read '/data/lfw/secret name.jpg'", "could not read '…/secret name.jpg'"),
        (r"C:\Users\ada\faces\a.png is damaged", "…/a.png is damaged"),
        ("~/faces/set", "…/set"),
        (
            "see https://example.org/a/b and 1/2 of images/s, and/or",
            "see https://example.org/a/b and 1/2 of images/s, and/or",
        ),
        ("shape (3, 112, 112); 5 / 7", "shape (3, 112, 112); 5 / 7"),
    ],
)
def test_paths_are_cut_out_of_texts(text: str, clean: str) -> None:
    assert without_paths({"a": [text]}) == {"a": [clean]}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.from_regex(r"[a-z0-9_.]{1,12}", fullmatch=True), min_size=2, max_size=6))
def test_no_directory_survives(parts: list[str]) -> None:
    clean = without_paths(f"at /{'/'.join(parts)}")
    assert clean == f"at …/{parts[-1]}"
    assert without_paths(clean) == clean


def test_record_schema_is_shipped_as_the_documented_file() -> None:
    assert record_schema()["$id"] == "urn:ppfr:result-record:1"
    json.dumps(dict(record_schema()))
