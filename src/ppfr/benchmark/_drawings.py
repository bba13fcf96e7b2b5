"""The report's charts: accuracy against leakage, ROC, training losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from ppfr.benchmark import _charts as charts
from ppfr.benchmark._findings import Part, worst_linkage, worst_recovery
from ppfr.benchmark._wording import count, percent


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


def protocol_names(record: Part) -> list[str]:
    """Protocols in the order of the record."""
    return list(dict.fromkeys(p["name"] for arm in record["arms"] for p in arm["protocols"]))


def trade_offs(record: Part) -> list[Drawing]:
    """Accuracy against each kind of leakage, by protocol."""
    drawings = []
    for name in protocol_names(record):
        named = list(_dots(record, name, worst_linkage, lambda o: o["linkage"]["top1"]))
        if named:
            chance = min(a["outcome"]["linkage"]["chance_top1"] for a in record["attacks"] if a["outcome"] is not None)
            title = f"Who it is, against accuracy on {name}"
            drawings.append(_trade_off(named, title, "Victims named by the best adversary, %", chance))
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
        )


def _trade_off(dots: Sequence[charts.Dot], title: str, label: str, chance: float | None) -> Drawing:
    svg = charts.trade_off_chart(
        dots,
        x_label=label,
        title=title,
        description="; ".join(f"{d.label}: accuracy {percent(d.y, 2)}, leakage {percent(d.x)}" for d in dots),
        chance=chance,
    )
    legend = [(charts.key(d.series, is_line=False), d.label) for d in dots]
    return Drawing(title=title, caption="Better is up and to the left. Crosses are intervals.", svg=svg, legend=legend)


def rocs(record: Part) -> list[Drawing]:
    """One ROC chart for each protocol."""
    return [_roc(record, name) for name in protocol_names(record)]


def _roc(record: Part, name: str) -> Drawing:
    found = [(arm, p) for arm in record["arms"] for p in arm["protocols"] if p["name"] == name]
    num_impostor = min(p["num_impostor"] for _, p in found)
    lines = []
    for arm, protocol in found:
        pairs = [
            (f, t)
            for f, t in zip(protocol["roc"]["far"], protocol["roc"]["tar"], strict=True)
            if f * num_impostor >= 1 - 1e-9
        ]
        xs, ys = [f for f, _ in pairs], [t for _, t in pairs]
        lines.append(charts.Line(x=xs, y=ys, series=series_of(record, arm["name"]), label=arm["label"]))
    svg = charts.roc_chart(
        lines,
        low=min(0.1, 1 / num_impostor),
        title=f"ROC on {name}",
        description="; ".join(f"{arm['label']}: equal error rate {percent(p['eer']['value'], 2)}" for arm, p in found),
    )
    caption = (
        f"{count(num_impostor)} impostor comparisons; rates below {1 / num_impostor:.1g} cannot be seen with them."
    )
    legend = [(charts.key(line.series, is_line=True), line.label) for line in lines]
    return Drawing(title=f"ROC on {name}", caption=caption, svg=svg, legend=legend)


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
