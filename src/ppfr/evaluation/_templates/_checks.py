"""What can be refused before anything is embedded, and what a run on templates is of."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ppfr.core import ProblemsError, RangeError, check_budgets, without_paths
from ppfr.data import assert_disjoint
from ppfr.evaluation._checks import check_threat_model, is_name
from ppfr.evaluation._experiment import ARM_ROLES, ATTACK_ROLES
from ppfr.evaluation._identity import as_json, attack_config, pairs_digest
from ppfr.evaluation._provenance import describe_data
from ppfr.evaluation._templates._experiment import QueryAttackPlan, TemplateArm, TemplateAttackPlan, TemplateExperiment
from ppfr.evaluation._templates._session import num_cross_comparisons, people_of
from ppfr.evaluation._workspace import Json, config_sha256


def check_template_experiment(experiment: TemplateExperiment) -> None:
    """Refuse an experiment that cannot be run, or whose figures would mean nothing.

    Raises:
        ProblemsError: names, roles, schemes, victims and rates that do not fit together, all at once.
        OverlapError: public images share people with a protocol.
        ThreatModelError: an attack needs more than its plan grants, or leaves unused what it is granted.
    """
    problems = [
        *_name_problems(experiment),
        *_arm_problems(experiment),
        *_attack_problems(experiment),
        *_query_problems(experiment),
        *_setting_problems(experiment),
    ]
    if problems:
        raise ProblemsError(f"experiment {experiment.name!r} cannot be run", problems)
    if experiment.transfer is not None and experiment.pairs is not None:
        assert_disjoint(experiment.transfer.public_images, experiment.pairs.used_images())
    if experiment.public_images is not None and experiment.pairs is not None:
        assert_disjoint(experiment.public_images, experiment.pairs.used_images())
    for plan in experiment.all_attacks():
        check_threat_model(plan, plan.make(), is_keyed=experiment.arm(plan.arm).is_keyed)


def _name_problems(experiment: TemplateExperiment) -> Iterator[str]:
    kinds = {
        "arm": [a.name for a in experiment.arms],
        "attack": [p.name for p in experiment.all_attacks()],
    }
    for kind, names in kinds.items():
        for name, times in Counter(names).items():
            if times > 1:
                yield f"{times} {kind}s are named {name!r}; names must differ"
            if not is_name(name):
                yield f"{kind} name {name!r}; use up to 80 letters, digits, '.', '_' and '-'"
    if not experiment.arms:
        yield "there is no arm; give at least one"
    if experiment.pairs is None and experiment.open_set is None:
        yield "there is neither a 1:1 nor a 1:N protocol; give one"


def _arm_problems(experiment: TemplateExperiment) -> Iterator[str]:
    seen: list[str] = []
    dim = experiment.recogniser.embedder.dim
    for arm in experiment.arms:
        if arm.role not in ARM_ROLES:
            yield f"arm {arm.name!r}: role {arm.role!r}; allowed is {', '.join(ARM_ROLES)}"
        if arm.baseline is not None and arm.baseline not in seen:
            yield f"arm {arm.name!r}: baseline {arm.baseline!r} is no arm before it; put baselines first"
        if arm.scheme.in_dim != dim:
            yield f"arm {arm.name!r}: its scheme takes {arm.scheme.in_dim} values, the recogniser gives {dim}"
        if arm.selection is not None and not any(plan.arm == arm.name for plan in experiment.attacks):
            yield f"arm {arm.name!r}: keys are selected for the victims of its attacks, and there is no attack"
        if arm.baseline is not None and any(
            a.name == arm.baseline and a.selection is not None for a in experiment.arms
        ):
            yield f"arm {arm.name!r}: baseline {arm.baseline!r} has selected keys, so it has no accuracy"
        seen.append(arm.name)


def _attack_problems(experiment: TemplateExperiment) -> Iterator[str]:
    arms = {arm.name: arm for arm in experiment.arms}
    for plan in experiment.attacks:
        arm = arms.get(plan.arm)
        if plan.role not in ATTACK_ROLES:
            yield f"attack {plan.name!r}: role {plan.role!r}; allowed is {', '.join(ATTACK_ROLES)}"
        if arm is None:
            yield f"attack {plan.name!r}: there is no arm {plan.arm!r}"
        elif {"positive control": "baseline", "negative control": "control"}.get(plan.role, arm.role) != arm.role:
            yield f"attack {plan.name!r}: a {plan.role} does not belong on an arm of role {arm.role!r}"
    if not (experiment.attacks or experiment.query_attacks):
        return
    if experiment.pairs is None:
        yield "there are attacks, but no 1:1 protocol whose people they are judged on"
        return
    people = people_of(experiment)
    num = int(((people.another_S >= 0) & people.is_claimed_S).sum())
    if not 2 <= experiment.num_victims <= num:
        yield f"{experiment.num_victims} victims; {num} claimed people have two images or more: allowed is 2 to {num}"


def _query_problems(experiment: TemplateExperiment) -> Iterator[str]:
    arms = {arm.name: arm for arm in experiment.arms}
    for plan in experiment.query_attacks:
        if plan.role not in ATTACK_ROLES:
            yield f"attack {plan.name!r}: role {plan.role!r}; allowed is {', '.join(ATTACK_ROLES)}"
        if plan.arm not in arms:
            yield f"attack {plan.name!r}: there is no arm {plan.arm!r}"
        elif arms[plan.arm].selection is not None:
            yield f"attack {plan.name!r}: arm {plan.arm!r} has selected keys, and so no thresholds of its own"
        if not 2 <= plan.num_victims <= experiment.num_victims:
            yield f"attack {plan.name!r}: {plan.num_victims} victims; allowed is 2 to {experiment.num_victims}"
        if plan.starts_from == "photograph" and experiment.pairs is not None:
            people = people_of(experiment)
            num = int(((people.third_S >= 0) & people.is_claimed_S).sum())
            if num < 2:
                yield f"attack {plan.name!r}: starts from a third image, which {num} people have; give others, or faces"
        try:
            check_budgets(plan.budgets)
        except RangeError as error:
            yield f"attack {plan.name!r}: {error}"
    if experiment.query_attacks and experiment.public_images is None:
        yield "there are attacks by queries, but no public_images for their adversaries"
    if experiment.decide_securely is not None and experiment.pairs is None:
        yield "pairs are to be decided under sharing, but there is no 1:1 protocol"


def _setting_problems(experiment: TemplateExperiment) -> Iterator[str]:
    if experiment.people not in ("real", "synthetic"):
        yield f"people={experiment.people!r}; allowed is 'real' or 'synthetic'"
    rates = (*experiment.fars, *experiment.fmrs, *experiment.fpirs)
    if not (experiment.fars and experiment.fmrs and experiment.fpirs) or any(not 0 < rate <= 1 for rate in rates):
        yield f"rates {rates}; give FARs, FMRs and FPIRs, each in (0, 1]"
    elif experiment.pairs is not None:
        num = num_cross_comparisons(len(people_of(experiment).subjects))
        lowest = min(experiment.fmrs)
        if num * lowest < 1:
            yield (
                f"FMR {lowest:g} cannot be shown with {num} impostor comparisons of the recogniser; test on more "
                "people, or ask for a higher FMR"
            )
    if experiment.num_resamples < 100:
        yield f"num_resamples={experiment.num_resamples}; intervals need at least 100"
    if experiment.batch_size < 1 or experiment.num_issues < 0:
        yield (
            f"batch_size={experiment.batch_size} and num_issues={experiment.num_issues}; "
            "allowed is 1 or more, and 0 or more"
        )


def describe_template_data(experiment: TemplateExperiment) -> list[Json]:
    """Every data set's use, counts and fingerprint."""
    rows = []
    if experiment.transfer is not None:
        rows.append(describe_data(experiment.transfer.public_images, role="public"))
    if experiment.public_images is not None:
        rows.append(describe_data(experiment.public_images, role="public"))
    for protocol in (experiment.pairs, experiment.open_set):
        if protocol is not None:
            rows.append(describe_data(protocol.used_images(), role="protocol", name=protocol.name))
    return rows


def template_config(experiment: TemplateExperiment, data: list[Json]) -> Json:
    """JSON of everything that figures depend on; what a resumed run must share with the first."""
    protocols = [protocol for protocol in (experiment.pairs, experiment.open_set) if protocol is not None]
    config = {
        "kind": "templates",
        **{
            field: getattr(experiment, field)
            for field in ("name", "preset", "seed", "people", "num_victims", "num_issues", "fars", "fmrs", "fpirs")
        },
        "num_resamples": experiment.num_resamples,
        "adds_mirrored": experiment.adds_mirrored,
        "recogniser": experiment.recogniser.name,
        "knowledge": [dataclasses.asdict(known) for known in experiment.recogniser.knowledge],
        "transfer": None if experiment.transfer is None else experiment.transfer.judge.name,
        "data": {f"{row['role']}/{row['name']}": row["fingerprint"] for row in data},
        "comparisons": {protocol.name: _digest(protocol) for protocol in protocols},
        "arms": [_arm_config(arm) for arm in experiment.arms],
        "attacks": [_attack_config(plan) for plan in experiment.attacks],
    }
    if experiment.query_attacks:
        config["query_attacks"] = [_query_attack_config(plan) for plan in experiment.query_attacks]
    if experiment.decide_securely is not None:
        config["decides_securely"] = True
    plain: Json = without_paths(as_json(config))
    return plain


def _digest(protocol: Any) -> str:
    if hasattr(protocol, "first"):
        return pairs_digest(protocol)
    return config_sha256([np.asarray(a).tolist() for a in (protocol.references, protocol.mated, protocol.unmated)])


def _arm_config(arm: TemplateArm) -> Json:
    return {
        "name": arm.name,
        "role": arm.role,
        "baseline": arm.baseline,
        "scheme": {"name": arm.scheme.scheme_id, "config": dict(arm.scheme.public_config())},
        "is_keyed": arm.is_keyed,
        "selection": None if arm.selection is None else {"in_words": arm.selection.in_words, "fmr": arm.selection.fmr},
    }


def _attack_config(plan: TemplateAttackPlan) -> Json:
    attack = plan.make()
    return {
        "name": plan.name,
        "method": attack.name,
        "arm": plan.arm,
        "role": plan.role,
        "granted": dataclasses.asdict(plan.granted),
        "rule": dataclasses.asdict(plan.rule),
        "config": attack_config(attack),
    }


def _query_attack_config(plan: QueryAttackPlan) -> Json:
    attack = plan.make()
    return {
        **{field: getattr(plan, field) for field in ("name", "arm", "role", "answers", "starts_from", "num_victims")},
        "method": attack.name,
        "granted": dataclasses.asdict(plan.granted),
        "budgets": list(plan.budgets),
        "rule": dataclasses.asdict(plan.rule),
        "config": attack_config(attack),
    }
