"""Where the order of methods agrees with what their authors report, and where it does not."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from scipy import stats

from ppfr.report._findings import Part, protocol_names
from ppfr.report._reported import TOTAL_SCORE, accuracy_measure, reported_figure, value_words
from ppfr.report._scores import ScoredArm
from ppfr.report._wording import count, number, percent

_LEAST_ROWS = 3  # two rows agree or do not; a coefficient of them says no more
_ACCURACY_RULE = (
    "A protection and its own baseline are told apart by the paired interval of their gap; any other two where their "
    "intervals do not overlap, which is the stricter rule."
)
_TOTAL_RULE = (
    "Totals (means) are told apart where their ranges do not overlap. A range is what the total comes to with all of "
    "S1 to S5 at the lower, and at the upper ends of their intervals."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One measure: how far our order of the rows is theirs, in words.

    Attributes:
        title: the measure.
        text: Kendall's tau, and how many pairs our intervals tell apart.
        rule: how pairs were told apart.
        reversals: the pairs whose order differs beyond our intervals, widest first in the authors' figures.
    """

    title: str
    text: str
    rule: str
    reversals: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """A row: our figure with its ends, and theirs."""

    arm: Part
    value: float
    low: float
    high: float
    theirs: Part
    gap: Part | None = None  # paired, to the arm's own baseline


def agreements(record: Part, scored: Sequence[ScoredArm]) -> list[Agreement]:
    """For every protocol that was run, and for the total score; measures with fewer than three common rows are left."""
    found = []
    for name in protocol_names(record):
        rows = _by_accuracy(record, name)
        found.append(_agreement(f"Accuracy on {name}", rows, lambda v: percent(v, 2), _ACCURACY_RULE))
    found.append(_agreement("Total score", _by_total(scored), lambda v: number(v, 3), _TOTAL_RULE))
    return [agreement for agreement in found if agreement is not None]


def _by_accuracy(record: Part, protocol: str) -> list[_Standing]:
    rows = []
    for arm in record["arms"]:
        theirs = reported_figure(arm, accuracy_measure(protocol))
        ours = next((p for p in arm["protocols"] if p["name"] == protocol and p["accuracy"] is not None), None)
        if theirs is None or ours is None:
            continue
        ends = {end: ours["accuracy"][end] for end in ("value", "low", "high")}
        rows.append(_Standing(arm=arm, theirs=theirs, gap=ours["gap_to_baseline"], **ends))
    return rows


def _by_total(scored: Sequence[ScoredArm]) -> list[_Standing]:
    rows = []
    for row in scored:
        theirs = reported_figure(row.arm, TOTAL_SCORE)
        if theirs is not None:
            low, high = row.total_ends
            rows.append(_Standing(arm=row.arm, value=row.score.total_mean, low=low, high=high, theirs=theirs))
    return rows


def _agreement(title: str, rows: Sequence[_Standing], in_words: Callable[[float], str], rule: str) -> Agreement | None:
    if len(rows) < _LEAST_ROWS:
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
        f"{coefficient}Of the {count(len(pairs))} pairs of rows that the authors order, our intervals tell "
        f"{count(len(told))} apart: {count(num_agree)} stand in the authors' order, {count(len(reversed_ones))} in the "
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
    """1 if the first is higher beyond our intervals, −1 if it is lower, 0 if they are not told apart."""
    for arm, baseline, sign in ((one, other, 1), (other, one, -1)):
        if arm.gap is not None and arm.arm["baseline"] == baseline.arm["name"]:
            return sign * ((arm.gap["low"] > 0) - (arm.gap["high"] < 0))
    return (one.low > other.high) - (other.low > one.high)


def _reversal(upper: _Standing, lower: _Standing, in_words: Callable[[float], str]) -> str:
    return (
        f"{lower.arm['label']} stands above {upper.arm['label']} here ({in_words(lower.value)} against "
        f"{in_words(upper.value)}), and below it in the authors' figures ({value_words(lower.theirs)} against "
        f"{value_words(upper.theirs)})."
    )
