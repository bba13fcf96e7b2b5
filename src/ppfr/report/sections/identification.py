"""Identification, 1:N, with distractors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from ppfr.core import ALL_KEYS, GENUINE_TOKEN, STOLEN_TOKEN
from ppfr.report._blocks import Block, Finding, Prose, Row, Table
from ppfr.report._figures import MISSING, Figure, gap_words, share_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, percent, percent_interval, points
from ppfr.report.sections.verification import KEEPS_WITHIN

_KIND = "identification"
_SUMMARY = (ALL_KEYS, GENUINE_TOKEN)


@final
class Identification(Section):
    """Rank-1 and FNIR of each system, by scenario."""

    kinds = (_KIND, "identification_gap")
    title, anchor = "Identification, 1:N", "identification"
    terms = {  # noqa: RUF012
        "Matcher holds all keys": "The matcher maps the probe under the key of each subject before it compares it with "
        "the template of that subject.",
        "Rank-1": "Share of mated searches in which the most similar gallery entry is of the same subject.",
        "FNIR at FPIR": "False negative identification rate: share of mated searches that do not return the subject, "
        "at the threshold where non-mated searches return somebody at the stated rate (FPIR).",
    }
    rules = (
        "In 1:N recognition is kept where the paired interval of rank-1 rules out a loss above "
        f"{100 * KEEPS_WITHIN:g} point; a loss above 5 points fails."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """Ranges of rank-1, and the number of systems in which it falls."""
        plain = [row for system in view.of_role("baseline") if (row := _search(view, system)) is not None]
        found = [(system, row) for system in view.protected if (row := _search(view, system)) is not None]
        if not found or not plain:
            return
        gaps = [row["gap_to_baseline"]["rank_1"] for _, row in found if row["gap_to_baseline"] is not None]
        yield (
            f"Where the matcher holds all keys, rank-1 is {_span(found)}; without protection "
            f"{percent(plain[0]['rank']['1']['value'], 2)}. The protection lowers rank-1 beyond the paired interval in "
            f"{sum(gap['high'] < 0 for gap in gaps)} of {len(gaps)} systems and raises it in "
            f"{sum(gap['low'] > 0 for gap in gaps)}."
        )
        kept = [(system, row) for system, _ in found if (row := _search(view, system, GENUINE_TOKEN)) is not None]
        if kept:
            yield f"In the genuine-token scenario rank-1 is {_span(kept)}."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """Findings on the comparisons of the experiment, then on each protected system."""
        yield from (_compared(view, row) for row in view.rows("identification_gap"))
        for system in view.protected:
            row = _search(view, system)
            if row is not None and row["gap_to_baseline"] is not None:
                yield _finding(view, system, row)

    def facts(self, view: RecordView) -> Iterable[tuple[str, str]]:
        """Numbers of subjects and searches."""
        for row in view.rows(_KIND)[:1]:
            words = f"{count(row['num_references'])} subjects, {count(row['num_mated'])} mated searches"
            yield "1:N", f"{words}, {count(row['num_unmated'])} non-mated"

    def columns(self, view: RecordView) -> Sequence[str]:
        """Rank-1 in two scenarios."""
        return [f"Rank-1, {scenario}" for scenario in _SUMMARY]

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """Rank-1 with the gap to the baseline."""
        rows = [_search(view, system, scenario) for scenario in _SUMMARY]
        return [MISSING if row is None else _rank_1(row) for row in rows]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """All figures."""
        yield Prose(
            text=["A search for an enrolled subject must return the subject. Other searches must return nobody."]
        )
        rows = [row for system in view.systems for row in view.rows(_KIND, system=system["name"])]
        fpirs = list(dict.fromkeys(fpir for row in rows for fpir in row["fnir_at_fpir"]))
        yield Table(
            first="System",
            columns=["Rank-1", *(f"FNIR at FPIR {fpir}" for fpir in fpirs), "Rank-5", "Rank-20"],
            rows=[
                Row(
                    label=view.named(row["system"]),
                    key=view.key(row["system"]),
                    note=f"{row['scenario']}, {row['values']}",
                    cells=[
                        _rank_1(row),
                        *(_fnir(row, fpir) for fpir in fpirs),
                        *(Figure(main=percent(row["cmc"][min(k, len(row["cmc"])) - 1], 2)) for k in (5, 20)),
                    ],
                )
                for row in rows
            ],
            caption="The line below n is the paired gap to the baseline of the system. For rank-1 lower is worse, for "
            f"FNIR higher is worse. {view.embedded_in_words()}",
        )


def _search(view: RecordView, system: Entry, scenario: str = ALL_KEYS) -> Entry | None:
    return view.row(_KIND, system=system["name"], scenario=scenario, values="float32")


def _rank_1(row: Entry) -> Figure:
    gap = row["gap_to_baseline"]
    return share_figure(row["rank"]["1"], 2).with_note(gap_words(None if gap is None else gap["rank_1"]))


def _fnir(row: Entry, fpir: str) -> Figure:
    gap = row["gap_to_baseline"]
    words = gap_words(None if gap is None else gap["fnir_at_fpir"].get(fpir))
    return share_figure(row["fnir_at_fpir"].get(fpir), 2).with_note(words)


def _compared(view: RecordView, row: Entry) -> Finding:
    question = next(each["text"] for each in view["comparisons"] if each["name"] == row["comparison"])
    gap = row["gap"]
    rates = "; ".join(f"FNIR at FPIR {fpir}: {gap_words(found)}" for fpir, found in gap["fnir_at_fpir"].items())
    return Finding(
        tone="note",
        title=f"{question} (1:N)",
        text=f"{view.label(row['system'])} compared with {view.label(row['against'])}, paired, where the matcher holds "
        f"all keys: rank-1: {gap_words(gap['rank_1'])}; {rates}.",
    )


def _span(found: Sequence[tuple[Entry, Entry]]) -> str:
    rows = [(row["rank"]["1"]["value"], system["label"]) for system, row in found]
    (low, worst), (high, best) = min(rows), max(rows)
    return f"{percent(low, 2)} ({worst}) to {percent(high, 2)} ({best})"


def _finding(view: RecordView, system: Entry, row: Entry) -> Finding:
    gap, rank = row["gap_to_baseline"]["rank_1"], row["rank"]["1"]
    tone = "good" if gap["low"] >= -KEEPS_WITHIN else "caution" if gap["value"] > -0.05 else "bad"
    text = (
        f"Among {count(row['num_references'])} subjects, where the matcher holds all keys, rank-1 is "
        f"{percent(rank['value'], 2)} (interval {percent_interval(rank, 2)}), {points(gap['value'])} points against "
        f"the baseline ({points(gap['low'])} to {points(gap['high'])})."
    )
    for scenario, words in (
        (GENUINE_TOKEN, "each probe under the key of its own subject"),
        (STOLEN_TOKEN, "non-mated probes under stolen keys"),
    ):
        found = _search(view, system, scenario)
        if found is not None:
            rates = "; ".join(f"{percent(e['value'])} at FPIR {fpir}" for fpir, e in found["fnir_at_fpir"].items())
            text += f" With {words}: rank-1 {percent(found['rank']['1']['value'], 2)}, FNIR {rates}."
    return Finding(tone=tone, title=f"{system['label']} in 1:N", text=text, system=system["name"])
