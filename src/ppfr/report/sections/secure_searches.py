"""Searches under secret sharing, 1:N, compared with searches by float scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from ppfr.report._blocks import Block, Finding, Prose, Row, Table
from ppfr.report._figures import MISSING, Figure, gap_words, share_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count

_KIND = "secure_searches"


@final
class SecureSearches(Section):
    """Rank-1 and FNIR of fixed-point formats, and searches that rounding changed."""

    kinds = (_KIND,)
    title, anchor = "Searches under secret sharing, 1:N", "secure-searches"
    rules = (
        "Searches under secret sharing must have the outcome of searches by the same integers in the clear. They may "
        "differ from those by float scores."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """Number of searches that differ from those by float scores."""
        decided = [at for _, _, at in _decisions(view)]
        if decided:
            total, clear, differ = (
                sum(at[name] for at in decided)
                for name in ("num_decided", "num_differ_from_integers_in_the_clear", "num_differ_from_float")
            )
            yield (
                f"Of {count(total)} searches under secret sharing, {differ or 'none'} differ from those by float "
                f"scores, and {clear or 'none'} from those by the same integers in the clear."
            )

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per system whose searches differ from those by integers in the clear."""
        wrong = {row["system"]: at for row, _, at in _decisions(view) if at["num_differ_from_integers_in_the_clear"]}
        for system, at in wrong.items():
            yield Finding(
                tone="bad",
                title=f"{view.label(system)}: searches under secret sharing differ from those by integers in the clear",
                text=f"{at['num_differ_from_integers_in_the_clear']} of {count(at['num_decided'])} searches.",
                system=system,
            )

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Rates and changed searches."""
        yield Prose(
            text=[
                "The parties search on shares, at the threshold of the float scores. Without a template protection, or "
                "where a probe has one key, they return the best reference. Where a probe is mapped under the key of "
                "each subject, they verify one claim per subject, and the outcome is the set of accepted subjects."
            ]
        )
        formats = list(_formats(view))
        fpirs = list(dict.fromkeys(fpir for _, found in formats for fpir in found["fnir_at_fpir"]))
        rows = []
        for row, found in formats:
            gap, at_fpir = found["gap_to_float"], {f"{at['fpir']:g}": at for at in found["decisions"]}
            cells = [share_figure(found["rank_1"], 2).with_note(gap_words(gap["rank_1"]))]
            for fpir in fpirs:
                rate = share_figure(found["fnir_at_fpir"].get(fpir), 2)
                cells += [rate.with_note(gap_words(gap["fnir_at_fpir"].get(fpir))), _changed(at_fpir.get(fpir))]
            rows.append(
                Row(
                    label=view.named(row["system"]),
                    key=view.key(row["system"]),
                    note=f"{row['scenario']}, {found['values']}, ring of {found['ring_bits']} bits",
                    cells=cells,
                )
            )
        yield Table(
            first="System",
            columns=[
                "Rank-1",
                *(name for fpir in fpirs for name in (f"FNIR at FPIR {fpir}", f"Differ at FPIR {fpir}")),
            ],
            rows=rows,
            caption="Rates are those of the integer scores of all searches, each format at its own threshold. The line "
            "below n is the paired gap to float scores. “Differ” counts outcomes of the parties; there should be none "
            "that differ from integers.",
        )


def _formats(view: RecordView) -> Iterator[tuple[Entry, Entry]]:
    for row in view.rows(_KIND):
        for found in row["formats"]:
            yield row, found


def _decisions(view: RecordView) -> Iterator[tuple[Entry, Entry, Entry]]:
    for row, found in _formats(view):
        for at in found["decisions"]:
            yield row, found, at


def _changed(at: Entry | None) -> Figure:
    if at is None:
        return MISSING
    return Figure(
        main=f"{at['num_differ_from_float']} of {count(at['num_decided'])} from float",
        small=f"{at['num_differ_from_integers_in_the_clear']} from integers",
    )
