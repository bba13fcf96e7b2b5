"""Oracle attacks: impersonation success by query budget, if a matcher returns scores or decisions."""

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
    """Impersonation success rate by number of queries."""

    kinds = (_KIND,)
    title, anchor = "Oracle attacks", "oracle-attacks"
    terms = {  # noqa: RUF012
        "Score oracle, decision oracle": "A matcher that returns scores, or only decisions, for probes that the client "
        "computes.",
        "Query, query budget": "The comparison of one probe with the template of one subject; the number of queries "
        "per subject.",
        "Accepted against another image": "The embedding that was recovered by queries is accepted against a template "
        "of another image of the subject, which the adversary has neither seen nor queried.",
    }
    rules = (
        "An oracle fails if an adversary impersonates at least "
        f"{percent(IS_BROKEN_AT)} of the target subjects with the largest query budget, by the lower end of the "
        "interval. It is marked with caution if the lower end is above the interval without queries."
    )

    def headline(self, view: RecordView) -> Iterable[str]:
        """Queries needed to impersonate half of the target subjects, with a score oracle and a decision oracle."""
        plain = {system["name"] for system in view.of_role("baseline")}
        for sees, words in (("scores", "returns scores"), ("decisions", "returns only decisions")):
            found = [
                (attack, row)
                for attack, row in view.outcomes(_KIND)
                if attack["system"] in plain and attack["role"] == "attack" and attack["threat_model"]["sees"] == sees
            ]
            if found:
                yield f"If the matcher {words}, {_enough([row for _, row in found])}."

    def findings(self, view: RecordView) -> Iterable[Finding]:
        """One per attack."""
        return [_finding(view, a, row) for a, row in view.outcomes(_KIND) if a["role"] == "attack"]

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """Query budgets, then a chart and tables per oracle and budgets."""
        outcomes = view.outcomes(_KIND)
        yield Prose(
            text=[
                "A client presents probes that it computes, and recovers the enrolled template from the scores or "
                "decisions. It has no key, and can claim any subject."
            ]
        )
        yield Table(
            title="Query budgets",
            first="Oracle",
            columns=[
                *(f"Queries for {100 * share:g} % of target subjects" for share in _SHARES),
                "Largest measured budget",
                "A photo is accepted",
            ],
            rows=[_budget_row(view, *outcome) for outcome in outcomes if outcome[0]["role"] != "negative control"],
            caption="The smallest measured number of queries per subject with which that share of the target subjects "
            "is impersonated, against another image at the first false match rate. A dash: not within the largest "
            "budget. An operator should set a query budget below the first column.",
        )
        groups: dict[tuple[str, tuple[int, ...]], list[Outcome]] = {}
        for attack, row in outcomes:
            budgets = tuple(budget["num_queries"] for budget in row["by_budget"])
            groups.setdefault((attack["threat_model"]["sees"], budgets), []).append((attack, row))
        for (sees, budgets), group in groups.items():
            yield from _group(view, f"The matcher returns {sees}: up to {count(budgets[-1])} queries", budgets, group)


def _min_budget(row: Entry, share: float) -> int | None:
    """The smallest measured budget that impersonates that share of target subjects at the first false match rate."""
    passing = [b["num_queries"] for b in row["by_budget"] if b["at_fmr"][0]["another"]["value"] >= share]
    return passing[0] if passing else None


def _enough(rows: Sequence[Entry]) -> str:
    """Queries needed by the first attack, and by the strongest one that starts without a photo if it needs fewer."""
    first, needed = rows[0], _min_budget(rows[0], IS_BROKEN_AT)
    last = first["by_budget"][-1]
    reached = "half" if needed is not None else percent(last["at_fmr"][0]["another"]["value"])
    text = (
        f"{count(last['num_queries'] if needed is None else needed)} queries per subject are enough to impersonate "
        f"{reached} of the target subjects ({first['answers']})"
    )
    unaided = [row for row in rows if row["starts_from"] == "faces"]
    others = [(num, row["answers"]) for row in unaided if (num := _min_budget(row, IS_BROKEN_AT)) is not None]
    if others and (needed is None or min(others)[0] < needed):
        text += f", and {count(min(others)[0])} with {min(others)[1]}"
    return text


def _finding(view: RecordView, attack: Entry, row: Entry) -> Finding:
    last, baseline = row["by_budget"][-1], row["without_queries"][0]["another"]
    share, fmr = last["at_fmr"][0]["another"], last["at_fmr"][0]["fmr"]
    run = view.row("attack_run", attack=attack["name"])
    targets = "the target subjects" if run is None else f"{count(run['num_targets'])} target subjects"
    needed = _min_budget(row, IS_BROKEN_AT)
    half = "" if needed is None else f" {count(needed)} queries are enough for half of them."
    return Finding(
        tone="bad" if share["low"] >= IS_BROKEN_AT else "caution" if share["low"] > baseline["high"] else "note",
        title=f"{view.label(attack['system'])}: {row['answers']}",
        text=(
            f"With {count(last['num_queries'])} queries per subject, the recovered embedding is accepted against "
            f"another image of the subject (FMR {fmr:g}) for {percent(share['value'])} of {targets} (interval "
            f"{percent_interval(share)}); without queries for {percent(baseline['value'])} "
            f"({percent_interval(baseline)}).{half} The mean cosine to the enrolled template is "
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
            first="Oracle",
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
        "Accepted against another image of the subject, at the first false match rate. Without queries: the most often "
        "accepted of the faces that the adversary has, or their mean.",
    )
    folded = [
        ("another", place, f"Accepted against another image at FMR {at['fmr']:g}") for place, at in enumerate(at_fmr)
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
        caption="Share of target subjects for whom the recovered embedding is accepted against another image at FMR "
        f"{fmr:g}.",
        svg=svg,
        legend=[(charts.key(line.series, is_line=True), line.label) for line in lines],
    )
