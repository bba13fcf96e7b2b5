"""Charts of accuracy against leakage, for every section that shows a leakage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ppfr.report import _charts as charts
from ppfr.report._blocks import Drawing
from ppfr.report._record_view import Entry, RecordView, protocol_words
from ppfr.report._wording import percent

WorstCase = Callable[[str], Entry | None]
"""Name of a system -> the leakage by its strongest attack as an estimate, or None."""


def trade_offs(
    view: RecordView, leakage: WorstCase, *, title: str, label: str, chance: float | None = None
) -> Iterator[Drawing]:
    """Accuracy against a leakage, one chart per protocol and scenario.

    Args:
        view: the record.
        leakage: returns the leakage of a system.
        title: heading, before the protocol.
        label: label of the x axis.
        chance: the leakage at the chance level; None draws none.
    """
    for protocol, scenario in view.protocols():
        found = list(_dots(view, leakage, protocol, scenario))
        if found:
            words = protocol_words(protocol, scenario)
            yield _trade_off(view, found, f"{title}, against accuracy on {words}", label, chance)


def _dots(view: RecordView, leakage: WorstCase, protocol: str, scenario: str) -> Iterator[tuple[str, charts.Dot]]:
    for series, system in enumerate(view.systems):
        name = system["name"]
        x, row = leakage(name), view.verification(name, protocol, scenario)
        if x is None or row is None or row["accuracy"] is None:
            continue
        y = row["accuracy"]
        yield (
            name,
            charts.Dot(
                x=x["value"],
                x_low=x["low"],
                x_high=x["high"],
                y=y["value"],
                y_low=y["low"],
                y_high=y["high"],
                series=series,
                label=system["label"],
                number=view.number(name),
            ),
        )


def _trade_off(
    view: RecordView, found: Sequence[tuple[str, charts.Dot]], title: str, label: str, chance: float | None
) -> Drawing:
    svg = charts.trade_off_chart(
        [dot for _, dot in found],
        x_label=label,
        title=title,
        description="; ".join(f"{d.label}: accuracy {percent(d.y, 2)}, leakage {percent(d.x)}" for _, d in found),
        chance=chance,
    )
    legend = [(charts.key(dot.series, is_line=False), view.named(name)) for name, dot in found]
    return Drawing(title=title, caption="Better is up and to the left. Crosses are intervals.", svg=svg, legend=legend)
