"""The record as a file: what is accepted, what is rejected with which message, and what is never in it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.assets import read_record, write_record
from ppfr.core import (
    InvalidInputError,
    MissingAssetError,
    ProblemsError,
    check_record,
    kind_of,
    record_schema,
    result_row,
    row_schema,
    without_paths,
)
from support.made_records import made_record

Json = dict[str, Any]


@pytest.fixture
def record() -> Json:
    return made_record()


def test_schemas_are_valid_and_closed(record: Json) -> None:
    free = {"config", "packages", "tar_at_far", "threat_model", "guarantee", "facts", "notes", "fits", "training"}

    def closed(value: Any, name: str) -> None:
        if isinstance(value, dict):
            if value.get("type") == "object" and "properties" in value:
                assert value["additionalProperties"] is False, name
                assert set(value["required"]) == set(value["properties"]), name
            for key, item in value.items():
                closed(item, key if key not in ("items", "anyOf", "additionalProperties") else name)
        elif isinstance(value, list):
            for item in value:
                closed(item, name)

    assert free  # objects whose fields the methods choose
    for schema in (record_schema(), *record["schemas"].values()):
        jsonschema.Draft202012Validator.check_schema(schema)
        closed(dict(schema), "record")


def test_row_class_generates_its_schema() -> None:
    @result_row("toy")
    class ToyRow:
        system: str
        shares: Sequence[float]
        title: str | None

    assert kind_of(ToyRow) == kind_of(ToyRow(system="a", shares=[0.5], title=None)) == "toy"
    schema = row_schema(ToyRow)
    jsonschema.validate({"system": "a", "shares": [0.5], "title": None}, schema)
    for bad in ({"system": "a", "shares": [0.5]}, {"system": "a", "shares": ["x"], "title": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_record_survives_writing_and_reading(record: Json, tmp_path: Path) -> None:
    write_record(record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record
    assert read_record(tmp_path) == record


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
_ACCURACY = "results.verification.1.accuracy"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("experiment.seed", "seven", r"\$\.experiment\.seed: 'seven' is not of type 'integer'"),
        ("machine.host", "laptop-of-ada", r"\$\.machine: Additional properties are not allowed"),
        ("attacks", _GONE, r"\$: 'attacks' is a required property"),
        (f"{_ACCURACY}.n", "many", r"\$\.results\.verification"),
        (f"{_ACCURACY}.low", 0.9999, r"verification\[1\]\.accuracy: the interval does not contain its value"),
        ("systems.1.baseline", "nobody", r"\$\.systems\[1\]\.baseline: no system is named 'nobody'"),
        ("attacks.1.system", "nobody", r"\$\.attacks\[1\]\.system: no system is named 'nobody'"),
        ("attacks.1.recogniser", "nobody", r"\$\.attacks\[1\]\.recogniser: no recogniser is named 'nobody'"),
        (
            "results.re_identification.0.attack",
            "nobody",
            r"re_identification\[0\]\.attack: no attack is named 'nobody'",
        ),
        ("attacks.0.control", None, r"control: must be set for controls and only for controls"),
        ("systems.0.name", "ppfr-fd", r"two entries have the same name"),
        ("status", "partial", r"status: is 'partial', but its stages give 'complete'"),
        ("schemas.verification", _GONE, r"\$\.schemas: has no schema for results of kind 'verification'"),
        ("schemas.verification", {"type": 7}, r"\$\.schemas\.verification: is not a JSON Schema"),
        (
            "schemas.verification",
            {"$ref": "#/$defs/Gone"},
            r"\$\.schemas\.verification: refers to a missing definition",
        ),
        ("disjointness.0.num_shared_subjects", 3, r"0 was expected"),
    ],
)
def test_tampered_records_are_rejected_with_the_location(record: Json, path: str, value: Any, message: str) -> None:
    with pytest.raises(ProblemsError, match=message):
        check_record(_edited(record, path, value))


def test_all_problems_are_reported_at_once(record: Json) -> None:
    bad = _edited(_edited(record, "experiment.people", "none"), "systems.0.role", "hero")
    with pytest.raises(ProblemsError, match=r"2 problem\(s\)"):
        check_record(bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not a ppfr result record"),
        ('{"status": "complete"}', "not a ppfr result record"),
        ('{"schema_version": 99}', "schema version 99; this ppfr reads version 2"),
        ('{"schema_version": 2, "wall_s": NaN}', "NaN is not a JSON number"),
    ],
)
def test_files_that_are_not_records_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_record(tmp_path / "record.json")


def test_missing_and_binary_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"record\.json was not found"):
        read_record(tmp_path / "record.json")
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_record(tmp_path / "record.json")


def test_record_that_violates_the_schema_is_not_written(record: Json, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError):
        write_record(_edited(record, "status", "splendid"), tmp_path / "record.json")
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
def test_paths_are_reduced_to_their_last_part(text: str, clean: str) -> None:
    assert without_paths({"a": [text]}) == {"a": [clean]}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.from_regex(r"[a-z0-9_.]{1,12}", fullmatch=True), min_size=2, max_size=6))
def test_no_directory_remains(parts: list[str]) -> None:
    clean = without_paths(f"at /{'/'.join(parts)}")
    assert clean == f"at …/{parts[-1]}"
    assert without_paths(clean) == clean
