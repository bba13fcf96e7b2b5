"""Published results as text. They are shown next to the measured figures and never replace them."""

from __future__ import annotations

from ppfr.report._record_view import Entry, RecordView
from ppfr.report._wording import number, percent

ACCURACY, SHARE = "accuracy on ", "share of "


def accuracy_measure(protocol: str) -> str:
    """Name under which records hold the published accuracy on a protocol."""
    return f"{ACCURACY}{protocol.lower().replace('_', '-')}"


def published_words(view: RecordView, system: Entry, measure: str) -> str:
    """For example "published: 98.20 % (arXiv 2403.10558, table 2)"; "" if nothing was published."""
    figure = view.published(system, measure)
    return "" if figure is None else f"published: {value_words(figure)} ({figure['source']})"


def value_words(figure: Entry) -> str:
    """A published figure as it was printed: shares in %, scores with three digits."""
    if figure["measure"].startswith(ACCURACY):
        return percent(figure["value"], 2)
    return percent(figure["value"], 0) if figure["measure"].startswith(SHARE) else number(figure["value"], 3)
