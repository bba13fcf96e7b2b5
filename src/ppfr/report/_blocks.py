"""Blocks of content, which the template of the page renders. They do not depend on any measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from ppfr.report._figures import Figure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One statement for the head of the page.

    Attributes:
        tone: "good", "caution", "bad" or "note".
        title: the statement.
        text: the figures that support it.
        system: name of the system that it concerns; "" if it concerns the whole record.
    """

    tone: str
    title: str
    text: str
    system: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart with heading, caption and legend of (key, label). `svg` and the keys are markup."""

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """Paragraphs and a list under an optional heading.

    Attributes:
        text: paragraphs.
        title: heading.
        items: a list beneath the paragraphs.
        style: "" for body text, "small", or "warning".
    """

    name: ClassVar[str] = "prose"
    text: Sequence[str] = ()
    title: str = ""
    items: Sequence[str] = ()
    style: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table; `key` is the markup of the legend key of the system."""

    label: str
    cells: Sequence[Figure]
    note: str = ""
    key: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns.

    Attributes:
        first: heading of the column of row labels.
        columns: headings of the other columns.
        rows: each has one cell per column.
        caption: explanation of the table.
        title: heading.
    """

    name: ClassVar[str] = "table"
    first: str
    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    title: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A reference value on the track of a bar, such as the chance level."""

    value: float
    words: str
    is_dotted: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A share with its interval on a track from 0 to 1. Bars of one `group` are compared; `colour` is its colour."""

    group: str
    label: str
    note: str
    figure: Figure
    colour: int
    value: float
    low: float
    high: float
    marks: Sequence[Mark] = ()


_MAX_BARS = 12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Interval bars under a heading."""

    name: ClassVar[str] = "bars"
    title: str
    text: str
    bars: Sequence[Bar]

    @property
    def shown(self) -> Sequence[Bar]:
        """All bars, or only the highest of each group if there are many."""
        if len(self.bars) <= _MAX_BARS:
            return self.bars
        highest: dict[str, Bar] = {}
        for bar in self.bars:
            if bar.group not in highest or bar.value > highest[bar.group].value:
                highest[bar.group] = bar
        return list(highest.values())

    @property
    def folded(self) -> Sequence[Bar]:
        """The remaining bars."""
        return [bar for bar in self.bars if bar not in self.shown]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """Drawings side by side."""

    name: ClassVar[str] = "charts"
    drawings: Sequence[Drawing]
    is_small: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Pairs of name and text."""

    name: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text to copy: a command (wrapped), or a configuration."""

    name: ClassVar[str] = "code"
    text: str
    is_command: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A strip of faces as a data URI."""

    label: str
    note: str
    src: str
    width: int
    height: int
    alt: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Strips of faces, one row per strip, and a note. Without strips the note explains why there are none."""

    name: ClassVar[str] = "faces"
    rows: Sequence[Picture]
    note: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Blocks that are folded behind a summary."""

    name: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A boxed item with tags of (key, label)."""

    title: str
    tags: Sequence[tuple[str, str]]
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Cards side by side."""

    name: ClassVar[str] = "cards"
    cards: Sequence[Card]


Block = Prose | Table | Bars | Charts | Facts | Code | Faces | Details | Cards
