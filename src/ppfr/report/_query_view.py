"""From a record to what its page shows of matchers: what their answers give away, and decisions under sharing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ppfr.report import _charts as charts
from ppfr.report._drawings import Drawing, series_of
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._findings import IS_BROKEN_AT, Finding, Part, arms_of
from ppfr.report._wording import ROLE_WORDS, count, number, percent, percent_interval, points

Row = dict[str, Any]
_SHARES = (0.01, 0.1, 0.5)
"""The table of budgets tells from how many queries on so many victims are passed for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns, as `keyed_table` of the page's parts prints them."""

    columns: Sequence[str]
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The attacks that were granted the same budgets: a chart, the table beneath it, and more tables to be folded."""

    heading: str
    drawing: Drawing
    table: Table
    folded: Sequence[tuple[str, Table]]


def asked_attacks(record: Part) -> list[Part]:
    """The judged attacks that ask a matcher."""
    return [a for a in record["attacks"] if a["outcome"] is not None and "by_budget" in a["outcome"]]


def query_headline(record: Part) -> Iterator[str]:
    """From how many queries on half of the people can be passed for, by the first attack on scores and on decisions."""
    plain = {arm["name"] for arm in arms_of(record, "baseline")}
    for sees, words in (("scores", "tells scores"), ("decisions", "tells decisions alone")):
        found = [
            a
            for a in asked_attacks(record)
            if a["arm"] in plain and a["role"] == "attack" and a["threat_model"]["sees"] == sees
        ]
        if found:
            yield f"Where the matcher {words}, {_enough(found)}."


def _enough(attacks: Sequence[Part]) -> str:
    """What the first of them needs; and what the strongest does, if that is less and it begins with no photograph."""
    first, least = attacks[0], _least_budget(attacks[0], IS_BROKEN_AT)
    last = first["outcome"]["by_budget"][-1]
    text = (
        f"{count(last['num_queries'])} queries a person are enough to pass as "
        f"{percent(last['at_fmr'][0]['another']['value'])} of the people ({first['outcome']['answers']})"
        if least is None
        else f"{count(least)} queries a person are enough to pass as half of the people ({first['outcome']['answers']})"
    )
    unaided = [a for a in attacks if a["outcome"]["starts_from"] == "faces"]
    needed = [(num, a["outcome"]["answers"]) for a in unaided if (num := _least_budget(a, IS_BROKEN_AT)) is not None]
    if needed and (least is None or min(needed)[0] < least):
        text += f", and {count(min(needed)[0])} with {min(needed)[1]}"
    return text


def secure_headline(record: Part) -> Iterator[str]:
    """How many secure decisions differ from those of float scores."""
    formats = [found for arm in record["arms"] for found in arm.get("secure", {}).get("formats", ())]
    if not formats:
        return
    most: dict[str, int] = {}
    for found in formats:
        num = sum(len(row["differ_from_float"]) for row in found["decisions"])
        most[found["values"]] = max(num, most.get(found["values"], 0))
    clear = sum(row["num_differ_from_integers_in_the_clear"] for found in formats for row in found["decisions"])
    num_decided = next(arm["secure"]["num_pairs"] for arm in record["arms"] if "secure" in arm)
    num_decided *= len(formats[0]["decisions"])
    turned = " and ".join(f"{num or 'none'} with {values}" for values, num in most.items())
    yield (
        f"Of {count(num_decided)} decisions under sharing, at most {turned} differ from those of float scores, and "
        f"{clear or 'none'} from those of the same integers in the clear."
    )


def query_findings(record: Part) -> Iterator[Finding]:
    """One on each attack."""
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    for attack in asked_attacks(record):
        if attack["role"] != "attack":
            continue
        outcome = attack["outcome"]
        last, unasked = outcome["by_budget"][-1], outcome["without_queries"][0]["another"]
        share, fmr = last["at_fmr"][0]["another"], last["at_fmr"][0]["fmr"]
        tone = "bad" if share["low"] >= IS_BROKEN_AT else "caution" if share["low"] > unasked["high"] else "note"
        least = _least_budget(attack, IS_BROKEN_AT)
        half = "" if least is None else f" Half of them are reached with {count(least)}."
        yield Finding(
            tone=tone,
            title=f"{labels[attack['arm']]}: {outcome['answers']}",
            text=(
                f"With {count(last['num_queries'])} queries a person, what is recovered passes against another image "
                f"of the person (FMR {fmr:g}) for {percent(share['value'])} of {count(outcome['num_victims'])} people "
                f"(interval {percent_interval(share)}); without a query {percent(unasked['value'])} "
                f"({percent_interval(unasked)}).{half} Mean cosine to the enrolled template "
                f"{number(last['cosine']['value'], 2)}."
            ),
        )


def secure_findings(record: Part) -> Iterator[Finding]:
    """One on each arm that was decided under sharing."""
    for arm in record["arms"]:
        if "secure" not in arm:
            continue
        formats = arm["secure"]["formats"]
        agrees = all(row["num_differ_from_integers_in_the_clear"] == 0 for f in formats for row in f["decisions"])
        parts = [
            f"{f['values']}: accuracy {points(f['accuracy_gap_to_float']['value'])} points against float scores "
            f"({points(f['accuracy_gap_to_float']['low'])} to {points(f['accuracy_gap_to_float']['high'])}), "
            "decisions turned: "
            + ", ".join(f"{len(row['differ_from_float'])} at FAR {row['far']:g}" for row in f["decisions"])
            for f in formats
        ]
        yield Finding(
            tone="good" if agrees else "bad",
            title=f"{arm['label']}: decisions under sharing "
            f"{'are those of the integers in the clear' if agrees else 'differ from the integers in the clear'}",
            text=f"{count(arm['secure']['num_pairs'])} pairs. {'; '.join(parts)}.",
        )


def _least_budget(attack: Part, share: float) -> int | None:
    """The smallest budget measured with which so many victims are passed for at the first false match rate."""
    passing = [b for b in attack["outcome"]["by_budget"] if b["at_fmr"][0]["another"]["value"] >= share]
    return passing[0]["num_queries"] if passing else None


def asked_by_budgets(record: Part) -> list[Asked]:
    """Charts and tables, the attacks of the same kind of answer and the same budgets together."""
    groups: dict[tuple[str, tuple[int, ...]], list[Part]] = {}
    for attack in asked_attacks(record):
        budgets = tuple(b["num_queries"] for b in attack["outcome"]["by_budget"])
        groups.setdefault((attack["threat_model"]["sees"], budgets), []).append(attack)
    return [_asked(record, sees, budgets, attacks) for (sees, budgets), attacks in groups.items()]


def _asked(record: Part, sees: str, budgets: Sequence[int], attacks: Sequence[Part]) -> Asked:
    first = attacks[0]["outcome"]["by_budget"][0]["at_fmr"]
    heading = f"The matcher tells {'scores' if sees == 'scores' else 'decisions'}: up to {count(budgets[-1])} queries"

    def table(kind: str, place: int) -> Table:
        rows = []
        for attack in attacks:
            outcome = attack["outcome"]
            unasked = MISSING if kind == "cosine" else share_figure(outcome["without_queries"][place][kind])
            cells = [
                plain_figure(b["cosine"], 2) if kind == "cosine" else share_figure(b["at_fmr"][place][kind])
                for b in outcome["by_budget"]
            ]
            rows.append(_row(record, attack, attacks, [unasked, *cells]))
        return Table(columns=["no query", *(f"{count(b)} queries" for b in budgets)], rows=rows)

    folded = [
        (f"Passes against another image at FMR {row['fmr']:g}", table("another", place))
        for place, row in enumerate(first)
        if place
    ]
    folded += [
        (f"Accepted as the enrolled template at FMR {row['fmr']:g}", table("enrolled", place))
        for place, row in enumerate(first)
    ]
    folded.append(("Cosine to the enrolled template", table("cosine", 0)))
    return Asked(
        heading=heading,
        drawing=_drawing(record, heading, attacks, first[0]["fmr"]),
        table=table("another", 0),
        folded=folded,
    )


def _row(record: Part, attack: Part, among: Sequence[Part], cells: Sequence[Figure]) -> Row:
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    note = (
        labels[attack["arm"]]
        if attack["role"] == "attack"
        else f"{labels[attack['arm']]}; {ROLE_WORDS[attack['role']]}"
    )
    key = charts.key(among.index(attack), is_line=True)
    return {"label": attack["outcome"]["answers"], "key": key, "note": note, "cells": list(cells)}


def _drawing(record: Part, heading: str, attacks: Sequence[Part], fmr: float) -> Drawing:
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    lines = [
        charts.Line(
            x=[b["num_queries"] for b in attack["outcome"]["by_budget"]],
            y=[b["at_fmr"][0]["another"]["value"] for b in attack["outcome"]["by_budget"]],
            series=series,
            label=f"{labels[attack['arm']]}: {attack['outcome']['answers']}",
        )
        for series, attack in enumerate(attacks)
    ]
    svg = charts.queries_chart(
        lines,
        title=heading,
        description="; ".join(f"{line.label}: {percent(line.y[-1])} at {line.x[-1]}" for line in lines),
    )
    return Drawing(
        title=heading,
        caption=f"Share of people against whose other image the recovered template passes at FMR {fmr:g}.",
        svg=svg,
        legend=[(charts.key(line.series, is_line=True), line.label) for line in lines],
    )


def budget_table(record: Part) -> Table:
    """From how many queries on so many people can be passed for: what an operator may allow."""
    rows = []
    found = asked_attacks(record)
    for attack in found:
        if attack["role"] == "negative control":
            continue
        cells = []
        for share in _SHARES:
            least = _least_budget(attack, share)
            cells.append(MISSING if least is None else Figure(main=count(least)))
        largest = attack["outcome"]["by_budget"][-1]["num_queries"]
        photograph = share_figure(attack["outcome"]["photograph"][0]["accepted"])
        row = _row(record, attack, found, [*cells, Figure(main=count(largest)), photograph])
        rows.append({**row, "key": charts.key(series_of(record, attack["arm"]), is_line=False)})
    columns = [f"{100 * share:g} % of people from" for share in _SHARES]
    return Table(columns=[*columns, "Asked at most", "A photograph passes"], rows=rows)


def secure_table(record: Part) -> Table:
    """Accuracy and turned decisions of each format."""
    rows, columns = [], ["Accuracy", "Gap to float, points", "Equal error rate", "Error of a score: root mean square"]
    columns += ["largest", "bound"]
    for arm in record["arms"]:
        for found in arm.get("secure", {}).get("formats", ()):
            gap = found["accuracy_gap_to_float"]
            cells = [
                share_figure(found["accuracy"], 2),
                Figure(main=points(gap["value"]), small=f"{points(gap['low'])} to {points(gap['high'])}"),
                share_figure(found["eer"], 2),
                *(Figure(main=f"{found[name]:.2g}") for name in ("rms_error", "largest_error", "error_bound")),
            ]
            for row in found["decisions"]:
                column = f"Differ at FAR {row['far']:g}"
                columns += [column] if column not in columns else []
                clear = row["num_differ_from_integers_in_the_clear"]
                num = len(row["differ_from_float"])
                cells.append(Figure(main=f"{num} from float", small=f"{clear} from integers"))
            rows.append(_secure_row(record, arm, cells, f"{found['values']}, ring of {found['ring_bits']} bits"))
    return Table(columns=columns, rows=rows)


def turned_table(record: Part) -> Table:
    """Every decision that quantisation turned."""
    rows = []
    for arm in record["arms"]:
        for found in arm.get("secure", {}).get("formats", ()):
            for decided in found["decisions"]:
                for turned in decided["differ_from_float"]:
                    cells = [
                        Figure(main=str(turned["pair"])),
                        Figure(main="genuine" if turned["is_genuine"] else "impostor"),
                        Figure(main="accepted" if turned["accepted"] else "refused"),
                        Figure(main=number(turned["float_score_less_threshold"], 5)),
                        Figure(main=number(turned["score_less_threshold"], 5)),
                    ]
                    rows.append(_secure_row(record, arm, cells, f"{found['values']}, FAR {decided['far']:g}"))
    columns = ["Pair", "Truth", "Under sharing", "Float score less threshold", "Integer score less threshold"]
    return Table(columns=columns, rows=rows)


def traffic_table(record: Part) -> Table:
    """What a query costs the parties."""
    rows, columns = [], []
    for arm in record["arms"]:
        for found in arm.get("secure", {}).get("formats", ()):
            cells = []
            for query in found["queries"]:
                words = (
                    f"{query['kind']}, {count(query['num_references'])} reference{'s' * (query['num_references'] > 1)}"
                )
                columns += [words] if words not in columns else []
                cells.append(
                    Figure(
                        main=f"{count(max(query['bytes_sent']))} bytes",
                        small=f"the least busy {count(min(query['bytes_sent']))}",
                        sample=f"{query['num_rounds']} rounds",
                    )
                )
            rows.append(_secure_row(record, arm, cells, found["values"]))
    return Table(columns=columns, rows=rows)


def _secure_row(record: Part, arm: Part, cells: Sequence[Figure], note: str) -> Row:
    key = charts.key(series_of(record, arm["name"]), is_line=False)
    return {"label": arm["label"], "key": key, "note": note, "cells": list(cells)}
