"""The record from an experiment and what its stages have left so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ppfr.core import SCHEMA_VERSION, Record, status_of, without_paths
from ppfr.evaluation._checks import people_to_keep_apart
from ppfr.evaluation._experiment import Arm, AttackPlan, Experiment, Knowledge
from ppfr.evaluation._identity import as_json
from ppfr.evaluation._judging import control_rule_in_words
from ppfr.evaluation._picture_files import write_index
from ppfr.evaluation._provenance import machine
from ppfr.evaluation._stages import Stage
from ppfr.evaluation._workspace import Json, Workspace, config_sha256

if TYPE_CHECKING:
    from ppfr.evaluation._templates._experiment import TemplateExperiment

PartOf = Callable[[str], Json | None]
"""Stage name -> what it left, if it is done."""


def assemble(
    experiment: Experiment,
    stages: Sequence[Stage],
    workspace: Workspace,
    *,
    config: Json,
    data: list[Json],
    origin: Json,
    device: torch.device,
) -> Record:
    """The record of what is there so far; `origin` is what `provenance` gave."""
    parts = {stage.name: workspace.part(stage.name) for stage in stages}

    def left_by(name: str) -> Json | None:
        part = parts.get(name)
        return part["result"] if part is not None and part["status"] == "done" else None

    rows = stage_rows(stages, parts)
    record: Record = {
        **record_head(experiment, rows, config=config, origin=origin, device=device),
        "data": data,
        "disjointness": [{"sets": list(names), "num_shared_subjects": 0} for names in people_to_keep_apart(experiment)],
        "judges": [
            {
                "name": judge.name,
                "label": judge.label,
                "knowledge": [knowledge_of(known) for known in judge.knowledge],
                "protocols": (left_by(f"judge/{judge.name}") or {"protocols": []})["protocols"],
            }
            for judge in experiment.judges
        ],
        "arms": [_arm(arm, left_by) for arm in experiment.arms],
        "questions": [
            {
                **dataclasses.asdict(question),
                "gaps": (left_by(f"question/{question.name}") or {"gaps": {}})["gaps"],
            }
            for question in experiment.questions
        ],
        "attacks": [_attack(experiment, plan, config, left_by) for plan in experiment.attacks],
        "stages": rows,
    }
    plain: Record = without_paths(as_json(record))
    return plain


def record_head(
    experiment: Experiment | TemplateExperiment,
    rows: Sequence[Json],
    *,
    config: Json,
    origin: Json,
    device: torch.device,
) -> Json:
    """What records of every kind begin with; `rows` are the stages'."""
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": {
            "name": experiment.name,
            "title": experiment.title,
            "summary": experiment.summary,
            "preset": experiment.preset,
            "command": experiment.command,
            "seed": experiment.seed,
            "people": experiment.people,
            "config_sha256": config_sha256(config),
            "config": config,
        },
        "status": status_of(rows),
        "provenance": origin,
        "machine": machine(device),
        "wall_s": round(sum(row["wall_s"] for row in rows), 3),
    }


def stage_rows(stages: Sequence[Stage], parts: dict[str, Json | None]) -> list[Json]:
    """State of each stage; one whose foundation failed counts as skipped."""
    rows: list[Json] = []
    states: dict[str, str] = {}
    for stage in stages:
        part = parts[stage.name]
        status = "pending" if part is None else str(part["status"])
        if status == "pending" and any(states.get(name) in ("failed", "skipped") for name in stage.after):
            status = "skipped"
        states[stage.name] = status
        rows.append(
            {
                "name": stage.name,
                "title": stage.title,
                "status": status,
                "wall_s": 0.0 if part is None else part["wall_s"],
                "error": None if part is None else part["error"],
            }
        )
    return rows


def write_picture_index(experiment: Experiment, workspace: Workspace) -> None:
    """List the strips that are there: the victims, then for each arm what the server sees and what was recovered."""
    if experiment.victims is None or not (workspace.pictures / "original.png").is_file():
        return
    rows = [{"file": "original.png", "label": "Original", "note": "", "kind": "original"}]
    for arm in experiment.arms:
        rows.append(
            {"file": f"seen--{arm.name}.png", "label": "What the server sees", "note": arm.label, "kind": "seen"}
        )
        rows.append(
            {
                "file": f"mixed--{arm.name}.png",
                "label": "What training sees, mixed",
                "note": arm.label,
                "kind": "seen",
            }
        )
        for plan in experiment.attacks:
            if plan.arm == arm.name:
                note = arm.label
                if arm.masker.spec.is_keyed:
                    note += ", secret known" if plan.granted.knows_secret else ", secret unknown"
                name = f"recovered--{plan.name}.png"
                rows.append({"file": name, "label": plan.label, "note": note, "kind": "recovered"})
    found = [row for row in rows if (workspace.pictures / row["file"]).is_file()]
    write_index(workspace.pictures, num_faces=experiment.victims.num_pictured, rows=found)


def _arm(arm: Arm, left_by: PartOf) -> Json:
    trained, evaluated, compared = (left_by(f"{kind}/{arm.name}") for kind in ("train", "evaluate", "compare"))
    gaps = compared["gaps"] if compared is not None else {}
    protocols = evaluated["protocols"] if evaluated is not None else []
    spec = arm.masker.spec
    training = arm.training
    return {
        "name": arm.name,
        "label": arm.label,
        "role": arm.role,
        "baseline": arm.baseline,
        "masker": {
            "name": arm.masker.name,
            "config": dict(arm.masker.public_config()),
            **dataclasses.asdict(spec),
            "value_range": [value if math.isfinite(value) else None for value in spec.value_range],
        },
        "knowledge": [] if training is None else [knowledge_of(known) for known in training.knowledge],
        "training": None
        if training is None or trained is None
        else {"config": dict(training.public_config()), "fits": trained["fits"]},
        "protocols": [{**protocol, "gap_to_baseline": gaps.get(protocol["name"])} for protocol in protocols],
        "guarantee": None if trained is None else trained["guarantee"],
        "cost": left_by(f"cost/{arm.name}"),
        "reported": [dataclasses.asdict(figure) for figure in arm.reported],
    }


def _attack(experiment: Experiment, plan: AttackPlan, config: Json, left_by: PartOf) -> Json:
    fitted, judged = left_by(f"fit/{plan.name}"), left_by(f"attack/{plan.name}")
    of_plan = next(entry for entry in config["attacks"] if entry["name"] == plan.name)
    control = None if plan.role == "attack" else control_rule_in_words(plan.role, plan.rule)
    if control is not None and judged is not None:
        control["is_met"] = judged["is_met"]
    is_keyed = experiment.arm(plan.arm).masker.spec.is_keyed
    return {
        "name": plan.name,
        "label": plan.label,
        "method": of_plan["method"],
        "arm": plan.arm,
        "role": plan.role,
        "secret": ("known" if plan.granted.knows_secret else "unknown") if is_keyed else "none",
        "threat_model": {**dataclasses.asdict(plan.granted), "in_words": plan.granted.in_words()},
        "config": of_plan["config"],
        "judge": plan.judge,
        "control": control,
        "fit": None if fitted is None else fitted["fit"],
        "notes": {} if judged is None else judged["notes"],
        "outcome": None if judged is None else judged["outcome"],
    }


def knowledge_of(known: Knowledge) -> dict[str, Any]:
    """One network of `Judge.knowledge` or `ArmTraining.knowledge`."""
    return {**dataclasses.asdict(known), "may_have_seen": list(known.may_have_seen)}
