"""From a record of templates to what its page shows: texts and table rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ppfr.core import KEY_KEPT as KEPT
from ppfr.core import KEY_STOLEN as STOLEN
from ppfr.report import _charts as charts
from ppfr.report._bars import Bar, LeakageChart, folded
from ppfr.report._drawings import Drawing, named, rocs, series_of
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._findings import MOST_SENTENCES, Finding, Part, arms_of
from ppfr.report._query_view import (
    Asked,
    Table,
    asked_attacks,
    asked_by_budgets,
    budget_table,
    query_findings,
    query_headline,
    secure_findings,
    secure_headline,
    secure_table,
    traffic_table,
    turned_table,
)
from ppfr.report._template_findings import findings, headline, protocol_of, search_of, worst_inversion
from ppfr.report._view import MadeView, Row, by_arm, control_rows, facts_of, flat_facts, made_view, verification_rows
from ppfr.report._wording import ROLE_WORDS, count, number, percent, points, size

KEY_WORDS = {"known": "keys known", "unknown": "keys unknown", "none": "no keys"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TemplateView:
    """One record, ready for the template; every field is printed."""

    record: Part
    anchor: str
    headline: str
    findings: Sequence[Finding]
    folded_findings: Sequence[Finding]
    facts: Sequence[tuple[str, str]]
    summary: Table
    rocs: Sequence[Drawing]
    fars: Sequence[str]
    verification: Sequence[Row]
    searches: Table
    leakage: Sequence[LeakageChart]
    inversions: Table
    links: Table
    renewals: Table
    selections: Table
    asked: Sequence[Asked]
    budgets: Table
    secure: Table
    turned: Table
    traffic: Table
    attacks: Sequence[tuple[str, Sequence[Row]]]
    controls: Sequence[Row]
    made: MadeView


def template_view(record: Part, *, anchor: str) -> TemplateView:
    """What the page shows of one record."""
    state, of_arms = findings(record)
    state, of_arms = [*state, *secure_findings(record)], [*query_findings(record), *of_arms]
    is_long = max(len(arms_of(record, "protected")), len(asked_attacks(record))) > MOST_SENTENCES
    verified = [p for holder in (*record["arms"], *record["judges"]) for p in holder["protocols"]]
    return TemplateView(
        record=record,
        anchor=anchor,
        headline=" ".join([*secure_headline(record), *query_headline(record)]) or headline(record),
        findings=state if is_long else [*state, *of_arms],
        folded_findings=of_arms if is_long else [],
        facts=[*facts_of(record), *_search_facts(record)],
        summary=_summary(record),
        rocs=rocs(record) if any(arm["protocols"] for arm in record["arms"]) else [],
        fars=list(verified[0]["tar_at_far"]) if verified else [],
        verification=verification_rows(record),
        searches=_searches(record),
        leakage=_leakage(record),
        inversions=_inversions(record),
        links=_links(record),
        renewals=_renewals(record),
        selections=_selections(record),
        asked=asked_by_budgets(record),
        budgets=budget_table(record),
        secure=secure_table(record),
        turned=turned_table(record),
        traffic=traffic_table(record),
        attacks=by_arm(_attack_rows(record)),
        controls=control_rows(record),
        made=made_view(record, anchor=anchor),
    )


def _search_facts(record: Part) -> list[tuple[str, str]]:
    found = next((s for arm in record["arms"] for s in arm["identification"]), None)
    if found is None:
        return []
    words = f"{count(found['num_references'])} identities, {count(found['num_mated'])} searches with a mate"
    return [("1:N", f"{words}, {count(found['num_unmated'])} without")]


def _row(record: Part, arm: Part, cells: Sequence[Figure], note: str = "") -> Row:
    key = charts.key(series_of(record, arm["name"]), is_line=False)
    return {"label": named(record, arm), "key": key, "note": note, "cells": list(cells)}


def _with_gap(figure: Figure, gap: Part | None) -> Figure:
    if gap is None:
        return figure
    words = f"{points(gap['value'])} ({points(gap['low'])} to {points(gap['high'])})"
    return dataclasses.replace(figure, sample=f"{figure.sample}; {words}")


def _summary(record: Part) -> Table:
    has_pairs, has_searches = (any(arm[kind] for arm in record["arms"]) for kind in ("protocols", "identification"))
    columns = ["Template"]
    if has_pairs:
        columns += ["Accuracy, key stolen", "Accuracy, key kept", "Equal error rate, key stolen"]
        columns += ["Recovered embeddings that pass"] if _judged(record) else []
        columns += ["D_sys, same image"] if _has_links(record) else []
    if has_searches:
        columns += ["Rank-1, the matcher holds all keys", "Rank-1, key kept"]
    rows = []
    for arm in record["arms"]:
        scheme = arm["scheme"]
        cells = [Figure(main=f"{scheme['out_dim']} values", small=size(scheme["bytes_per_template"]))]
        if has_pairs:
            cells += _pair_cells(record, arm)
        if has_searches:
            cells += [_rank_cell(arm), _rank_cell(arm, KEPT)]
        rows.append(_row(record, arm, cells, arm["role"]))
    return Table(columns=columns, rows=rows)


def _pair_cells(record: Part, arm: Part) -> list[Figure]:
    cells = []
    for scenario in (STOLEN, KEPT):
        protocol = protocol_of(arm, scenario)
        figure = MISSING if protocol is None else share_figure(protocol["accuracy"], 2)
        cells.append(_with_gap(figure, None if protocol is None else protocol["gap_to_baseline"]))
    stolen, worst = protocol_of(arm, STOLEN), worst_inversion(record, arm)
    cells.append(MISSING if stolen is None else share_figure(stolen["eer"], 2))
    if _judged(record):
        cells.append(MISSING if worst is None else share_figure(worst["outcome"]["at_fmr"][0]["success"]))
    if _has_links(record):
        cells.append(plain_figure(arm["unlinkability"][0]["d_sys"], 2) if arm["unlinkability"] else MISSING)
    return cells


def _rank_cell(arm: Part, scenario: str | None = None) -> Figure:
    found = search_of(arm) if scenario is None else search_of(arm, scenario)
    if found is None:
        return MISSING
    gap = found["gap_to_baseline"]
    return _with_gap(share_figure(found["rank"]["1"], 2), None if gap is None else gap["rank_1"])


def _searches(record: Part) -> Table:
    fpirs = list(dict.fromkeys(f for arm in record["arms"] for s in arm["identification"] for f in s["fnir_at_fpir"]))
    columns = ["Rank-1", *(f"FNIR at FPIR {fpir}" for fpir in fpirs), "Rank-5", "Rank-20"]
    rows = []
    for arm in record["arms"]:
        for found in arm["identification"]:
            gap = found["gap_to_baseline"]
            cells = [_with_gap(share_figure(found["rank"]["1"], 2), None if gap is None else gap["rank_1"])]
            for fpir in fpirs:
                paired = None if gap is None else gap["fnir_at_fpir"].get(fpir)
                cells.append(_with_gap(share_figure(found["fnir_at_fpir"].get(fpir), 2), paired))
            cells += [Figure(main=percent(found["cmc"][min(k, len(found["cmc"])) - 1], 2)) for k in (5, 20)]
            rows.append(_row(record, arm, cells, f"{found['scenario']}, {found['values']}"))
    return Table(columns=columns, rows=rows)


def _has_links(record: Part) -> bool:
    return any(arm["unlinkability"] for arm in record["arms"])


def _judged(record: Part) -> list[tuple[Part, Part]]:
    return [
        (arm, a)
        for arm in record["arms"]
        for a in record["attacks"]
        if a["arm"] == arm["name"] and "at_fmr" in (a["outcome"] or ())
    ]


def _leakage(record: Part) -> list[LeakageChart]:
    bars = []
    for arm, attack in _judged(record):
        first = attack["outcome"]["at_fmr"][0]
        kind = KEY_WORDS[attack["secret"]] if attack["role"] == "attack" else ROLE_WORDS[attack["role"]]
        success = first["success"]
        bars.append(
            Bar(
                arm=arm["name"],
                label=f"{attack['label']} on {arm['label']}",
                note=f"{kind} · false match rate {first['fmr']:g}",
                figure=share_figure(success),
                colour=charts.colour_of(series_of(record, arm["name"])),
                value=100 * success["value"],
                low=100 * success["low"],
                high=100 * success["high"],
                marks=[(100 * first["fmr"], "guess"), (100 * first["plain"]["value"], "ceiling")],
            )
        )
    heading = "Does the embedding recovered from a template pass for the person?"
    words = "The thief presents it to the recogniser without protection, which compares it with another image."
    return [folded(heading, words, bars)] if bars else []


def _inversions(record: Part) -> Table:
    fmrs = [f"{row['fmr']:g}" for row in next((a["outcome"]["at_fmr"] for _, a in _judged(record)), [])]
    columns = [f"Passes at FMR {fmr}" for fmr in fmrs] + [f"If solved, FMR {fmr}" for fmr in fmrs]
    columns += ["Passes as others", "Cosine, mean", "Solved", "Passes after a re-issue", "D_sys to the re-issue"]
    has_transfer = any(a["outcome"]["transfer"] is not None for _, a in _judged(record))
    columns += ["Passes at another recogniser"] if has_transfer else []
    rows = []
    for arm, attack in _judged(record):
        outcome = attack["outcome"]
        at_fmr, re_issue, transfer = outcome["at_fmr"], outcome["re_issue"], outcome["transfer"]
        cells = [share_figure(row["success"]) for row in at_fmr]
        cells += [share_figure(row["success_if_solved"]) for row in at_fmr]
        cells += [share_figure(at_fmr[0]["other_subject"], 2), plain_figure(outcome["cosine"], 2)]
        cells.append(MISSING if outcome["solved"] is None else Figure(main=percent(outcome["solved"])))
        cells.append(MISSING if re_issue is None else share_figure(re_issue["accepted"]))
        cells.append(MISSING if re_issue is None else plain_figure(re_issue["linkability"]["d_sys"], 2))
        if has_transfer:
            cells.append(MISSING if transfer is None else share_figure(transfer["at_fmr"][0]["success"]))
        rows.append(_row(record, arm, cells, f"{attack['label']}, {KEY_WORDS[attack['secret']]}"))
    return Table(columns=columns, rows=rows)


def _links(record: Part) -> Table:
    rows = []
    for arm in record["arms"]:
        for link in arm["unlinkability"]:
            cells = [
                plain_figure(link["d_sys"], 3),
                Figure(main=number(link["chance"], 3)),
                Figure(main=f"{link['num_bins']} over {link['range'][0]:g} to {link['range'][1]:g}"),
                Figure(main=count(link["num_non_mated"])),
            ]
            words = {"same": "one image under two keys", "another": "two images under two keys"}[link["capture"]]
            rows.append(_row(record, arm, cells, words))
    return Table(columns=["D_sys", "By chance", "Bins", "Non-mated comparisons"], rows=rows)


def _renewals(record: Part) -> Table:
    rows = []
    for arm in record["arms"]:
        renewal = arm["renewal"]
        if renewal is None:
            continue
        sample = f"{renewal['num_issues']} issues of {count(renewal['num_comparisons'])} comparisons"
        cells = [
            Figure(main=f"{percent(min(values), 2)} to {percent(max(values), 2)}", small=sample)
            for values in (renewal["eer"], renewal["tar_at_far"])
        ]
        rows.append(_row(record, arm, [*cells, share_figure(renewal["old_template_accepted"])]))
    far = next((arm["renewal"]["far"] for arm in record["arms"] if arm["renewal"] is not None), 0)
    columns = [
        "Equal error rate, lowest to highest",
        f"TAR at FAR {far:g}, lowest to highest",
        "Old templates accepted",
    ]
    return Table(columns=columns, rows=rows)


def _selections(record: Part) -> Table:
    rows = []
    for arm in record["arms"]:
        found = arm["selection"]
        if found is not None:
            cells = [Figure(main=number(found["mean_tried"], 1)), Figure(main=percent(found["share_below"]))]
            rows.append(_row(record, arm, [*cells, Figure(main=count(found["num_people"]))], found["in_words"]))
    return Table(columns=["Keys tried, mean", "Below the inversion threshold", "People"], rows=rows)


def _attack_rows(record: Part) -> list[Row]:
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    judges = {judge["name"]: judge["label"] for judge in record["judges"]}
    return [
        {
            "label": attack["label"],
            "arm": labels[attack["arm"]],
            "key": charts.key(series_of(record, attack["arm"]), is_line=False),
            "role": ROLE_WORDS[attack["role"]],
            "secret": KEY_WORDS[attack["secret"]],
            "sees": "",
            "threat": attack["threat_model"]["in_words"],
            "judge": judges[attack["judge"]],
            "likeness": [],
            "facts": flat_facts({**attack["config"], **attack["notes"]}),
            "sample": "" if attack["outcome"] is None else f"{count(attack['outcome']['num_victims'])} people",
        }
        for attack in record["attacks"]
    ]
