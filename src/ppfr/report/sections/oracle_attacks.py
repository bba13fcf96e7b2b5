"""Oracle attacks: what scores or decisions of a matcher give away, by query budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from ppfr.report import _charts as charts
from ppfr.report._blocks import Block, Charts, Details, Drawing, Finding, Prose, Row, Table
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import ROLE_WORDS, count, number, percent, percent_interval
from ppfr.report.sections.re_identification import IS_BROKEN_AT

_KIND = "oracle_attack"
_SHARES = (0.01, 0.1, 0.5)
"""Shares of the target subjects whose smallest query budgets are listed."""

Outcome = tuple[Entry, Entry]


@final
class OracleAttacks(Section):
    """Impersonation success by number of queries."""

    kinds = (_KIND,)
    title, anchor = "Oracle attacks", "oracle-attacks"
    terms = {  # noqa: RUF012
        "Score oracle, decision oracle": "A matcher that returns scores, or decisions alone, to a client that presents "
        "probes of its own making.",
        "Query, query budget": "One probe of the adversary's making, compared with one subject's template, and the "
        "answer; how many of them are answered per subject.",
        "Passes against another image": "What was recovered by queries is accepted against a template of another image "
        "of the subject, which the adversary has not seen and never queried.",
    }
    rules = (
        "An oracle fails where an adversary passes as at least "
        f"{percent(IS_BROKEN_AT)} of the target subjects with the largest query budget, by the lower end, and is to be "
        "minded where that end is above what is reached without a query."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """Queries that pass as half of the target subjects, by the first score-oracle and decision-oracle attack."""
        plain = {system["name"] for system in view.of_role("baseline")}
        for sees, words in (("scores", "returns scores"), ("decisions", "returns decisions alone")):
            found = [
                (attack, row)
                for attack, row in view.outcomes(_KIND)
                if attack["system"] in plain and attack["role"] == "attack" and attack["threat_model"]["sees"] == sees
            ]
            if found:
                yield f"Where the matcher {words}, {_enough([row for _, row in found])}."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per attack."""
        return [_finding(view, a, row) for a, row in view.outcomes(_KIND) if a["role"] == "attack"]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Query budgets, then a chart and tables per oracle and budgets."""
        outcomes = view.outcomes(_KIND)
        yield Prose(
            text=[
                "A client presents probes of its own making and recovers the enrolled template from the answers. It "
                "has no key, and claims any subject."
            ]
        )
        yield Table(
            title="Query budgets",
            first="Answers",
            columns=[
                *(f"{100 * share:g} % of target subjects from" for share in _SHARES),
                "Largest budget measured",
                "A photograph passes",
            ],
            rows=[_budget_row(view, *outcome) for outcome in outcomes if outcome[0]["role"] != "negative control"],
            caption="The smallest measured number of queries per subject from which what is recovered passes for so "
            "many of the target subjects, against another image at the first false match rate; a dash: not within the "
            "largest budget. An operator's budget belongs below the first column.",
        )
        groups: dict[tuple[str, tuple[int, ...]], list[Outcome]] = {}
        for attack, row in outcomes:
            budgets = tuple(budget["num_queries"] for budget in row["by_budget"])
            groups.setdefault((attack["threat_model"]["sees"], budgets), []).append((attack, row))
        for (sees, budgets), group in groups.items():
            yield from _group(view, f"The matcher returns {sees}: up to {count(budgets[-1])} queries", budgets, group)


def _min_budget(row: Entry, share: float) -> int | None:
    """The smallest budget measured that passes as so many target subjects at the first false match rate."""
    passing = [b["num_queries"] for b in row["by_budget"] if b["at_fmr"][0]["another"]["value"] >= share]
    return passing[0] if passing else None


def _enough(rows: Sequence[Entry]) -> str:
    """What the first of them needs; and what the strongest does, if that is less and it starts from no photograph."""
    first, needed = rows[0], _min_budget(rows[0], IS_BROKEN_AT)
    last = first["by_budget"][-1]
    reached = "half" if needed is not None else percent(last["at_fmr"][0]["another"]["value"])
    text = (
        f"{count(last['num_queries'] if needed is None else needed)} queries per subject are enough to pass as "
        f"{reached} of the target subjects ({first['answers']})"
    )
    unaided = [row for row in rows if row["starts_from"] == "faces"]
    others = [(num, row["answers"]) for row in unaided if (num := _min_budget(row, IS_BROKEN_AT)) is not None]
    if others and (needed is None or min(others)[0] < needed):
        text += f", and {count(min(others)[0])} with {min(others)[1]}"
    return text


def _finding(view: RecordView, attack: Entry, row: Entry) -> Finding:
    last, unasked = row["by_budget"][-1], row["without_queries"][0]["another"]
    share, fmr = last["at_fmr"][0]["another"], last["at_fmr"][0]["fmr"]
    run = view.row("attack_run", attack=attack["name"])
    targets = "the target subjects" if run is None else f"{count(run['num_targets'])} target subjects"
    needed = _min_budget(row, IS_BROKEN_AT)
    half = "" if needed is None else f" Half of them are reached with {count(needed)}."
    return Finding(
        tone="bad" if share["low"] >= IS_BROKEN_AT else "caution" if share["low"] > unasked["high"] else "note",
        title=f"{view.label(attack['system'])}: {row['answers']}",
        text=(
            f"With {count(last['num_queries'])} queries per subject, what is recovered passes against another image of "
            f"the subject (FMR {fmr:g}) for {percent(share['value'])} of {targets} (interval "
            f"{percent_interval(share)}); without a query {percent(unasked['value'])} "
            f"({percent_interval(unasked)}).{half} Mean cosine to the enrolled template "
            f"{number(last['cosine']['value'], 2)}."
        ),
        system=attack["system"],
    )


def _budget_row(view: RecordView, attack: Entry, row: Entry) -> Row:
    needed = [_min_budget(row, share) for share in _SHARES]
    return Row(
        label=row["answers"],
        key=view.key(attack["system"]),
        note=_note(view, attack),
        cells=[
            *(MISSING if num is None else Figure(main=count(num)) for num in needed),
            Figure(main=count(row["by_budget"][-1]["num_queries"])),
            share_figure(row["photograph"][0]["accepted"]),
        ],
    )


def _note(view: RecordView, attack: Entry) -> str:
    label = view.label(attack["system"])
    return label if attack["role"] == "attack" else f"{label}; {ROLE_WORDS[attack['role']]}"


def _group(view: RecordView, heading: str, budgets: Sequence[int], group: Sequence[Outcome]) -> Iterable[Block]:
    at_fmr = group[0][1]["by_budget"][0]["at_fmr"]

    def table(kind: str, place: int, caption: str) -> Table:
        return Table(
            first="Answers",
            columns=["no query", *(f"{count(budget)} queries" for budget in budgets)],
            rows=[
                Row(
                    label=row["answers"],
                    key=charts.key(series, is_line=True),
                    note=_note(view, attack),
                    cells=_cells(row, kind, place),
                )
                for series, (attack, row) in enumerate(group)
            ],
            caption=caption,
        )

    yield Charts(drawings=[_drawing(view, heading, group, at_fmr[0]["fmr"])])
    yield table(
        "another",
        0,
        "Passes against another image of the subject, at the first false match rate. No query: the most often accepted "
        "of the adversary's own faces and their mean.",
    )
    folded = [
        ("another", place, f"Passes against another image at FMR {at['fmr']:g}") for place, at in enumerate(at_fmr)
    ]
    folded = folded[1:]
    folded += [
        ("enrolled", place, f"Accepted as the enrolled template at FMR {at['fmr']:g}")
        for place, at in enumerate(at_fmr)
    ]
    for kind, place, words in [*folded, ("cosine", 0, "Cosine to the enrolled template")]:
        yield Details(summary=words, blocks=[table(kind, place, words)])


def _cells(row: Entry, kind: str, place: int) -> list[Figure]:
    if kind == "cosine":
        return [MISSING, *(plain_figure(budget["cosine"], 2) for budget in row["by_budget"])]
    shares = [row["without_queries"][place], *(budget["at_fmr"][place] for budget in row["by_budget"])]
    return [share_figure(share[kind]) for share in shares]


def _drawing(view: RecordView, heading: str, group: Sequence[Outcome], fmr: float) -> Drawing:
    lines = [
        charts.Line(
            x=[budget["num_queries"] for budget in row["by_budget"]],
            y=[budget["at_fmr"][0]["another"]["value"] for budget in row["by_budget"]],
            series=series,
            label=f"{view.label(attack['system'])}: {row['answers']}",
        )
        for series, (attack, row) in enumerate(group)
    ]
    svg = charts.queries_chart(
        lines,
        title=heading,
        description="; ".join(f"{line.label}: {percent(line.y[-1])} at {line.x[-1]}" for line in lines),
    )
    return Drawing(
        title=heading,
        caption=f"Share of target subjects against whose other image the recovered template passes at FMR {fmr:g}.",
        svg=svg,
        legend=[(charts.key(line.series, is_line=True), line.label) for line in lines],
    )
