"""The record of an experiment on templates from what its stages have left so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ppfr.core import Record, without_paths
from ppfr.evaluation._assembly import PartOf, knowledge_of, record_head, stage_rows
from ppfr.evaluation._experiment import Judge
from ppfr.evaluation._identity import as_json
from ppfr.evaluation._stages import Stage
from ppfr.evaluation._templates._experiment import QueryAttackPlan, TemplateArm, TemplateAttackPlan, TemplateExperiment
from ppfr.evaluation._templates._inversion import inversion_rule_in_words
from ppfr.evaluation._templates._queries import query_rule_in_words
from ppfr.evaluation._workspace import Json, Workspace

_FLOAT_BYTES = 4


def assemble_templates(
    experiment: TemplateExperiment,
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
    transfer = experiment.transfer
    record: Record = {
        "kind": "templates",
        **record_head(experiment, rows, config=config, origin=origin, device=device),
        "data": data,
        "disjointness": [
            {"sets": [images.name, experiment.pairs.name], "num_shared_subjects": 0}
            for images in (None if transfer is None else transfer.public_images, experiment.public_images)
            if images is not None and experiment.pairs is not None
        ],
        "judges": [
            _judge(experiment.recogniser, left_by),
            *([] if transfer is None else [_judge(transfer.judge, left_by)]),
        ],
        "arms": [_arm(arm, left_by) for arm in experiment.arms],
        "attacks": [_attack(experiment, plan, config, left_by) for plan in experiment.all_attacks()],
        "stages": rows,
    }
    plain: Record = without_paths(as_json(record))
    return plain


def _judge(judge: Judge, left_by: PartOf) -> Json:
    measured = left_by(f"judge/{judge.name}") or {"protocols": [], "thresholds": []}
    return {
        "name": judge.name,
        "label": judge.label,
        "knowledge": [knowledge_of(known) for known in judge.knowledge],
        **measured,
    }


def _arm(arm: TemplateArm, left_by: PartOf) -> Json:
    verified, compared, linked, renewed, searched, selected, decided = (
        left_by(f"{kind}/{arm.name}") or {}
        for kind in ("verify", "compare", "unlink", "renew", "identify", "select", "decide")
    )
    gaps, scheme = compared.get("gaps", {}), arm.scheme
    return {
        "name": arm.name,
        "label": arm.label,
        "role": arm.role,
        "baseline": arm.baseline,
        "is_keyed": arm.is_keyed,
        "scheme": {
            "name": scheme.scheme_id,
            "version": scheme.version,
            "config": dict(scheme.public_config()),
            "in_dim": scheme.in_dim,
            "out_dim": scheme.out_dim,
            "bytes_per_template": _FLOAT_BYTES * scheme.out_dim,
        },
        "selection": selected.get("selection"),
        "protocols": [
            {**protocol, "gap_to_baseline": gaps.get(protocol["name"])} for protocol in verified.get("protocols", [])
        ],
        "unlinkability": linked.get("unlinkability", []),
        "renewal": renewed.get("renewal"),
        "identification": searched.get("identification", []),
        **decided,
    }


def _attack(
    experiment: TemplateExperiment, plan: TemplateAttackPlan | QueryAttackPlan, config: Json, left_by: PartOf
) -> Json:
    control = None
    if isinstance(plan, QueryAttackPlan):
        stage, listed = "ask", "query_attacks"
        if plan.role != "attack":
            control = query_rule_in_words(plan.role, plan.rule, experiment.fmrs[0])
    else:
        stage, listed = "invert", "attacks"
        if plan.role != "attack":
            control = inversion_rule_in_words(plan.role, plan.rule, experiment.fmrs[0])
    judged = left_by(f"{stage}/{plan.name}")
    of_plan = next(entry for entry in config[listed] if entry["name"] == plan.name)
    if control is not None and judged is not None:
        control["is_met"] = judged["is_met"]
    is_keyed = experiment.arm(plan.arm).is_keyed
    return {
        "name": plan.name,
        "label": plan.label,
        "method": of_plan["method"],
        "arm": plan.arm,
        "role": plan.role,
        "secret": ("known" if plan.granted.knows_secret else "unknown") if is_keyed else "none",
        "threat_model": {**dataclasses.asdict(plan.granted), "in_words": plan.granted.in_words()},
        "config": of_plan["config"],
        "judge": experiment.recogniser.name,
        "control": control,
        "notes": {} if judged is None else judged["notes"],
        "outcome": None if judged is None else judged["outcome"],
    }
