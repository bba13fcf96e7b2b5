"""Figures that others published of a method, beside those measured here and never in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppfr.report._findings import Part, protocol_names
from ppfr.report._wording import number, percent

ACCURACY, SHARE = "accuracy on ", "share of "
TOTAL_SCORE, PRIVACY_SCORE, ACCURACY_SCORE = "total score", "privacy score", "accuracy score"


def accuracy_measure(protocol: str) -> str:
    """The measure that holds a published accuracy on a protocol."""
    return f"{ACCURACY}{protocol.lower().replace('_', '-')}"


def reported_figure(holder: Part, measure: str) -> Part | None:
    """What was published of an arm; the first, where several sources are given. Judges have none."""
    return next((figure for figure in holder.get("reported", ()) if figure["measure"] == measure), None)


def reported_words(holder: Part, measure: str) -> str:
    """As in "reported: 98.20 % (arXiv 2403.10558, table 2)"; "" if nothing was."""
    figure = reported_figure(holder, measure)
    return "" if figure is None else f"reported: {value_words(figure)} ({figure['source']})"


def value_words(figure: Part) -> str:
    """A published figure as it was printed: shares in per cent, scores with three digits."""
    if figure["measure"].startswith(ACCURACY):
        return percent(figure["value"], 2)
    return percent(figure["value"], 0) if figure["measure"].startswith(SHARE) else number(figure["value"], 3)


def reported_table(record: Part, *, without: str = "") -> Mapping[str, Any] | None:
    """All that the authors report, a row for each arm and a column for each measure.

    Args:
        record: the record.
        without: measures that start so stand elsewhere on the page; "" leaves none out.

    Returns:
        `columns` of (measure, note), `rows` of (label, texts) and `sources` in words; None if nothing was reported.
    """
    figures = [
        (arm, figure)
        for arm in record["arms"]
        for figure in arm.get("reported", ())
        if not (without and figure["measure"].startswith(without))
    ]
    if not figures:
        return None
    measures = list(dict.fromkeys(figure["measure"] for _, figure in figures))
    run = {accuracy_measure(name) for name in protocol_names(record)}
    arms = {arm["name"]: arm["label"] for arm, _ in figures}
    return {
        "columns": [(m, "not run here" if m.startswith(ACCURACY) and m not in run else "") for m in measures],
        "rows": [(label, [_cell(figures, name, m) for m in measures]) for name, label in arms.items()],
        "sources": _sources([figure for _, figure in figures]),
    }


def _cell(figures: Sequence[tuple[Part, Part]], arm_name: str, measure: str) -> str:
    found = [value_words(f) for arm, f in figures if arm["name"] == arm_name and f["measure"] == measure]
    return "; ".join(found) or "–"


def _sources(figures: Sequence[Part]) -> str:
    """The source if there is one, else each with its measures."""
    measures: dict[str, dict[str, None]] = {}
    for figure in figures:
        measures.setdefault(figure["source"], {})[figure["measure"]] = None
    if len(measures) == 1:
        return next(iter(measures))
    return "; ".join(f"{source} ({', '.join(of_source)})" for source, of_source in measures.items())
