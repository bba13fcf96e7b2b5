"""Training of systems and adversaries: losses, compute budgets, and privacy guarantees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from ppfr.report import _charts as charts
from ppfr.report._blocks import Block, Charts, Details, Drawing, Facts, Prose
from ppfr.report._record_view import RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, flat_facts

_MAX_CURVES = 8


@final
class Training(Section):
    """Loss curves, facts of each training, and privacy guarantees."""

    kinds = ("training", "attack_training")
    title, anchor = "Training", "training"
    is_background = True

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Guarantees first, then losses, then facts."""
        yield from _guarantees(view)
        drawings = [
            _loss_curve(label, series, curve)
            for label, series, fit in _runs(view)
            if len(curve := _finite_curve(fit)) >= 2
        ]
        curves = Charts(drawings=drawings, is_small=True)
        if len(drawings) > _MAX_CURVES:
            yield Details(summary=f"Losses of {len(drawings)} trainings", blocks=[curves])
        elif drawings:
            yield curves
        for label, fit in _fits(view):
            yield Details(summary=f"{label}: compute budget and facts", blocks=[Facts(rows=flat_facts(fit))])


def _guarantees(view: RecordView) -> Iterator[Block]:
    rows = [row for row in view.rows("training") if row["guarantee"]]
    if not rows:
        return
    yield Prose(
        title="Privacy guarantees",
        text=[
            "A guarantee follows from the noise and holds for every adversary. The results of the attacks are above. "
            "That a system has no guarantee does not mean that attacks on it succeed."
        ],
    )
    for row in rows:
        lines = [line.removeprefix("- ") for line in row["guarantee"]["in_words"].splitlines()]
        yield Details(summary=view.label(row["system"]), blocks=[Prose(text=lines, style="small")])


def _fits(view: RecordView) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in view.rows("training"):
        label = view.label(row["system"])
        for index, fit in enumerate(row["fits"], start=1):
            yield label if len(row["fits"]) == 1 else f"{label}, part {index}", fit


def _runs(view: RecordView) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for row in view.rows("training"):
        for fit in row["fits"]:
            yield view.label(row["system"]), view.series(row["system"]), fit
    for attack, row in view.outcomes("attack_training"):
        yield f"{attack['label']} on {view.label(attack['system'])}", view.series(attack["system"]), row["facts"]


def _finite_curve(fit: Mapping[str, Any]) -> list[tuple[float, float]]:
    curve = fit.get("curve")
    if not isinstance(curve, list):
        return []
    return [(point[0], point[1]) for point in curve if isinstance(point, list) and len(point) == 2]


def _loss_curve(label: str, series: int, curve: Sequence[tuple[float, float]]) -> Drawing:
    steps, losses = [step for step, _ in curve], [loss for _, loss in curve]
    svg = charts.loss_chart(
        charts.Line(x=steps, y=losses, series=series, label=label),
        title=f"Training loss: {label}",
        description=f"from {losses[0]:.3g} at the first step shown to {losses[-1]:.3g} at the last",
    )
    return Drawing(title=label, caption=f"{count(max(steps))} steps; loss {losses[-1]:.3g} at the end.", svg=svg)
