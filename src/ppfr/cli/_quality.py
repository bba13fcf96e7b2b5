"""Options for limits on the quality of photos, shared by `ppfr align` and `ppfr match enrol`, and figures in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

_SHOWN = 20


def _limit(text: str, default: str) -> Any:
    return typer.Option(help=f"{text} Default of `match enrol`: {default}; of `align`: no limit.", show_default=False)


MinConfidence = Annotated[
    float | None, _limit("Refuse faces of lower detector confidence, 0..1. Below 0.7 none is detected.", "0.85")
]
MinInterEye = Annotated[
    float | None,
    _limit("Refuse faces with a smaller distance between the eyes, in pixels of the photo.", "12"),
]
MaxYaw = Annotated[float | None, _limit("Refuse faces that are turned further to a side, in estimated degrees.", "30")]
MaxPitch = Annotated[
    float | None, _limit("Refuse faces that look further up or down, in estimated degrees.", "no limit")
]
MinSharpness = Annotated[float | None, _limit("Refuse crops of lower sharpness.", "0.04")]


def given(**limits: float | None) -> dict[str, float]:
    """The limits that were given as options."""
    return {name: limit for name, limit in limits.items() if limit is not None}


def in_words(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with one line for the figures of each photo, at most 20."""
    if "quality" not in result:
        return dict(result)
    lines = [_line(row) for row in result["quality"][:_SHOWN]]
    num_more = len(result["quality"]) - len(lines)
    return {**result, "quality": [*lines, *([f"... and {num_more} more (--json shows all)"] if num_more else [])]}


def _line(row: Mapping[str, Any]) -> str:
    figures: Sequence[str] = [
        f"{key.replace('_', ' ')} {figure:.3g}" for key, figure in row.items() if key != "name" and figure is not None
    ]
    return f"{row['name']}: {', '.join(figures)}"
