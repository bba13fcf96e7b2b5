"""Rows of attacks without training, for the section on re-identification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ppfr.report._blocks import Block, Row, Table
from ppfr.report._figures import Figure, share_figure, text_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._wording import count, percent

GALLERY_KIND = "gallery_attack"


def gallery_rows(view: RecordView, system: str, *, photo: str) -> Iterator[tuple[Entry, Entry]]:
    """(attack, row) of a system for every number of observations."""
    for attack in view.attacks(system=system):
        for row in view.rows(GALLERY_KIND, attack=attack["name"], photo=photo):
            yield attack, row


def same_photo(view: RecordView, system: str) -> tuple[Entry, Entry] | None:
    """The strongest result against a gallery that holds the masked photos themselves."""
    found = gallery_rows(view, system, photo="same photo")
    return max(found, key=lambda pair: float(pair[1]["rank_1"]["value"]), default=None)


def observations_in_words(row: Entry) -> str:
    """For example "16 masks of one image"."""
    num = row["num_observations"]
    if row["source"] == "one image":
        return "one masked image" if num == 1 else f"{num} masks of one image"
    return f"masks of {num} images of the person"


def gallery_table(view: RecordView) -> Iterable[Block]:
    """All rates, by system, attack and number of observations."""
    rows = [
        _row(view, attack, row)
        for system in view.systems
        for attack in view.attacks(system=system["name"])
        for row in view.rows(GALLERY_KIND, attack=attack["name"])
    ]
    if rows:
        yield Table(
            title="Attacks without training",
            first="Attack",
            columns=["Level", "Observed", "Gallery", "Rank-1", "Rank-5", "AUC", "Chance level", "Upper bound"],
            rows=rows,
            caption="The gallery holds one plain photo of each person: another photo, or the masked photo itself. "
            "AUC is the share of gallery photos of others that score below the mated one. The upper bound is rank-1 of "
            "one plain image with the evaluation recogniser.",
        )


def _row(view: RecordView, attack: Entry, row: Entry) -> Row:
    people = count(row["rank_1"]["n"])
    return Row(
        label=f"{attack['label']} on {view.named(attack['system'])}",
        key=view.key(attack["system"]),
        note=view.role_words(attack),
        cells=[
            text_figure(row["level"]),
            text_figure(observations_in_words(row)).with_note(f"{people} people"),
            text_figure(row["photo"]).with_note(f"{count(row['gallery_size'])} people"),
            share_figure(row["rank_1"]),
            share_figure(row["rank_5"]),
            share_figure(row["auc"]),
            Figure(main=percent(row["chance_rank_1"], 2)),
            Figure(main=percent(row["plain_rank_1"]["value"])),
        ],
    )
