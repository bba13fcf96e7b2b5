"""Where the order of systems agrees with what their authors published, and where it does not."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import final

from scipy import stats

from ppfr.experiments.adamixup._scores import TOTAL_SCORE, ScoredSystem, scored_systems
from ppfr.report import (
    Block,
    Details,
    Entry,
    Prose,
    RecordView,
    Section,
    accuracy_measure,
    count,
    number,
    percent,
    protocol_words,
    value_words,
)

_MAX_SHOWN = 8
_MIN_ROWS = 3  # two rows agree or do not; a coefficient of them says no more
_ACCURACY_RULE = (
    "A protected system and its own baseline are distinguished by the paired interval of their gap; any other two "
    "where their intervals do not overlap, which is the stricter rule."
)
_TOTAL_RULE = (
    "Totals (means) are distinguished where their ranges do not overlap. A range is the total with all of "
    "S1 to S5 at the lower, and at the upper ends of their intervals."
)


@final
class AgreementSection(Section):
    """Kendall's tau and the pairs in the reverse order, per protocol and for the total score."""

    kinds = ("verification",)
    title, anchor = "Agreement with the published order", "adamixup-agreement"
    terms = {  # noqa: RUF012
        "Kendall's tau": "How far two orders agree: 1 if every pair stands the same way round, −1 if every pair is "
        "reversed.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """Where three systems or more have published figures of one measure."""
        return bool(agreements(view, scored_systems(view)))

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """What was counted, then the reversals; of many the widest, the others folded."""
        for found in agreements(view, scored_systems(view)):
            yield Prose(title=found.title, text=[found.text])
            yield Prose(text=[found.rule], items=found.reversals[:_MAX_SHOWN], style="small")
            rest = found.reversals[_MAX_SHOWN:]
            if rest:
                yield Details(summary=f"{len(rest)} more pairs in the reverse order", blocks=[Prose(items=rest)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One measure: how far our order of the rows is theirs, in words.

    Attributes:
        title: the measure.
        text: Kendall's tau, and how many pairs our intervals distinguish.
        rule: how pairs were distinguished.
        reversals: the pairs whose order differs beyond our intervals, widest first in the authors' figures.
    """

    title: str
    text: str
    rule: str
    reversals: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """A row: our figure with its ends, and theirs."""

    system: Entry
    value: float
    low: float
    high: float
    theirs: Entry
    gap: Entry | None = None  # paired, to the system's own baseline


def agreements(view: RecordView, scored: Sequence[ScoredSystem]) -> list[Agreement]:
    """For every protocol that was run, and for the total score; measures with fewer than three rows are left out."""
    found = []
    for protocol, scenario in view.protocols():
        rows, title = _by_accuracy(view, protocol, scenario), f"Accuracy on {protocol_words(protocol, scenario)}"
        found.append(_agreement(title, rows, lambda value: percent(value, 2), _ACCURACY_RULE))
    found.append(_agreement("Total score", _by_total(view, scored), lambda value: number(value, 3), _TOTAL_RULE))
    return [agreement for agreement in found if agreement is not None]


def _by_accuracy(view: RecordView, protocol: str, scenario: str) -> list[_Standing]:
    rows = []
    for system in view.systems:
        theirs = view.published(system, accuracy_measure(protocol))
        ours = view.verification(system["name"], protocol, scenario)
        if theirs is None or ours is None or ours["accuracy"] is None:
            continue
        ends = {end: ours["accuracy"][end] for end in ("value", "low", "high")}
        rows.append(_Standing(system=system, theirs=theirs, gap=view.gap(system["name"], protocol, scenario), **ends))
    return rows


def _by_total(view: RecordView, scored: Sequence[ScoredSystem]) -> list[_Standing]:
    rows = []
    for row in scored:
        theirs = view.published(row.system, TOTAL_SCORE)
        if theirs is not None:
            low, high = row.total_ends
            rows.append(_Standing(system=row.system, value=row.score.total_mean, low=low, high=high, theirs=theirs))
    return rows


def _agreement(title: str, rows: Sequence[_Standing], in_words: Callable[[float], str], rule: str) -> Agreement | None:
    if len(rows) < _MIN_ROWS:
        return None
    ordered = [_higher_first(*pair) for pair in itertools.combinations(rows, 2)]
    pairs = [pair for pair in ordered if pair is not None]
    told = [(pair, sign) for pair in pairs if (sign := _our_order(*pair)) != 0]
    reversed_ones = sorted(
        (pair for pair, sign in told if sign < 0), key=lambda p: p[1].theirs["value"] - p[0].theirs["value"]
    )
    num_agree = len(told) - len(reversed_ones)
    tau = float(stats.kendalltau([row.value for row in rows], [row.theirs["value"] for row in rows]).statistic)
    coefficient = (
        f"Kendall's tau {number(tau, 2)} over {len(rows)} rows (1: the authors' order; 0: no relation; −1: the "
        "reverse). "
        if math.isfinite(tau)
        else f"Kendall's tau is not defined over these {len(rows)} rows: all are equal. "
    )
    text = (
        f"{coefficient}Of the {count(len(pairs))} pairs of rows that the authors order, our intervals distinguish "
        f"{count(len(told))}: {count(num_agree)} are in the authors' order, {count(len(reversed_ones))} in the "
        "reverse."
    )
    return Agreement(
        title=title, text=text, rule=rule, reversals=[_reversal(*pair, in_words) for pair in reversed_ones]
    )


def _higher_first(one: _Standing, other: _Standing) -> tuple[_Standing, _Standing] | None:
    """By the authors' figures; None where they are equal."""
    first, second = one.theirs["value"], other.theirs["value"]
    return None if first == second else (one, other) if first > second else (other, one)


def _our_order(one: _Standing, other: _Standing) -> int:
    """1 if the first is higher beyond our intervals, −1 if it is lower, 0 if they are not distinguished."""
    for row, baseline, sign in ((one, other, 1), (other, one, -1)):
        if row.gap is not None and row.system["baseline"] == baseline.system["name"]:
            return sign * ((row.gap["low"] > 0) - (row.gap["high"] < 0))
    return (one.low > other.high) - (other.low > one.high)


def _reversal(upper: _Standing, lower: _Standing, in_words: Callable[[float], str]) -> str:
    return (
        f"{lower.system['label']} is above {upper.system['label']} here ({in_words(lower.value)} against "
        f"{in_words(upper.value)}), and below it in the authors' figures ({value_words(lower.theirs)} against "
        f"{value_words(upper.theirs)})."
    )
