"""Checks of an experiment before anything is trained: names, systems, stages, shared subjects, threat models."""

from __future__ import annotations

import graphlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ppfr.core import ProblemsError
from ppfr.data import assert_disjoint
from ppfr.evaluation._attack_plan import AttackPlan, check_threat_model
from ppfr.evaluation._embedding import CANNOT_MIRROR, can_mirror
from ppfr.evaluation._experiment import SYSTEM_ROLES, Experiment
from ppfr.evaluation._measure import DataUse, Stage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_CROP_CHANNELS = 3


def check_experiment(experiment: Experiment, *, device: str = "auto") -> None:
    """Reject an experiment that cannot be run, or whose figures would be meaningless.

    Creates each attack once to read what it needs.

    Raises:
        ProblemsError: lists all problems of names, roles, systems and measures.
        OverlapError: training or public images share subjects with a protocol.
        ThreatModelError: an attack needs more than its plan grants, or does not use a secret that it is granted.
    """
    problems = [
        *_name_problems(experiment),
        *_system_problems(experiment),
        *_setting_problems(experiment),
        *(problem for measure in experiment.measures for problem in measure.problems(experiment)),
    ]
    if problems:
        raise ProblemsError(f"experiment {experiment.name!r} cannot be run", list(dict.fromkeys(problems)))
    uses = data_uses(experiment)
    for one, other in sets_to_keep_apart(uses):
        assert_disjoint(one.images, other.images)
    for plan in attacks_of(experiment):
        check_threat_model(plan, experiment.system(plan.system), device=device)


def check_stages(experiment: Experiment, stages: Mapping[str, Stage]) -> None:
    """Reject stages that can never run because of what they depend on.

    Args:
        experiment: whose measures the stages are of.
        stages: by name.

    Raises:
        ProblemsError: a stage depends on one that no measure has, or stages depend on each other.
    """
    problems = [
        f"stage {stage.name!r} depends on stage {name!r}, which no measure of the experiment has; add the measure "
        "that has it, or correct `Stage.after`"
        for stage in stages.values()
        for name in stage.after
        if name not in stages
    ]
    try:
        graphlib.TopologicalSorter({stage.name: stage.after for stage in stages.values()}).prepare()
    except graphlib.CycleError as error:
        circle = ", ".join(repr(name) for name in error.args[1])
        problems.append(f"stages depend on each other: {circle}; remove a name from `Stage.after`")
    if problems:
        raise ProblemsError(f"experiment {experiment.name!r} cannot be run", problems)


def attacks_of(experiment: Experiment) -> list[AttackPlan]:
    """The attacks of all measures."""
    return [plan for measure in experiment.measures for plan in measure.attacks()]


def data_uses(experiment: Experiment) -> list[DataUse]:
    """Every image set, once per role and name: training images first, then public ones, then protocols."""
    found: dict[tuple[str, str], DataUse] = {}
    for measure in experiment.measures:
        for use in measure.data(experiment):
            found.setdefault((use.role, use.name or use.images.name), use)
    order = ("training", "public", "protocol")
    return sorted(found.values(), key=lambda use: order.index(use.role))


def sets_to_keep_apart(uses: Sequence[DataUse]) -> list[tuple[DataUse, DataUse]]:
    """Pairs of image sets that must share no subject: each set used for training, and each protocol."""
    learned: dict[str, DataUse] = {}
    for use in uses:
        if use.role != "protocol":
            learned.setdefault(use.name or use.images.name, use)
    return [(one, other) for one in learned.values() for other in uses if other.role == "protocol"]


def _name_problems(experiment: Experiment) -> Iterator[str]:
    kinds = {
        "system": [system.name for system in experiment.systems],
        "comparison": [comparison.name for comparison in experiment.comparisons],
        "attack": [plan.name for plan in attacks_of(experiment)],
        "evaluation recogniser": [recogniser.name for recogniser in experiment.recognisers],
    }
    for kind, names in kinds.items():
        for name, times in Counter(names).items():
            if times > 1:
                yield f"{times} {kind}s are named {name!r}; names must differ"
            if _NAME.fullmatch(name) is None:
                yield f"{kind} name {name!r} is not valid; use up to 80 letters, digits, '.', '_' and '-'"
    if not experiment.systems:
        yield "there is no system; give at least one"
    if not experiment.measures:
        yield "there is no measure; give at least one"


def _system_problems(experiment: Experiment) -> Iterator[str]:
    before: set[str] = set()
    for system in experiment.systems:
        if system.role not in SYSTEM_ROLES:
            yield f"system {system.name!r}: unknown role {system.role!r}; use one of {', '.join(SYSTEM_ROLES)}"
        if system.masker is None and system.templates is None:
            yield f"system {system.name!r}: has neither a masker nor templates; give one"
        if system.role == "control" and system.training is not None:
            yield f"system {system.name!r}: a control must have no training"
        if system.templates is not None and system.training is not None:
            yield (
                f"system {system.name!r}: has templates and a training; list a system with the training before it, and "
                "give the name of that system as `recogniser`"
            )
        # Without training images, the experiment trains no recogniser: masked images are attacked, but not recognised.
        is_trained = experiment.training_images is not None and system.templates is None and system.role != "control"
        if is_trained and system.training is None:
            yield f"system {system.name!r}: has no training, but the experiment has training images; give it a training"
        if system.baseline is not None and system.baseline not in before:
            yield (
                f"system {system.name!r}: baseline {system.baseline!r} is not listed before it; list baselines first"
            )
        if system.masker is not None and system.masker.spec.in_shape[0] != _CROP_CHANNELS:
            yield (
                f"system {system.name!r}: the masker takes {system.masker.spec.in_shape}, but RGB crops have 3 channels"
            )
        mirrors = experiment.mirrors_input and system.recognises
        if mirrors and system.masker is not None and not can_mirror(system.masker):
            yield f"system {system.name!r}: mirrors_input=True, but {CANNOT_MIRROR.format(system.masker.name)}"
        before.add(system.name)


def _setting_problems(experiment: Experiment) -> Iterator[str]:
    if experiment.people not in ("real", "synthetic"):
        yield f"people={experiment.people!r}; use 'real' or 'synthetic'"
    if experiment.num_resamples < 100:
        yield f"num_resamples={experiment.num_resamples}; use at least 100"
    if experiment.batch_size < 1:
        yield f"batch_size={experiment.batch_size}; use at least 1"
