"""What a strategy that chooses how many images to mix has chosen: shares over the run, and over its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ppfr.report import _charts as charts
from ppfr.report._drawings import Drawing, named, series_of
from ppfr.report._figures import MISSING, Figure
from ppfr.report._findings import Part
from ppfr.report._reported import SHARE, reported_words
from ppfr.report._wording import count, listed, percent


def has_shares(record: Part) -> bool:
    """Whether any training of the record chose among mixers."""
    return next(_fits(record), None) is not None


def share_table(record: Part) -> Mapping[str, Any] | None:
    """A row for each training that chose, a column for each candidate of any of them; None if none chose."""
    fits = list(_fits(record))
    if not fits:
        return None
    columns = _columns([outcome for _, _, _, outcome in fits])
    return {
        "columns": list(columns.values()),
        "rows": [
            {
                "label": label,
                "key": charts.key(series_of(record, arm["name"]), is_line=False),
                "note": f"{count(fit['steps'])} batches" if "steps" in fit else "",
                "cells": [_cell(arm, outcome, name) for name in columns],
            }
            for arm, label, fit, outcome in fits
        ],
    }


def share_drawings(record: Part) -> list[Drawing]:
    """For each training that chose, its choices over the run as stacked areas."""
    fits = list(_fits(record))
    columns = _columns([outcome for _, _, _, outcome in fits])
    colours = {name: 1 + index for index, name in enumerate(columns)}
    return [
        _drawing(label, outcome, columns, colours)
        for _, label, _, outcome in fits
        if outcome.get("shares_over_time")
        and all(len(row) == len(outcome["shares"]) for row in outcome["shares_over_time"])
    ]


def _fits(record: Part) -> Iterator[tuple[Part, str, Part, Part]]:
    """(arm, label, fit, outcome) of each training that left shares."""
    for arm in record["arms"]:
        fits = (arm["training"] or {"fits": []})["fits"]
        for index, fit in enumerate(fits, start=1):
            outcome = fit.get("outcome") or {}
            if outcome.get("shares") and len(outcome["shares"]) == len(outcome.get("candidates", ())):
                label = named(record, arm)
                yield arm, label if len(fits) == 1 else f"{label}, part {index}", fit, outcome


def _columns(outcomes: Sequence[Part]) -> dict[str, str]:
    """Candidate -> its heading, by rising number of images: the number, if that alone tells the candidates apart."""
    sizes = {
        name: int(size)
        for outcome in outcomes
        for name, size in zip(outcome["candidates"], outcome["num_images"], strict=True)
    }
    is_plain = len(set(sizes.values())) == len(sizes)
    ordered = sorted(sizes, key=lambda name: (sizes[name], name))
    return {name: f"k\u00a0=\u00a0{sizes[name]}" if is_plain else name for name in ordered}


def _cell(arm: Part, outcome: Part, candidate: str) -> Figure:
    theirs = reported_words(arm, f"{SHARE}{candidate}")
    if candidate not in outcome["candidates"]:
        return Figure(main=MISSING.main, reported=theirs)
    share = outcome["shares"][list(outcome["candidates"]).index(candidate)]
    return Figure(main=percent(share), reported=theirs)


def _drawing(label: str, outcome: Part, columns: Mapping[str, str], colours: Mapping[str, int]) -> Drawing:
    places = [(name, list(outcome["candidates"]).index(name)) for name in columns if name in outcome["candidates"]]
    over_time = outcome["shares_over_time"]
    bands = [
        charts.Line(x=(), y=[row[place] for row in over_time], series=colours[name], label=columns[name])
        for name, place in places
    ]
    overall = [f"{columns[name]} in {percent(outcome['shares'][place])}" for name, place in places]
    svg = charts.shares_chart(bands, title=f"Choices over the run: {label}", description=f"overall {listed(overall)}")
    caption = f"Shares in {len(over_time)} parts of the run, one after the other; over the whole run {listed(overall)}."
    legend = [(charts.area_key(band.series), band.label) for band in bands]
    return Drawing(title=label, caption=caption, svg=svg, legend=legend)
