"""Numbers of images that the strategy network chose: shares over the whole run, and over its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import final

from ppfr.report import (
    MISSING,
    Block,
    Charts,
    Drawing,
    Entry,
    Figure,
    Prose,
    RecordView,
    Row,
    Section,
    Table,
    charts,
    count,
    listed,
    percent,
    published_words,
)

_SHARE = "share of "


@final
class SharesSection(Section):
    """The choices of the strategy network in each training."""

    kinds = ("training",)
    title, anchor = "How many images were mixed", "adamixup-shares"
    terms = {  # noqa: RUF012
        "Share of k": "Share of training batches in which the strategy network chose to mix k images.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """If any training has shares."""
        return next(_fits(view), None) is not None

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """A table with a row per training and a column per candidate, then stacked areas over the run."""
        fits = list(_fits(view))
        columns = _columns([outcome for _, _, _, outcome in fits])
        colours = {name: 1 + index for index, name in enumerate(columns)}
        yield Prose(
            text=[
                "A strategy network chose the number k of mixed images for each batch. A dash: k was not a candidate."
            ]
        )
        yield Table(
            first="Training",
            columns=list(columns.values()),
            rows=[
                Row(
                    label=label,
                    key=view.key(system["name"]),
                    note=f"{count(fit['steps'])} batches" if "steps" in fit else "",
                    cells=[_cell(view, system, outcome, name) for name in columns],
                )
                for system, label, fit, outcome in fits
            ],
            caption="Share of batches for which k was chosen, over the whole run.",
        )
        drawings = [
            _drawing(label, outcome, columns, colours)
            for _, label, _, outcome in fits
            if outcome.get("shares_over_time")
            and all(len(row) == len(outcome["shares"]) for row in outcome["shares_over_time"])
        ]
        yield Charts(drawings=drawings)


def _fits(view: RecordView) -> Iterator[tuple[Entry, str, Entry, Entry]]:
    """(system, label, fit, outcome) of each training that has shares."""
    for row in view.rows("training"):
        for index, fit in enumerate(row["fits"], start=1):
            outcome = fit.get("outcome") or {}
            if outcome.get("shares") and len(outcome["shares"]) == len(outcome.get("candidates", ())):
                label = view.named(row["system"])
                many = f"{label}, part {index}"
                yield view.system(row["system"]), label if len(row["fits"]) == 1 else many, fit, outcome


def _columns(outcomes: Sequence[Entry]) -> dict[str, str]:
    """Candidate -> its heading, by increasing number of images. The heading is the number, if all numbers differ."""
    sizes = {
        name: int(size)
        for outcome in outcomes
        for name, size in zip(outcome["candidates"], outcome["num_images"], strict=True)
    }
    is_plain = len(set(sizes.values())) == len(sizes)
    ordered = sorted(sizes, key=lambda name: (sizes[name], name))
    return {name: f"k\u00a0=\u00a0{sizes[name]}" if is_plain else name for name in ordered}


def _cell(view: RecordView, system: Entry, outcome: Entry, candidate: str) -> Figure:
    published = published_words(view, system, f"{_SHARE}{candidate}")
    if candidate not in outcome["candidates"]:
        return Figure(main=MISSING.main, published=published)
    share = outcome["shares"][list(outcome["candidates"]).index(candidate)]
    return Figure(main=percent(share), published=published)


def _drawing(label: str, outcome: Entry, columns: Mapping[str, str], colours: Mapping[str, int]) -> Drawing:
    places = [(name, list(outcome["candidates"]).index(name)) for name in columns if name in outcome["candidates"]]
    over_time = outcome["shares_over_time"]
    bands = [
        charts.Line(x=(), y=[row[place] for row in over_time], series=colours[name], label=columns[name])
        for name, place in places
    ]
    overall = [f"{columns[name]} in {percent(outcome['shares'][place])}" for name, place in places]
    svg = charts.shares_chart(bands, title=f"Choices over the run: {label}", description=f"overall {listed(overall)}")
    caption = f"Shares in {len(over_time)} consecutive parts of the run. Over the whole run: {listed(overall)}."
    legend = [(charts.area_key(band.series), band.label) for band in bands]
    return Drawing(title=label, caption=caption, svg=svg, legend=legend)
