"""The result record: what evaluation writes and reports read, checked against its JSON Schema."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from ppfr.core._errors import InvalidInputError, ProblemsError

if TYPE_CHECKING:
    import jsonschema

SCHEMA_VERSION = 1
Record = dict[str, Any]

KEY_STOLEN, KEY_KEPT = "key stolen", "key kept"
KEYED_SEARCH = "the matcher holds all keys"
"""Scenarios of template protocols, as records name them."""

# A path of two or more parts, at the start of a word; addresses (https://...) do not match.
_POSIX_PATH = re.compile(r"(?<![\w/:.~…])~?/(?:[^\s/'\"`,;:()\[\]<>|]+/)+([^\s/'\"`,;:()\[\]<>|]*)")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\'\"`,;()\[\]<>|]+\\)*([^\s\\'\"`,;()\[\]<>|]*)")


_SCHEMAS = {"images": "record", "templates": "template-record"}


def kind_of(record: Record) -> str:
    """Of which kind of experiment a record is: "images" (masked ones; these records do not say it) or "templates"."""
    return str(record.get("kind", "images"))


@functools.cache
def record_schema(kind: str = "images") -> Mapping[str, Any]:
    """The JSON Schema (draft 2020-12) that every record of a kind satisfies; that of templates refers to the other.

    Raises:
        InvalidInputError: no such kind.
    """
    if kind not in _SCHEMAS:
        raise InvalidInputError(f"no record is of kind {kind!r}; there are {', '.join(_SCHEMAS)}")
    name = f"{_SCHEMAS[kind]}-{SCHEMA_VERSION}.schema.json"
    schema: dict[str, Any] = json.loads(resources.files("ppfr.core").joinpath("assets", name).read_text("utf-8"))
    return schema


@functools.cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    import jsonschema
    import referencing

    shared = referencing.Resource.from_contents(record_schema())
    return jsonschema.Draft202012Validator(
        record_schema(kind), registry=referencing.Registry().with_resource(record_schema()["$id"], shared)
    )


def check_record(record: Any, *, what: str = "the record") -> None:
    """Refuse what is not a result record.

    Raises:
        InvalidInputError: another schema version, or no record at all.
        ProblemsError: fields that break the schema, or figures that contradict each other; all of them at once.
    """
    if not isinstance(record, dict) or "schema_version" not in record:
        raise InvalidInputError(f"{what} is not a ppfr result record; give the record.json that a run wrote")
    version = record["schema_version"]
    if version != SCHEMA_VERSION:
        raise InvalidInputError(
            f"{what} has schema version {version!r}; this ppfr reads version {SCHEMA_VERSION}. "
            "Use the ppfr that wrote it (see its provenance), or run the experiment again"
        )
    problems = [
        f"{e.json_path}: {_shortened(e.message)}"
        for error in _validator(kind_of(record)).iter_errors(record)
        for e in _causes(error)
    ]
    if not problems:
        problems = [*_contradictions(record)]
    if problems:
        raise ProblemsError(f"{what} does not satisfy the record schema", problems)


def without_paths(value: Any) -> Any:
    """The same JSON value with every file-system path in a text cut down to its last part.

    Records are passed around; where somebody keeps their files is nobody's business.

    >>> without_paths({"command": "ppfr run spine:lfw --data /home/ada/faces"})
    {'command': 'ppfr run spine:lfw --data …/faces'}
    """
    if isinstance(value, str):
        return _WINDOWS_PATH.sub(r"…/\1", _POSIX_PATH.sub(r"…/\1", value))
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return value


def _causes(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """The errors beneath "not valid under any of": those of the branch that is no mere "null"."""
    branches = [e for e in error.context or () if e.validator != "type" or e.validator_value != "null"]
    if not branches or error.instance is None:
        yield error
        return
    for branch in branches:
        yield from _causes(branch)


def _shortened(message: str, limit: int = 160) -> str:
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"


def _contradictions(record: Record) -> Iterator[str]:
    """What JSON Schema cannot say: references that lead nowhere, intervals without their value, a false status."""
    yield from _loose_ends(record)
    for place, estimate in _estimates(record, "$"):
        if not estimate["low"] <= estimate["value"] <= estimate["high"]:
            yield f"{place}: the interval does not hold its value"
    for place, roc in _rocs(record):
        if len(roc["far"]) != len(roc["tar"]):
            yield f"{place}.roc: far and tar differ in length"
    status = status_of(record["stages"])
    if record["status"] != status:
        yield f"$.status: is {record['status']!r}, but the stages say {status!r}"


def status_of(stages: Sequence[Mapping[str, Any]]) -> str:
    """What the stages' states add up to: "complete", "failed" or "partial"."""
    found = {stage["status"] for stage in stages}
    return "failed" if "failed" in found else "complete" if found <= {"done"} else "partial"


def _loose_ends(record: Record) -> Iterator[str]:
    arms = [arm["name"] for arm in record["arms"]]
    judges = {judge["name"] for judge in record["judges"]}
    for names, what in ((arms, "arms"), ([a["name"] for a in record["attacks"]], "attacks")):
        if len(set(names)) != len(names):
            yield f"$.{what}: two entries have one name"
    for index, arm in enumerate(record["arms"]):
        if arm["baseline"] is not None and arm["baseline"] not in arms:
            yield f"$.arms[{index}].baseline: no arm has this name"
    for index, question in enumerate(record.get("questions", [])):
        for side in ("arm", "against"):
            if question[side] not in arms:
                yield f"$.questions[{index}].{side}: no arm has this name"
    for index, attack in enumerate(record["attacks"]):
        if attack["arm"] not in arms:
            yield f"$.attacks[{index}].arm: no arm has this name"
        if attack["judge"] not in judges:
            yield f"$.attacks[{index}].judge: no judge has this name"
        if (attack["role"] == "attack") != (attack["control"] is None):
            yield f"$.attacks[{index}].control: there for controls, and for controls alone"


def _estimates(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        if {"value", "low", "high", "n", "level"} <= value.keys():
            yield place, value
        for key, item in value.items():
            yield from _estimates(item, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _estimates(item, f"{place}[{index}]")


def _rocs(record: Record) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in ("arms", "judges"):
        for index, holder in enumerate(record[kind]):
            for number, protocol in enumerate(holder["protocols"]):
                yield f"$.{kind}[{index}].protocols[{number}]", protocol["roc"]
