"""Numbers as the report shows them: a value, and beneath it its interval and sample size."""

from __future__ import annotations

import dataclasses

from ppfr.report._findings import Part
from ppfr.report._wording import count, number, percent, percent_interval


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number as shown: `main` large, beneath it `small` (the interval) and `sample` (n); `caveat` on hovering.

    `reported` is what others published, labelled as theirs; beneath all that was measured here.
    """

    main: str
    small: str = ""
    sample: str = ""
    caveat: str = ""
    reported: str = ""


MISSING = Figure(main="–")


def share_figure(estimate: Part | None, digits: int = 1) -> Figure:
    """A share with its interval and n."""
    if estimate is None:
        return MISSING
    return Figure(
        main=percent(estimate["value"], digits),
        small=percent_interval(estimate, digits),
        sample=_sample(estimate),
        caveat=estimate["caveat"],
    )


def plain_figure(estimate: Part | None, digits: int = 3, unit: str = "") -> Figure:
    """A plain number with its interval and n."""
    if estimate is None:
        return MISSING
    ends = " to ".join(number(estimate[end], digits) for end in ("low", "high"))
    return Figure(
        main=number(estimate["value"], digits) + unit,
        small=ends,
        sample=_sample(estimate),
        caveat=estimate["caveat"],
    )


def _sample(estimate: Part) -> str:
    return f"n\u00a0=\u00a0{count(estimate['n'])}"
