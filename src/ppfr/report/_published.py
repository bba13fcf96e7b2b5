"""Figures that others published, as words: shown beside those measured here and never in their place."""

from __future__ import annotations

from ppfr.report._record_view import Entry, RecordView
from ppfr.report._wording import number, percent

ACCURACY, SHARE = "accuracy on ", "share of "


def accuracy_measure(protocol: str) -> str:
    """The measure that holds a published accuracy on a protocol."""
    return f"{ACCURACY}{protocol.lower().replace('_', '-')}"


def published_words(view: RecordView, system: Entry, measure: str) -> str:
    """As in "published: 98.20 % (arXiv 2403.10558, table 2)"; "" if nothing was."""
    figure = view.published(system, measure)
    return "" if figure is None else f"published: {value_words(figure)} ({figure['source']})"


def value_words(figure: Entry) -> str:
    """A published figure as it was printed: shares in per cent, scores with three digits."""
    if figure["measure"].startswith(ACCURACY):
        return percent(figure["value"], 2)
    return percent(figure["value"], 0) if figure["measure"].startswith(SHARE) else number(figure["value"], 3)
