"""Published results of the authors of the methods, shown apart from the measured results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from ppfr.report._blocks import Block, Prose, Row, Table
from ppfr.report._figures import text_figure
from ppfr.report._published import ACCURACY, accuracy_measure, value_words
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section


@final
class Published(Section):
    """One table of all published results."""

    title, anchor = "Published results", "published"
    terms = {  # noqa: RUF012
        "Published result": "A figure printed in the paper of a method, measured on the data and with the training of "
        "its authors. It is shown next to the measured figure and never replaces it.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """If any system has published results."""
        return bool(_figures(view))

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """The table. Protocols that were not run are marked."""
        figures = _figures(view)
        measures = list(dict.fromkeys(figure["measure"] for _, figure in figures))
        run = {accuracy_measure(protocol) for protocol, _ in view.protocols()}
        yield Prose(
            text=[
                "Published results were measured on other data, with other training and other networks. Compare the "
                "order of systems, not single figures."
            ]
        )
        yield Table(
            first="System",
            columns=[
                measure[:1].upper()
                + measure[1:]
                + (" (not run here)" if measure.startswith(ACCURACY) and measure not in run else "")
                for measure in measures
            ],
            rows=[
                Row(
                    label=view.named(name),
                    key=view.key(name),
                    cells=[text_figure(_cell(figures, name, measure)) for measure in measures],
                )
                for name in dict.fromkeys(system["name"] for system, _ in figures)
            ],
            caption=f"Not measured here. Source: {_sources([figure for _, figure in figures])}.",
        )


def _figures(view: RecordView) -> list[tuple[Entry, Entry]]:
    return [(system, figure) for system in view.systems for figure in system["published"]]


def _cell(figures: Sequence[tuple[Entry, Entry]], system: str, measure: str) -> str:
    found = [value_words(f) for holder, f in figures if holder["name"] == system and f["measure"] == measure]
    return "; ".join(found) or "–"


def _sources(figures: Sequence[Entry]) -> str:
    """The source if there is one, else each with its measures."""
    measures: dict[str, dict[str, None]] = {}
    for figure in figures:
        measures.setdefault(figure["source"], {})[figure["measure"]] = None
    if len(measures) == 1:
        return next(iter(measures))
    return "; ".join(f"{source} ({', '.join(of_source)})" for source, of_source in measures.items())
