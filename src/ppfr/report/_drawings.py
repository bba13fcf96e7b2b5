"""The report's charts: accuracy against leakage, ROC, training losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from ppfr.report import _charts as charts
from ppfr.report._findings import Part, protocol_names, worst_linkage, worst_recovery
from ppfr.report._wording import count, percent

MOST_UNNUMBERED = 6
_MOST_LINES = 6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart with its heading, caption and legend of (sign, words)."""

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, str]] = ()


def series_of(record: Part, arm_name: str) -> int:
    """Colour and marker of an arm, the same in all charts of a record."""
    return [arm["name"] for arm in record["arms"]].index(arm_name)


def number_of(record: Part, arm_name: str) -> str:
    """The arm's number where there are more of them than signs tell apart at a glance; else ""."""
    return str(series_of(record, arm_name) + 1) if len(record["arms"]) > MOST_UNNUMBERED else ""


def named(record: Part, arm: Part) -> str:
    """The arm's label, behind its number if arms are numbered."""
    return numbered(number_of(record, arm["name"]), arm["label"])


def numbered(number: str, label: str) -> str:
    """As in "7. PPFR-FD"; the label alone without a number."""
    return f"{number}. {label}" if number else label


def trade_offs(record: Part) -> list[Drawing]:
    """Accuracy against each kind of leakage, by protocol."""
    drawings = []
    for name in protocol_names(record):
        found = list(_dots(record, name, worst_linkage, lambda o: o["linkage"]["top1"]))
        if found:
            chance = min(a["outcome"]["linkage"]["chance_top1"] for a in record["attacks"] if a["outcome"] is not None)
            title = f"Who it is, against accuracy on {name}"
            drawings.append(_trade_off(found, title, "Victims named by the best adversary, %", chance))
        pick = lambda o: o["recovery"]["recovered"]["at_far"]["other_image"]  # noqa: E731
        accepted = list(_dots(record, name, worst_recovery, pick))
        if accepted:
            title = f"What they look like, against accuracy on {name}"
            drawings.append(_trade_off(accepted, title, "Recovered faces that pass for the person, %", None))
    return drawings


def _dots(
    record: Part, protocol: str, worst: Callable[[Part, Part], Part | None], pick: Callable[[Part], Part]
) -> Iterator[charts.Dot]:
    for series, arm in enumerate(record["arms"]):
        attack = worst(record, arm)
        found = [p["accuracy"] for p in arm["protocols"] if p["name"] == protocol and p["accuracy"] is not None]
        if attack is None or not found:
            continue
        x, y = pick(attack["outcome"]), found[0]
        yield charts.Dot(
            x=x["value"],
            x_low=x["low"],
            x_high=x["high"],
            y=y["value"],
            y_low=y["low"],
            y_high=y["high"],
            series=series,
            label=arm["label"],
            number=number_of(record, arm["name"]),
        )


def _trade_off(dots: Sequence[charts.Dot], title: str, label: str, chance: float | None) -> Drawing:
    svg = charts.trade_off_chart(
        dots,
        x_label=label,
        title=title,
        description="; ".join(f"{d.label}: accuracy {percent(d.y, 2)}, leakage {percent(d.x)}" for d in dots),
        chance=chance,
    )
    legend = [(charts.key(d.series, is_line=False), numbered(d.number, d.label)) for d in dots]
    return Drawing(title=title, caption="Better is up and to the left. Crosses are intervals.", svg=svg, legend=legend)


def rocs(record: Part) -> list[Drawing]:
    """One ROC chart for each protocol; of many arms several, with the baseline in each and on the same axes."""
    return [drawing for name in protocol_names(record) for drawing in _rocs(record, name)]


def _rocs(record: Part, name: str) -> list[Drawing]:
    found = [(arm, p) for arm in record["arms"] for p in arm["protocols"] if p["name"] == name]
    num_impostor = min(p["num_impostor"] for _, p in found)
    caption = (
        f"{count(num_impostor)} impostor comparisons; rates below {1 / num_impostor:.1g} cannot be seen with them."
    )
    lines = [_roc_line(record, arm, protocol, num_impostor) for arm, protocol in found]
    parts = _parts(found)
    drawings = []
    for index, rows in enumerate(parts, start=1):
        title = f"ROC on {name}" if len(parts) == 1 else f"ROC on {name}, {index} of {len(parts)}"
        svg = charts.roc_chart(
            [lines[row] for row in rows],
            low=min(0.1, 1 / num_impostor),
            least=min([0.9, *(min(line.y) for line in lines if line.y)]) if len(parts) > 1 else 0.9,
            title=title,
            description="; ".join(
                f"{arm['label']}: equal error rate {percent(p['eer']['value'], 2)}"
                for arm, p in (found[row] for row in rows)
            ),
        )
        legend = [(charts.key(lines[row].series, is_line=True), lines[row].label) for row in rows]
        drawings.append(Drawing(title=title, caption=caption, svg=svg, legend=legend))
    return drawings


def _parts(found: Sequence[tuple[Part, Part]]) -> list[list[int]]:
    """Rows for each chart, so that none has more curves than can be followed; the first baseline is in all."""
    rows = list(range(len(found)))
    if len(rows) <= _MOST_LINES:
        return [rows]
    first = [row for row in rows if found[row][0]["role"] == "baseline"][:1]
    others = [row for row in rows if row not in first]
    size = _MOST_LINES - len(first)
    return [[*first, *others[start : start + size]] for start in range(0, len(others), size)]


def _roc_line(record: Part, arm: Part, protocol: Part, num_impostor: int) -> charts.Line:
    """The curve where the protocol's impostor comparisons support it."""
    curve = zip(protocol["roc"]["far"], protocol["roc"]["tar"], strict=True)
    pairs = [(f, t) for f, t in curve if f * num_impostor >= 1 - 1e-9]
    return charts.Line(
        x=[f for f, _ in pairs],
        y=[t for _, t in pairs],
        series=series_of(record, arm["name"]),
        label=named(record, arm),
    )


def loss_curves(record: Part) -> list[Drawing]:
    """The loss of every run of the training loop that left a curve, recognisers first, then attackers."""
    runs = [
        (arm["label"], series, fit)
        for series, arm in enumerate(record["arms"])
        for fit in (arm["training"] or {"fits": []})["fits"]
    ]
    labels = {arm["name"]: (series, arm["label"]) for series, arm in enumerate(record["arms"])}
    for attack in record["attacks"]:
        series, label = labels[attack["arm"]]
        runs.append((f"{attack['label']} on {label}", series, attack["fit"] or {}))
    return [_loss_curve(label, series, curve) for label, series, fit in runs if len(curve := _finite_curve(fit)) >= 2]


def _finite_curve(fit: Part) -> list[tuple[float, float]]:
    curve = fit.get("curve")
    if not isinstance(curve, list):
        return []
    return [(point[0], point[1]) for point in curve if isinstance(point, list) and len(point) == 2]


def _loss_curve(label: str, series: int, curve: Sequence[tuple[float, float]]) -> Drawing:
    steps, losses = [s for s, _ in curve], [v for _, v in curve]
    svg = charts.loss_chart(
        charts.Line(x=steps, y=losses, series=series, label=label),
        title=f"Training loss: {label}",
        description=f"from {losses[0]:.3g} at the first step shown to {losses[-1]:.3g} at the last",
    )
    return Drawing(title=label, caption=f"{count(max(steps))} steps; loss {losses[-1]:.3g} at the end.", svg=svg)
