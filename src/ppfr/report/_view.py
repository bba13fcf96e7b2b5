"""From a record to what the page shows: texts and table rows, so that the template holds layout alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ppfr.core import duration
from ppfr.report import _charts as charts
from ppfr.report._bars import LeakageChart, leakage_charts
from ppfr.report._drawings import Drawing, loss_curves, named, rocs, series_of, trade_offs
from ppfr.report._figures import MISSING, Figure, plain_figure, share_figure
from ppfr.report._findings import (
    MOST_SENTENCES,
    Finding,
    Part,
    answers,
    arm_findings,
    arms_of,
    attacks_on,
    headline,
    protocol_names,
    sees_mixed,
    state_findings,
    worst_linkage,
    worst_recovery,
)
from ppfr.report._order import Agreement, agreements
from ppfr.report._reported import SHARE, accuracy_measure, reported_table, reported_words
from ppfr.report._score_table import score_table
from ppfr.report._scores import scored_arms
from ppfr.report._shares import share_drawings, share_table
from ppfr.report._wording import ROLE_WORDS, SECRET_WORDS, count, points, rate, size

Row = dict[str, Any]
_MOST_ADVERSARIES = 12
_STAGE_TONES = {"done": "good", "failed": "bad", "pending": "note", "skipped": "caution"}
_DATA_ROLES = {
    "training": "recognisers train on it",
    "public": "attackers train on it",
    "protocol": "recognition is tested on it",
    "victims": "attacked",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordView:
    """One record, ready for the template.

    Attributes:
        record: the record itself.
        anchor: makes ids unique where several records share a page.
        mixed: whether an adversary has the mixed training set.
        others: everything that the template prints.
    """

    record: Part
    anchor: str
    headline: str
    findings: Sequence[Finding]
    folded_findings: Sequence[Finding]
    facts: Sequence[tuple[str, str]]
    protocols: Sequence[str]
    summary: Sequence[Row]
    trade_offs: Sequence[Drawing]
    rocs: Sequence[Drawing]
    fars: Sequence[str]
    verification: Sequence[Row]
    leakage: Sequence[LeakageChart]
    guarantees: Sequence[tuple[str, Sequence[str]]]
    scores: Mapping[str, Any] | None
    shares: Mapping[str, Any] | None
    share_drawings: Sequence[Drawing]
    published: Mapping[str, Any] | None
    agreements: Sequence[Agreement]
    mixed: bool
    attacks: Sequence[tuple[str, Sequence[Row]]]
    controls: Sequence[Row]
    made: MadeView


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MadeView:
    """How a record was made, of either kind of experiment."""

    record: Part
    anchor: str
    curves: Sequence[Drawing]
    budgets: Sequence[tuple[str, list[tuple[str, str]]]]
    knowledge: Sequence[Row]
    data: Sequence[Row]
    stages: Sequence[Row]
    config: str


def made_view(
    record: Part,
    *,
    anchor: str,
    curves: Sequence[Drawing] = (),
    budgets: Sequence[tuple[str, list[tuple[str, str]]]] = (),
) -> MadeView:
    """The command, what was trained, networks, data, stages, configuration."""
    return MadeView(
        record=record,
        anchor=anchor,
        curves=curves,
        budgets=budgets,
        knowledge=_knowledge_rows(record),
        data=[{**d, "role": _DATA_ROLES[d["role"]]} for d in record["data"]],
        stages=[{**s, "tone": _STAGE_TONES[s["status"]], "wall": duration(s["wall_s"])} for s in record["stages"]],
        config=json.dumps(record["experiment"]["config"], indent=1, ensure_ascii=False),
    )


def record_view(record: Part, *, anchor: str) -> RecordView:
    """What the page shows of one record."""
    scored, shares = scored_arms(record), share_table(record)
    of_run, of_arms = [*state_findings(record), *answers(record)], arm_findings(record)
    is_long = len(arms_of(record, "protected")) > MOST_SENTENCES
    verified = [p for h in (*record["arms"], *record["judges"]) for p in h["protocols"]]
    return RecordView(
        record=record,
        anchor=anchor,
        headline=headline(record),
        findings=of_run if is_long else [*of_run, *of_arms],
        folded_findings=of_arms if is_long else [],
        facts=facts_of(record),
        protocols=protocol_names(record),
        summary=[_summary_row(record, arm) for arm in record["arms"] if arm["role"] != "control"],
        trade_offs=trade_offs(record),
        rocs=rocs(record),
        fars=list(verified[0]["tar_at_far"]) if verified else [],
        verification=verification_rows(record),
        leakage=leakage_charts(record),
        guarantees=[
            (arm["label"], arm["guarantee"]["in_words"].splitlines()) for arm in record["arms"] if arm.get("guarantee")
        ],
        scores=score_table(record, scored),
        shares=shares,
        share_drawings=share_drawings(record),
        published=reported_table(record, without="" if shares is None else SHARE),
        agreements=agreements(record, scored),
        mixed=any(map(sees_mixed, record["attacks"])),
        attacks=by_arm(_attack_rows(record)),
        controls=control_rows(record),
        made=made_view(record, anchor=anchor, curves=loss_curves(record), budgets=_budgets(record)),
    )


def facts_of(record: Part) -> list[tuple[str, str]]:
    """Facts on the run for the head of the page."""
    machine, provenance, experiment = record["machine"], record["provenance"], record["experiment"]
    version = provenance["ppfr"]
    if provenance["commit"]:
        version += f", commit {provenance['commit'][:10]}{' with changes' if provenance['is_modified'] else ''}"
    tests = {(p["name"], p["num_genuine"] + p["num_impostor"]) for arm in record["arms"] for p in arm["protocols"]}
    is_cpu = machine["device"] == "cpu"
    return [
        ("Faces", {"real": "of real people", "synthetic": "synthetic"}[experiment["people"]]),
        *[("Test", f"{name}: {count(num)} comparisons") for name, num in sorted(tests)],
        ("Preset", experiment["preset"] or "–"),
        ("Seed", str(experiment["seed"])),
        ("Machine", f"{machine['num_cores']} CPU cores" if is_cpu else machine["device_name"]),
        ("Computing time", duration(record["wall_s"])),
        ("ppfr", version),
    ]


def _summary_row(record: Part, arm: Part) -> Row:
    protocols = {p["name"]: p for p in arm["protocols"]}
    accuracies = []
    for name in protocol_names(record):
        protocol = protocols.get(name)
        gap = protocol["gap_to_baseline"] if protocol else None
        gap_words = f"{points(gap['value'])} points ({points(gap['low'])} to {points(gap['high'])})" if gap else ""
        accuracies.append((name, _accuracy_figure(arm, name, protocol), gap_words))
    return {
        "label": named(record, arm),
        "key": charts.key(series_of(record, arm["name"]), is_line=False),
        "kind": {"baseline": "baseline", "protected": "protection"}[arm["role"]],
        "accuracies": accuracies,
        **_leakage_cells(record, arm),
        **_cost_cells(arm),
    }


def _accuracy_figure(holder: Part, name: str, protocol: Part | None) -> Figure:
    figure = share_figure(protocol["accuracy"], 2) if protocol else MISSING
    return dataclasses.replace(figure, reported=reported_words(holder, accuracy_measure(name)))


def _leakage_cells(record: Part, arm: Part) -> Row:
    linkage, recovery = worst_linkage(record, arm), worst_recovery(record, arm)
    cells: Row = {"named": MISSING, "accepted": MISSING, "ssim": MISSING, "named_by": "", "accepted_by": ""}
    if linkage is not None:
        found = linkage["outcome"]["linkage"]
        cells["named"] = share_figure(found["top1"])
        cells["named_by"] = _adversary(linkage)
    if recovery is not None:
        found = recovery["outcome"]["recovery"]["recovered"]
        cells["accepted"], cells["ssim"] = share_figure(found["at_far"]["other_image"]), _likest(record, arm)
        cells["accepted_by"] = _adversary(recovery)
    return cells


def _adversary(attack: Part) -> str:
    words = f"{attack['label']}, {SECRET_WORDS[attack['secret']]}"
    return f"{words}, mixed training images" if sees_mixed(attack) else words


def _likest(record: Part, arm: Part) -> Figure:
    """The highest SSIM of any attack: the likest picture need not be the one that most often passes."""
    recoveries = [a["outcome"]["recovery"] for a in attacks_on(record, arm)]
    likenesses = [found["recovered"]["ssim"] for found in recoveries if found is not None]
    return plain_figure(max(likenesses, key=lambda estimate: estimate["value"]), 2)


def _cost_cells(arm: Part) -> Row:
    cost = arm["cost"]
    if cost is None:
        bytes_figure = Figure(main=size(arm["masker"]["bytes_per_face"]))
        return {"mask_rate": MISSING, "embed_rate": MISSING, "bytes": bytes_figure}
    embeds = cost["embed_images_per_s"]
    return {
        "mask_rate": Figure(main=rate(cost["mask_images_per_s"])),
        "embed_rate": MISSING if embeds is None else Figure(main=rate(embeds)),
        "bytes": Figure(
            main=size(cost["bytes_per_face"]), small=f"{cost['bytes_relative_to_image']:.2g} × the 8-bit crop"
        ),
    }


def verification_rows(record: Part) -> list[Row]:
    """All verification figures, of arms and of judges."""
    holders = [("", arm) for arm in record["arms"]] + [("judge, on plain images", j) for j in record["judges"]]
    rows = []
    for note, holder in holders:
        for p in holder["protocols"]:
            std = p["accuracy_std_over_folds"]
            rows.append(
                {
                    "label": holder["label"],
                    "note": note,
                    "protocol": p["name"],
                    "accuracy": _accuracy_figure(holder, p["name"], p),
                    "spread": "" if std is None else f"± {100 * std:.2f} over {p['num_folds']} folds",
                    "eer": share_figure(p["eer"], 2),
                    "tars": [share_figure(estimate) for estimate in p["tar_at_far"].values()],
                }
            )
    return rows


def _attack_rows(record: Part) -> list[Row]:
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    judges = {judge["name"]: judge["label"] for judge in record["judges"]}
    rows = []
    for attack in record["attacks"]:
        outcome = attack["outcome"]
        rows.append(
            {
                "label": attack["label"],
                "arm": labels[attack["arm"]],
                "key": charts.key(series_of(record, attack["arm"]), is_line=False),
                "role": ROLE_WORDS[attack["role"]],
                "secret": SECRET_WORDS[attack["secret"]],
                "sees": "mixed training images" if sees_mixed(attack) else "",
                "threat": attack["threat_model"]["in_words"],
                "judge": judges[attack["judge"]],
                "likeness": _likeness_rows(outcome["recovery"]) if outcome else [],
                "facts": flat_facts({**attack["config"], **(attack["fit"] or {}), **attack["notes"]}),
                "sample": ""
                if outcome is None
                else f"{count(outcome['num_images'])} images of {count(outcome['num_victims'])} people",
            }
        )
    return rows


def by_arm(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Under the arm's label, to be folded, where there are many; else all of them under ""."""
    if len(rows) <= _MOST_ADVERSARIES:
        return [("", list(rows))] if rows else []
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["arm"], []).append(row)
    return list(groups.items())


def _likeness_rows(recovery: Part | None) -> list[tuple[str, list[Figure]]]:
    if recovery is None:
        return []
    recovered, guess, original = recovery["recovered"], recovery["guess"], recovery["original"]
    masked = recovery.get("masked")  # records of the first versions have none
    rows = [
        (
            words,
            [
                plain_figure(recovered[field], digits),
                MISSING if masked is None else plain_figure(masked[field], digits),
                plain_figure(guess[field], digits),
                MISSING,
            ],
        )
        for field, words, digits in (
            ("ssim", "SSIM (1 is identical)", 3),
            ("psnr", "PSNR, dB", 2),
            ("lpips", "LPIPS (0 is identical)", 3),
            ("identity_cosine", "Identity cosine to the attacked image", 3),
        )
    ]
    for name, where in (("at_far", f"false accept rate {recovery['far']:g}"), ("at_folds", "the folds' threshold")):
        for field, what in (
            ("same_image", "Accepted as the attacked image"),
            ("other_image", "Accepted as another image of the person"),
            ("other_subject", "Accepted as somebody else"),
            ("accuracy", "Verification accuracy"),
        ):
            cells = [
                MISSING if part is None else share_figure(part[name][field])
                for part in (recovered, masked, guess, original)
            ]
            rows.append((f"{what}, {where}", cells))
    return rows


def control_rows(record: Part) -> list[Row]:
    """What each control was to show, and whether it did."""
    labels = {arm["name"]: arm["label"] for arm in record["arms"]}
    verdicts = {True: ("good", "passed"), False: ("bad", "failed"), None: ("note", "not judged yet")}
    expectations = {"win": "must win", "chance": "must sit at chance"}
    return [
        {
            "label": attack["label"],
            "arm": labels[attack["arm"]],
            "expects": expectations[attack["control"]["expects"]],
            "rule": attack["control"]["rule"],
            "tone": verdicts[attack["control"]["is_met"]][0],
            "verdict": verdicts[attack["control"]["is_met"]][1],
        }
        for attack in record["attacks"]
        if attack["control"] is not None
    ]


def _budgets(record: Part) -> list[tuple[str, list[tuple[str, str]]]]:
    rows = []
    for arm in record["arms"]:
        training = arm["training"] or {"fits": [], "config": {}}
        for index, fit in enumerate(training["fits"]):
            label = arm["label"] if len(training["fits"]) == 1 else f"{arm['label']}, part {index + 1}"
            rows.append((label, flat_facts(fit)))
    return rows


def _knowledge_rows(record: Part) -> list[Row]:
    rows = [{**item, "holder": arm["label"]} for arm in record["arms"] for item in arm.get("knowledge", ())]
    return rows + [{**item, "holder": judge["label"]} for judge in record["judges"] for item in judge["knowledge"]]


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (name, text) rows; long lists (curves) are left to the charts.

    >>> flat_facts({"steps": 3, "plan": {"batch_size": 8}})
    [('steps', '3'), ('plan: batch size', '8')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        words = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            rows.extend(flat_facts(value, f"{words}: "))
        elif isinstance(value, list):
            if len(value) <= 8:
                rows.append((words, json.dumps(value)))
        elif isinstance(value, float):
            rows.append((words, f"{value:.4g}"))
        else:
            rows.append((words, str(value)))
    return rows
