"""Figures as text. No figure is printed with more digits than its measurement supports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROLE_WORDS = {
    "attack": "attack",
    "positive control": "control: must win",
    "negative control": "control: must stay at the chance level",
}
SECRET_WORDS = {"known": "secret known", "unknown": "secret unknown", "none": "no secret to know"}
KEY_WORDS = {"known": "keys known", "unknown": "keys unknown", "none": "no keys"}


def percent(share: float, digits: int = 1) -> str:
    r"""A share in %, with two digits below 1 % and a non-breaking space.

    >>> percent(0.98954), percent(1.0), percent(0.0025)
    ('99.0\xa0%', '100\xa0%', '0.25\xa0%')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}\u00a0%"
    if share < 0.01:
        digits = max(digits, 2)
    text = f"{100 * share:.{digits}f}"
    if float(text) in (0.0, 100.0):  # 99.97 % must not be shown as 100 %, nor 0.02 % as 0 %
        text = f"{100 * share:.{digits + 1}f}"
    return f"{text}\u00a0%"


def percent_interval(estimate: Mapping[str, Any], digits: int = 1) -> str:
    """The interval of a share in %, for example "98.1 to 99.3"."""
    if estimate["high"] < 0.01:
        digits = max(digits, 2)
    return f"{100 * estimate['low']:.{digits}f} to {100 * estimate['high']:.{digits}f}"


def points(difference: float, digits: int = 2) -> str:
    """A difference of two shares in percentage points, with its sign.

    >>> points(-0.0042), points(0.0)
    ('−0.42', '0.00')
    """
    text = f"{100 * difference:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def number(value: float, digits: int = 3) -> str:
    """A plain number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def count(value: float) -> str:
    """An integer with thin spaces between thousands.

    >>> count(13233)
    '13\u202f233'
    """
    return f"{round(value):,}".replace(",", "\u202f")


def rate(images_per_s: float) -> str:
    """Images per second with about three digits.

    >>> rate(8.4567), rate(1234.5)
    ('8.46', '1\u202f230')
    """
    digits = 2 if images_per_s < 10 else 1 if images_per_s < 100 else 0
    return f"{images_per_s:.{digits}f}" if images_per_s < 1000 else count(round(images_per_s, -1))


def size(num_bytes: float) -> str:
    """Bytes with a binary unit.

    >>> size(56448), size(512)
    ('55.1 KiB', '512 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    raise AssertionError("unreachable")


def listed(words: list[str]) -> str:
    """Words joined with commas and "and"; with semicolons if the words themselves contain commas.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    >>> listed(["a, 1", "a, 2", "b"])
    'a, 1; a, 2; and b'
    """
    if len(words) < 2:
        return "".join(words)
    if any("," in word for word in words):
        return f"{'; '.join(words[:-1])}; and {words[-1]}"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (name, text) rows. Long lists (curves) are omitted; charts show them.

    >>> flat_facts({"steps": 3, "plan": {"batch_size": 8}})
    [('steps', '3'), ('plan: batch size', '8')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        words = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            rows.extend(flat_facts(value, f"{words}: "))
        elif isinstance(value, list):
            if len(value) <= 8:
                rows.append((words, json.dumps(value)))
        elif isinstance(value, float):
            rows.append((words, f"{value:.4g}"))
        else:
            rows.append((words, str(value)))
    return rows
