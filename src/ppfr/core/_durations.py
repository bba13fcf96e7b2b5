"""Durations in words, for progress lines and the report."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    >>> duration(4.2), duration(75), duration(5400)
    ('4 s', '1 min 15 s', '1 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
