"""Agreement between the measured and the published order of systems."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import final

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
_MIN_ROWS = 3  # for two rows a coefficient has no information beyond their order
_ACCURACY_RULE = (
    "A protected system and its baseline are distinguished by the paired interval of their gap. Any other two systems "
    "are distinguished if their intervals do not overlap, which is the stricter rule."
)
_TOTAL_RULE = (
    "Totals (means) are distinguished if their ranges do not overlap. A range extends from the total with S1 to S5 at "
    "the lower ends of their intervals to that with all of them at the upper ends."
)


@final
class AgreementSection(Section):
    """Kendall's tau and the pairs in reverse order, per protocol and for the total score."""

    kinds = ("verification",)
    title, anchor = "Agreement with the published order", "adamixup-agreement"
    terms = {  # noqa: RUF012
        "Kendall's tau": "Agreement of two orders: 1 if every pair is in the same order, −1 if every pair is reversed.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """If at least three systems have published results of one measure."""
        return bool(agreements(view, scored_systems(view)))

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """The counts, then the reversed pairs. If there are many, all but the largest reversals are folded."""
        for found in agreements(view, scored_systems(view)):
            yield Prose(title=found.title, text=[found.text])
            yield Prose(text=[found.rule], items=found.reversals[:_MAX_SHOWN], style="small")
            rest = found.reversals[_MAX_SHOWN:]
            if rest:
                yield Details(summary=f"{len(rest)} more pairs in reverse order", blocks=[Prose(items=rest)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement between the measured and the published order in one measure, as text.

    Attributes:
        title: the measure.
        text: Kendall's tau, and the number of pairs that the measured intervals distinguish.
        rule: how pairs were distinguished.
        reversals: pairs whose order differs beyond the measured intervals; largest published difference first.
    """

    title: str
    text: str
    rule: str
    reversals: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """A row: the measured figure with its interval, and the published one."""

    system: Entry
    value: float
    low: float
    high: float
    published: Entry
    gap: Entry | None = None  # paired, to the baseline of the system


def agreements(view: RecordView, scored: Sequence[ScoredSystem]) -> list[Agreement]:
    """One per protocol, and one for the total score. Measures with fewer than three rows are omitted."""
    found = []
    for protocol, scenario in view.protocols():
        rows, title = _by_accuracy(view, protocol, scenario), f"Accuracy on {protocol_words(protocol, scenario)}"
        found.append(_agreement(title, rows, lambda value: percent(value, 2), _ACCURACY_RULE))
    found.append(_agreement("Total score", _by_total(view, scored), lambda value: number(value, 3), _TOTAL_RULE))
    return [agreement for agreement in found if agreement is not None]


def _by_accuracy(view: RecordView, protocol: str, scenario: str) -> list[_Standing]:
    rows = []
    for system in view.systems:
        published = view.published(system, accuracy_measure(protocol))
        measured = view.verification(system["name"], protocol, scenario)
        if published is None or measured is None or measured["accuracy"] is None:
            continue
        ends = {end: measured["accuracy"][end] for end in ("value", "low", "high")}
        gap = view.gap(system["name"], protocol, scenario)
        rows.append(_Standing(system=system, published=published, gap=gap, **ends))
    return rows


def _by_total(view: RecordView, scored: Sequence[ScoredSystem]) -> list[_Standing]:
    rows = []
    for row in scored:
        published = view.published(row.system, TOTAL_SCORE)
        if published is not None:
            low, high = row.total_ends
            total = row.score.total_mean
            rows.append(_Standing(system=row.system, value=total, low=low, high=high, published=published))
    return rows


def _agreement(title: str, rows: Sequence[_Standing], in_words: Callable[[float], str], rule: str) -> Agreement | None:
    if len(rows) < _MIN_ROWS:
        return None
    from scipy import stats

    ordered = [_higher_first(*pair) for pair in itertools.combinations(rows, 2)]
    pairs = [pair for pair in ordered if pair is not None]
    distinguished = [(pair, sign) for pair in pairs if (sign := _measured_order(*pair)) != 0]
    reversed_ones = sorted(
        (pair for pair, sign in distinguished if sign < 0),
        key=lambda p: p[1].published["value"] - p[0].published["value"],
    )
    num_agree = len(distinguished) - len(reversed_ones)
    tau = float(stats.kendalltau([row.value for row in rows], [row.published["value"] for row in rows]).statistic)
    coefficient = (
        f"Kendall's tau is {number(tau, 2)} over {len(rows)} rows (1: the published order; 0: no relation; −1: the "
        "reverse order). "
        if math.isfinite(tau)
        else f"Kendall's tau is not defined over these {len(rows)} rows: all are equal. "
    )
    text = (
        f"{coefficient}Of the {count(len(pairs))} pairs of rows with different published results, the measured "
        f"intervals distinguish {count(len(distinguished))}: {count(num_agree)} are in the published order, "
        f"{count(len(reversed_ones))} in reverse order."
    )
    return Agreement(
        title=title, text=text, rule=rule, reversals=[_reversal(*pair, in_words) for pair in reversed_ones]
    )


def _higher_first(one: _Standing, other: _Standing) -> tuple[_Standing, _Standing] | None:
    """Ordered by the published results; None if they are equal."""
    first, second = one.published["value"], other.published["value"]
    return None if first == second else (one, other) if first > second else (other, one)


def _measured_order(one: _Standing, other: _Standing) -> int:
    """1 if the first is higher beyond the intervals, −1 if it is lower, 0 if they are not distinguished."""
    for row, baseline, sign in ((one, other, 1), (other, one, -1)):
        if row.gap is not None and row.system["baseline"] == baseline.system["name"]:
            result: int = sign * ((row.gap["low"] > 0) - (row.gap["high"] < 0))
            return result
    return (one.low > other.high) - (other.low > one.high)


def _reversal(upper: _Standing, lower: _Standing, in_words: Callable[[float], str]) -> str:
    return (
        f"{lower.system['label']} is above {upper.system['label']} here ({in_words(lower.value)} against "
        f"{in_words(upper.value)}), but below it in the published results ({value_words(lower.published)} against "
        f"{value_words(upper.published)})."
    )
