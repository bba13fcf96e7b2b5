"""Everything that can be refused before an hour is spent: names, people in two sets, threat models, judges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppfr.core import Attack, ProblemsError, QueryAttack, TemplateAttack, ThreatModel, ThreatModelError
from ppfr.data import assert_disjoint
from ppfr.evaluation._experiment import ARM_ROLES, ATTACK_ROLES, AttackPlan, Experiment, Judge, RunOptions

if TYPE_CHECKING:
    from ppfr.evaluation._templates._experiment import QueryAttackPlan, TemplateAttackPlan

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_CROP_AXES = 3


def check_experiment(experiment: Experiment, *, device: str = "auto") -> None:
    """Refuse an experiment that cannot be run, or whose figures would mean nothing.

    Makes each attack once to see what it needs.

    Raises:
        ProblemsError: names, roles, judges, victims and counts that do not fit together, all at once.
        OverlapError: training or public images share people with a protocol.
        ThreatModelError: an attack needs more than its plan grants, or leaves unused what it is granted.
    """
    problems = [
        *_name_problems(experiment),
        *_arm_problems(experiment),
        *_question_problems(experiment),
        *_attack_problems(experiment),
        *_setting_problems(experiment),
    ]
    if problems:
        raise ProblemsError(f"experiment {experiment.name!r} cannot be run", problems)
    _check_people(experiment)
    for plan in experiment.attacks:
        options = RunOptions(run_dir=Path("unused"), device=device, shows_progress=False)
        check_threat_model(plan, plan.make(options), is_keyed=experiment.arm(plan.arm).masker.spec.is_keyed)


def is_name(name: str) -> bool:
    """Whether arms and attacks may be called so: the names are parts of file names."""
    return _NAME.fullmatch(name) is not None


def people_to_keep_apart(experiment: Experiment) -> list[tuple[str, str]]:
    """Names of the pairs of sets that `check_experiment` finds to share nobody."""
    sets = [experiment.training_images.name]
    if experiment.public_images is not None and experiment.public_images.name not in sets:
        sets.append(experiment.public_images.name)
    return [(name, protocol.name) for name in sets for protocol in experiment.protocols]


def check_threat_model(
    plan: AttackPlan | TemplateAttackPlan | QueryAttackPlan,
    attack: Attack | TemplateAttack | QueryAttack,
    *,
    is_keyed: bool,
) -> None:
    """Hold what an attack needs against what its plan grants.

    Raises:
        ThreatModelError: it needs more; or, against a protection with a secret, it does not use the secret that it is
            granted, so that its figures would be printed under a threat model that they were not measured under.
    """
    needs, granted = attack.needs, plan.granted
    if needs.sees != granted.sees:
        raise ThreatModelError(
            f"attack {plan.name!r} needs to see {needs.sees!r}, but is granted {granted.sees!r}; grant it, or drop it"
        )
    missing = [words for words, needed, given in _knowledge_of(needs, granted) if needed and not given]
    if missing:
        raise ThreatModelError(
            f"attack {plan.name!r} needs {' and '.join(missing)}, which its threat model does not grant; "
            "grant it, or make the attack without it"
        )
    if is_keyed and granted.knows_secret and not needs.knows_secret:
        raise ThreatModelError(
            f"attack {plan.name!r} is granted the deployment's secret, but does not use it; "
            "make it with the secret, or grant a threat model without"
        )


def _knowledge_of(needs: ThreatModel, granted: ThreatModel) -> Iterator[tuple[str, bool, bool]]:
    yield "the method", needs.knows_method, granted.knows_method
    yield "the deployment's secret", needs.knows_secret, granted.knows_secret
    yield "the recogniser's weights", needs.knows_recogniser, granted.knows_recogniser
    yield "faces of other people", needs.has_public_faces, granted.has_public_faces


def _check_people(experiment: Experiment) -> None:
    for protocol in experiment.protocols:
        tested = protocol.used_images()
        assert_disjoint(experiment.training_images, tested)
        if experiment.public_images is not None:
            assert_disjoint(experiment.public_images, tested)


def _name_problems(experiment: Experiment) -> Iterator[str]:
    kinds = {
        "arm": [arm.name for arm in experiment.arms],
        "question": [question.name for question in experiment.questions],
        "attack": [plan.name for plan in experiment.attacks],
        "judge": [judge.name for judge in experiment.judges],
        "protocol": [protocol.name for protocol in experiment.protocols],
    }
    for kind, names in kinds.items():
        for name, times in Counter(names).items():
            if times > 1:
                yield f"{times} {kind}s are named {name!r}; names must differ"
            if not is_name(name):
                yield f"{kind} name {name!r}; use up to 80 letters, digits, '.', '_' and '-'"
    if not experiment.arms:
        yield "there is no arm; give at least one"
    if not experiment.protocols:
        yield "there is no protocol; give at least one"


def _arm_problems(experiment: Experiment) -> Iterator[str]:
    seen: dict[str, bool] = {}
    for arm in experiment.arms:
        if arm.role not in ARM_ROLES:
            yield f"arm {arm.name!r}: role {arm.role!r}; allowed is {', '.join(ARM_ROLES)}"
        if (arm.role == "control") != (arm.training is None):
            yield f"arm {arm.name!r}: a control has no training, every other arm has one"
        if arm.baseline is not None and arm.baseline not in seen:
            yield f"arm {arm.name!r}: baseline {arm.baseline!r} is no arm before it; put baselines first"
        elif arm.baseline is not None and not seen[arm.baseline]:
            yield f"arm {arm.name!r}: baseline {arm.baseline!r} is not trained, so it has no accuracy"
        if arm.masker.spec.in_shape[0] != _CROP_AXES:
            yield f"arm {arm.name!r}: its masker takes {arm.masker.spec.in_shape}; RGB crops have 3 channels"
        seen[arm.name] = arm.training is not None


def _question_problems(experiment: Experiment) -> Iterator[str]:
    trained = {arm.name for arm in experiment.arms if arm.training is not None}
    for question in experiment.questions:
        for name in (question.arm, question.against):
            if name not in trained:
                yield f"question {question.name!r}: {name!r} is no arm that recognises; allowed is {_listed(trained)}"
        if question.arm == question.against:
            yield f"question {question.name!r}: compares {question.arm!r} with itself"


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _attack_problems(experiment: Experiment) -> Iterator[str]:
    arms = {arm.name: arm for arm in experiment.arms}
    judges = {judge.name: judge for judge in experiment.judges}
    for plan in experiment.attacks:
        arm, judge = arms.get(plan.arm), judges.get(plan.judge)
        if plan.role not in ATTACK_ROLES:
            yield f"attack {plan.name!r}: role {plan.role!r}; allowed is {', '.join(ATTACK_ROLES)}"
        if arm is None:
            yield f"attack {plan.name!r}: there is no arm {plan.arm!r}"
        elif {"positive control": "baseline", "negative control": "control"}.get(plan.role, arm.role) != arm.role:
            yield f"attack {plan.name!r}: a {plan.role} does not belong on an arm of role {arm.role!r}"
        if arm is not None and plan.granted.sees == "mixed_images" and not (arm.training and arm.training.mixes):
            yield f"attack {plan.name!r}: sees mixed images, and arm {arm.name!r} mixes none"
        if judge is None:
            yield f"attack {plan.name!r}: there is no judge {plan.judge!r}"
        elif arm is not None and arm.training is not None:
            shared = _networks(judge) & {known.name for known in arm.training.knowledge}
            if shared:
                yield (
                    f"attack {plan.name!r}: judge {judge.name!r} is {', '.join(sorted(shared))}, which arm "
                    f"{arm.name!r} was made from; judge with another network"
                )
    if experiment.attacks:
        yield from _victim_problems(experiment)


def _networks(judge: Judge) -> set[str]:
    return {judge.name, *(known.name for known in judge.knowledge)}


def _victim_problems(experiment: Experiment) -> Iterator[str]:
    if experiment.public_images is None:
        yield "there are attacks, but no public images for them to train on"
    if experiment.victims is None:
        yield "there are attacks, but no victims to judge them on"
        return
    wanted, names = experiment.victims.protocol, [p.name for p in experiment.protocols]
    if wanted and wanted not in names:
        yield f"victims come from protocol {wanted!r}, which is not in the experiment"
        return
    if not names:
        return
    found = len(eligible_victims(experiment))
    if not 2 <= experiment.victims.num_subjects <= found:
        num = experiment.victims.num_subjects
        yield f"{num} victims; {found} people have two images or more: allowed is 2 to {found}"
    elif experiment.victims.num_subjects < 5:
        yield f"{experiment.victims.num_subjects} victims; top-5 needs a gallery of at least 5"


def eligible_victims(experiment: Experiment) -> dict[str, list[int]]:
    """Image indices, by subject, of those people of the victims' protocol who have two images or more."""
    protocol = experiment.victim_protocol()
    by_subject: dict[str, list[int]] = {}
    for index in protocol.used().tolist():
        by_subject.setdefault(protocol.images.subject_ids[index], []).append(index)
    return {subject: indices for subject, indices in sorted(by_subject.items()) if len(indices) >= 2}


def _setting_problems(experiment: Experiment) -> Iterator[str]:
    if experiment.people not in ("real", "synthetic"):
        yield f"people={experiment.people!r}; allowed is 'real' or 'synthetic'"
    rates: Sequence[float] = (*experiment.fars, experiment.judge_far)
    if not experiment.fars or any(not 0 < far <= 1 for far in rates):
        yield f"false accept rates {tuple(rates)}; each must lie in (0, 1]"
    if experiment.num_resamples < 100:
        yield f"num_resamples={experiment.num_resamples}; intervals need at least 100"
    if experiment.batch_size < 1:
        yield f"batch_size={experiment.batch_size}; allowed is 1 or more"
