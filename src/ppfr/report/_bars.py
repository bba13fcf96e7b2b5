"""Leakage as interval bars: what each attack gets, between a guess and the ceiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ppfr.report._charts import colour_of
from ppfr.report._figures import Figure, share_figure
from ppfr.report._findings import Part, attacks_on, sees_mixed
from ppfr.report._wording import ROLE_WORDS, SECRET_WORDS, count, percent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of an interval chart; places are shares of the track's width."""

    arm: str
    label: str
    note: str
    figure: Figure
    colour: int
    value: float
    low: float
    high: float
    marks: Sequence[tuple[float, str]] = ()


_NAMED = (
    "Who is it? Victims named from one masked image",
    "The adversary compares its guess with one plain photograph of each person in the gallery and takes the nearest.",
)
_PAIRS = (
    "Do two images show one person? Masked against plain",
    "Accuracy on the protocol's own pairs: one side as the server sees it, the other a plain photograph.",
)
_MIXED = "Where a row says so, the adversary has an image of the mixed training set in place of a masked one."
_ACCEPTED = (
    "Would the recovered face pass for the person?",
    "Recovered faces that an independent recogniser accepts as the person, held against another photograph.",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeakageChart:
    """One kind of leakage; of many rows `bars` has the highest of each arm, and `others` all the rest, to be folded."""

    heading: str
    words: str
    bars: Sequence[Bar]
    others: Sequence[Bar] = ()


_MOST_BARS = 12


def leakage_charts(record: Part) -> list[LeakageChart]:
    """Naming, pairs and recovered faces; kinds without a figure are left out."""
    arms = {arm["name"]: (index, arm["label"]) for index, arm in enumerate(record["arms"])}
    judged = [a for arm in record["arms"] for a in attacks_on(record, arm)]

    def bar(attack: Part, estimate: Part, note: str, marks: Sequence[tuple[float, str]]) -> Bar:
        series, label = arms[attack["arm"]]
        kind = SECRET_WORDS[attack["secret"]] if attack["role"] == "attack" else ROLE_WORDS[attack["role"]]
        if sees_mixed(attack):
            kind = f"{kind} · mixed training images"
        return Bar(
            arm=attack["arm"],
            label=f"{attack['label']} on {label}",
            note=f"{kind} · {note}",
            figure=share_figure(estimate),
            colour=colour_of(series),
            value=100 * estimate["value"],
            low=100 * estimate["low"],
            high=100 * estimate["high"],
            marks=[(100 * value, words) for value, words in marks],
        )

    def named(attack: Part) -> Bar:
        found = attack["outcome"]["linkage"]
        note = f"{count(found['gallery_size'])} people; in the first five {percent(found['top5']['value'])}"
        return bar(
            attack, found["top1"], note, [(found["chance_top1"], "guess"), (found["plain_top1"]["value"], "ceiling")]
        )

    def accepted(attack: Part) -> Bar:
        found = attack["outcome"]["recovery"]
        guess, ceiling = (found[kind]["at_far"]["other_image"]["value"] for kind in ("guess", "original"))
        estimate = found["recovered"]["at_far"]["other_image"]
        return bar(attack, estimate, f"false accept rate {found['far']:g}", [(guess, "guess"), (ceiling, "ceiling")])

    paired = [(a, p) for a in judged for p in a["outcome"]["pairs"] if p["accuracy"] is not None]
    groups = [
        (*_NAMED, [named(a) for a in judged]),
        (*_PAIRS, [bar(a, p["accuracy"], p["name"], [(0.5, "guess")]) for a, p in paired]),
        (*_ACCEPTED, [accepted(a) for a in judged if a["outcome"]["recovery"] is not None]),
    ]
    if any(map(sees_mixed, judged)):
        groups = [(h, f"{words} {_MIXED}", bars) for h, words, bars in groups]
    return [folded(*group) for group in groups if group[2]]


def folded(heading: str, words: str, bars: Sequence[Bar]) -> LeakageChart:
    """A chart that shows, of many rows, the highest of each arm."""
    if len(bars) <= _MOST_BARS:
        return LeakageChart(heading=heading, words=words, bars=bars)
    highest: dict[str, Bar] = {}
    for bar in bars:
        if bar.arm not in highest or bar.value > highest[bar.arm].value:
            highest[bar.arm] = bar
    shown = list(highest.values())
    words = f"{words} Here the attack that got most of each system; the others are folded below."
    return LeakageChart(heading=heading, words=words, bars=shown, others=[bar for bar in bars if bar not in shown])
