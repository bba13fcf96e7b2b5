"""A result as text rows: nested values flattened, estimates with their interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NO_PERCENTAGES = ("ssim", "psnr", "lpips", "cosine", "auc", "loss")


def rows_of(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(label, text) for each value; a nested mapping gives one row per value."""
    for key, value in result.items():
        # A key such as "hfcf:one_to_n" is typed by users and stays as it is; other keys are shown as words.
        label = f"{prefix}{key if ':' in key else key.replace('_', ' ')}"
        if is_estimate(value):
            yield label, estimate(value, is_percentage=not any(word in key for word in _NO_PERCENTAGES))
        elif isinstance(value, Mapping):
            yield from rows_of(value, f"{label}: ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from _rows_of_list(label, value)
        else:
            yield label, _text(value)


def is_estimate(value: Any) -> bool:
    """Whether a value is an estimate with n and an interval, as `ppfr.metrics.Estimate.to_dict` returns it."""
    return isinstance(value, Mapping) and {"value", "low", "high", "n"} <= value.keys()


def estimate(figure: Mapping[str, Any], *, is_percentage: bool) -> str:
    """An estimate as "98.95 % [98.62, 99.23], n=6000", followed by its caveat."""
    scale, unit, places = (100.0, " %", 2) if is_percentage else (1.0, "", 3)

    def number(key: str) -> str:
        return "?" if figure[key] is None else f"{scale * figure[key]:.{places}f}"

    caveat = f" ({figure['caveat']})" if figure.get("caveat") else ""
    return f"{number('value')}{unit} [{number('low')}, {number('high')}], n={figure['n']}{caveat}"


def _rows_of_list(label: str, values: Sequence[Any]) -> Iterator[tuple[str, str]]:
    if any(isinstance(value, Mapping) for value in values):
        for value in values:
            name = str(value.get("name", ""))
            yield from rows_of({key: fact for key, fact in value.items() if key != "name"}, f"{label}: {name}: ")
    else:
        is_short = all(isinstance(value, int) for value in values)
        yield label, (", " if is_short else "\n").join(map(str, values)) or "none"


def _text(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
