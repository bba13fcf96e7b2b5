"""The result record, which `evaluation` writes and `report` reads. Neither imports the other.

A record describes an experiment (systems, attacks, data, stages) and holds its results as rows of named kinds, as in
`record["results"]["verification"]`. It carries the JSON Schema of each kind, generated from the type of its rows, so
a reader can check a record without the code that measured it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, dataclass_transform

from ppfr.core._errors import InvalidInputError, ProblemsError
from ppfr.core._record_entries import RecordEntries

if TYPE_CHECKING:
    import jsonschema

SCHEMA_VERSION: Final[Literal[2]] = 2
Record = dict[str, Any]

STOLEN_TOKEN, GENUINE_TOKEN = "stolen-token", "genuine-token"
"""Scenarios of verification with keys: impostors have the claimed subject's key, or only their own."""
ALL_KEYS = "matcher holds all keys"
"""Scenario of identification: the matcher maps each probe under the key of every enrolled subject."""

# A path of two or more parts, at the start of a word; addresses (https://...) and JSON pointers (#/...) do not match.
_POSIX_PATH = re.compile(r"(?<![\w/:.~…#])~?/(?:[^\s/'\"`,;:()\[\]<>|]+/)+([^\s/'\"`,;:()\[\]<>|]*)")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\'\"`,;()\[\]<>|]+\\)*([^\s\\'\"`,;()\[\]<>|]*)")
_KIND = "kind"

Row = TypeVar("Row")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def result_row(kind: str) -> Callable[[type[Row]], type[Row]]:
    """Make a class a frozen, keyword-only dataclass whose instances are rows of `record["results"][kind]`.

    Args:
        kind: name of the kind, lower case with underscores, as in "re_identification".
    """

    def decorate(cls: type[Row]) -> type[Row]:
        setattr(cls, _KIND, kind)
        return dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    return decorate


def kind_of(row: Any) -> str:
    """Kind of a result row, or of a class of rows."""
    return str(getattr(row, _KIND))


@functools.cache
def row_schema(row_type: type) -> Mapping[str, Any]:
    """JSON Schema (draft 2020-12) of one class of result rows. It rejects additional fields."""
    import pydantic

    schema = copy.deepcopy(pydantic.TypeAdapter(row_type).json_schema())
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Reject additional fields; remove titles, descriptions and defaults."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
            schema["required"] = list(schema["properties"])
            for field in schema["properties"].values():
                field.pop("title", None)
                field.pop("default", None)
        schema.pop("description", None)
        for key, item in schema.items():
            for part in item.values() if key in ("properties", "$defs") else (item,):
                _close(part)
    elif isinstance(schema, list):
        for item in schema:
            _close(item)


def record_schema() -> Mapping[str, Any]:
    """JSON Schema (draft 2020-12) of a record without its result rows, whose schemas are in the record."""
    return row_schema(RecordEntries)


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    import jsonschema

    return jsonschema.Draft202012Validator(record_schema())


def check_record(record: Any, *, what: str = "the record") -> None:
    """Check that a value is a valid result record.

    Args:
        record: parsed JSON.
        what: name of the record in messages, such as its file name.

    Raises:
        InvalidInputError: not a record, or of another schema version.
        ProblemsError: fields that violate a schema, or contradictions; all of them.
    """
    if not isinstance(record, dict) or "schema_version" not in record:
        raise InvalidInputError(f"{what} is not a ppfr result record. Give the record.json that a run wrote.")
    version = record["schema_version"]
    if version != SCHEMA_VERSION:
        raise InvalidInputError(
            f"{what} has schema version {version!r}; this ppfr reads version {SCHEMA_VERSION}. "
            "Use the ppfr that wrote it (see its provenance), or run the experiment again."
        )
    problems = [
        f"{cause.json_path}: {_shortened(cause.message)}"
        for error in _validator().iter_errors(record)
        for cause in _causes(error)
    ]
    if not problems:
        problems = [*_row_problems(record), *_contradictions(record)]
    if problems:
        raise ProblemsError(f"{what} does not satisfy the record schema", problems)


def _row_problems(record: Record) -> Iterator[str]:
    """Rows that violate the schema of their kind."""
    import jsonschema
    import referencing.exceptions

    for kind, rows in record["results"].items():
        schema = record["schemas"].get(kind)
        if schema is None:
            yield f"$.schemas: has no schema for results of kind {kind!r}"
            continue
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            yield f"$.schemas.{kind}: is not a JSON Schema ({_shortened(error.message)})"
            continue
        validator = jsonschema.Draft202012Validator({"type": "array", "items": schema, **_definitions(schema)})
        try:
            for found in validator.iter_errors(rows):
                for cause in _causes(found):
                    yield f"$.results.{kind}{cause.json_path.removeprefix('$')}: {_shortened(cause.message)}"
        except referencing.exceptions.Unresolvable as error:
            yield f"$.schemas.{kind}: refers to a missing definition ({_shortened(str(error))})"


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"$defs": schema["$defs"]} if "$defs" in schema else {}


def without_paths(value: Any) -> Any:
    """The same JSON value with every file-system path in a string reduced to its last part.

    Records are shared, and paths of the machine that wrote them are private.

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


def status_of(stages: Sequence[Mapping[str, Any]]) -> str:
    """Status of a run from the states of its stages: "complete", "failed" or "partial"."""
    found = {stage["status"] for stage in stages}
    return "failed" if "failed" in found else "complete" if found <= {"done"} else "partial"


def _causes(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """The errors that cause "is not valid under any of", without those of the branch "null"."""
    branches = [e for e in error.context or () if e.validator != "type" or e.validator_value != "null"]
    if not branches or error.instance is None:
        yield error
        return
    for branch in branches:
        yield from _causes(branch)


def _shortened(message: str, limit: int = 160) -> str:
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"


def _contradictions(record: Record) -> Iterator[str]:
    """What JSON Schema cannot check: dangling references, values outside their interval, a wrong status."""
    yield from _dangling_references(record)
    for place, estimate in _estimates(record["results"], "$.results"):
        if not estimate["low"] <= estimate["value"] <= estimate["high"]:
            yield f"{place}: the interval does not contain its value"
    status = status_of(record["stages"])
    if record["status"] != status:
        yield f"$.status: is {record['status']!r}, but its stages give {status!r}"


def _dangling_references(record: Record) -> Iterator[str]:
    kinds = ("system", "recogniser", "attack", "comparison")
    names = {what: [entry["name"] for entry in record[f"{what}s"]] for what in kinds}
    for what, found in names.items():
        if len(set(found)) != len(found):
            yield f"$.{what}s: two entries have the same name"
    references = [
        *((f"$.systems[{i}].baseline", "system", entry["baseline"]) for i, entry in enumerate(record["systems"])),
        *((f"$.attacks[{i}].system", "system", entry["system"]) for i, entry in enumerate(record["attacks"])),
        *(
            (f"$.attacks[{i}].recogniser", "recogniser", entry["recogniser"])
            for i, entry in enumerate(record["attacks"])
        ),
        *(
            (f"$.comparisons[{i}].{side}", "system", entry[side])
            for i, entry in enumerate(record["comparisons"])
            for side in ("system", "against")
        ),
        *(
            (f"$.results.{kind}[{i}].{what}", what, row.get(what))
            for kind, rows in record["results"].items()
            for i, row in enumerate(rows)
            for what in names
        ),
    ]
    for place, what, name in references:
        if name is not None and name not in names[what]:
            yield f"{place}: no {what} is named {name!r}"
    for i, attack in enumerate(record["attacks"]):
        if (attack["role"] == "attack") != (attack["control"] is None):
            yield f"$.attacks[{i}].control: must be set for controls and only for controls"


def _estimates(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        if {"value", "low", "high", "n", "level"} <= value.keys():
            yield place, value
        for key, item in value.items():
            yield from _estimates(item, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _estimates(item, f"{place}[{index}]")
