"""Plain JSON from the values of this project; secrets never pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Set
from typing import Any

Json = dict[str, Any]


def as_json(value: Any) -> Any:
    """Convert a value to dictionaries, lists, numbers and strings.

    Dataclasses become dictionaries of their fields. NumPy scalars become Python numbers. Infinities and not-a-number
    become strings, because JSON has neither. Bytes are redacted, because they are secrets more often than not. Any
    other object becomes its `str`.

    >>> as_json({"eps": float("inf"), "shape": (3, 112, 112), "secret": b"key"})
    {'eps': 'inf', 'shape': [3, 112, 112], 'secret': '<redacted>'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Set):
        return [as_json(item) for item in value]
    if isinstance(value, bytes | bytearray):
        return "<redacted>"
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
