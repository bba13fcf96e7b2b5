"""Numbers as the report shows them: a value, and below it its interval and sample size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ppfr.report._wording import count, number, percent, percent_interval, points


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The content of a table cell.

    Attributes:
        main: the number, printed large.
        small: its interval, printed below.
        sample: the sample size n.
        notes: further lines, such as the gap to the baseline.
        caveat: shown when the pointer is on the asterisk that marks the number.
        published: a published result, marked as such.
        tone: "good", "caution", "bad" or "note" for verdicts; "" for numbers.
        is_text: `main` is prose, which may wrap.
    """

    main: str
    small: str = ""
    sample: str = ""
    notes: tuple[str, ...] = ()
    caveat: str = ""
    published: str = ""
    tone: str = ""
    is_text: bool = False

    def with_note(self, *notes: str) -> Figure:
        """A copy with more notes. Empty notes are omitted."""
        return dataclasses.replace(self, notes=(*self.notes, *filter(None, notes)))


MISSING = Figure(main="–")


def share_figure(estimate: Mapping[str, Any] | None, digits: int = 1) -> Figure:
    """A share with its interval and n."""
    if estimate is None:
        return MISSING
    return Figure(
        main=percent(estimate["value"], digits),
        small=percent_interval(estimate, digits),
        sample=_sample(estimate),
        caveat=estimate["caveat"],
    )


def plain_figure(estimate: Mapping[str, Any] | None, digits: int = 3) -> Figure:
    """A plain number with its interval and n."""
    if estimate is None:
        return MISSING
    return Figure(
        main=number(estimate["value"], digits),
        small=" to ".join(number(estimate[end], digits) for end in ("low", "high")),
        sample=_sample(estimate),
        caveat=estimate["caveat"],
    )


def gap_words(gap: Mapping[str, Any] | None) -> str:
    """A paired gap in percentage points, for example "−0.42 points (−0.80 to −0.03)"; "" for None."""
    return "" if gap is None else f"{points(gap['value'])} points ({points(gap['low'])} to {points(gap['high'])})"


def text_figure(words: str, *, tone: str = "") -> Figure:
    """Prose in a table cell."""
    return Figure(main=words, is_text=True, tone=tone)


def _sample(estimate: Mapping[str, Any]) -> str:
    return f"n\u00a0=\u00a0{count(estimate['n'])}"
