"""Looking into result records."""

from __future__ import annotations

from typing import Any

from ppfr.core import Record

# What two runs of the same experiment may differ in; the checkout can change while tests run.
TIMING = {"wall_s", "mask_images_per_s", "embed_images_per_s", "peak_memory_bytes", "commit", "is_modified"}


def rows(record: Record, kind: str, **match: Any) -> list[dict[str, Any]]:
    """The rows of a kind whose fields are as given."""
    found = record["results"].get(kind, [])
    return [row for row in found if all(row[name] == value for name, value in match.items())]


def row(record: Record, kind: str, **match: Any) -> dict[str, Any]:
    """The only such row."""
    (found,) = rows(record, kind, **match)
    return found


def entry(record: Record, what: str, name: str) -> dict[str, Any]:
    """The entry of that name in one of the record's lists."""
    (found,) = (each for each in record[what] if each["name"] == name)
    return found


def stage_states(record: Record) -> dict[str, str]:
    """Status of each stage."""
    return {stage["name"]: stage["status"] for stage in record["stages"]}


def without_timing(value: Any, *, also: frozenset[str] = frozenset()) -> Any:
    """The same JSON without what differs between two runs."""
    if isinstance(value, dict):
        return {key: without_timing(item, also=also) for key, item in value.items() if key not in TIMING | also}
    return [without_timing(item, also=also) for item in value] if isinstance(value, list) else value
