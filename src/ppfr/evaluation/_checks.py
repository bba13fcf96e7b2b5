"""Everything that can be refused before an hour is spent: names, systems, people in two sets, threat models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ppfr.core import ProblemsError
from ppfr.data import assert_disjoint
from ppfr.evaluation._attack_plan import AttackPlan, check_threat_model
from ppfr.evaluation._experiment import SYSTEM_ROLES, Experiment
from ppfr.evaluation._measure import DataUse

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_CROP_CHANNELS = 3


def check_experiment(experiment: Experiment, *, device: str = "auto") -> None:
    """Refuse an experiment that cannot be run, or whose figures would mean nothing.

    Makes each attack once to see what it needs.

    Raises:
        ProblemsError: names, roles, systems, and what the measures find, all at once.
        OverlapError: training or public images share people with a protocol.
        ThreatModelError: an attack needs more than its plan grants, or leaves unused what it is granted.
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
    """Pairs of sets that must share no subject: whatever is trained on, and every protocol."""
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
                yield f"{kind} name {name!r}; use up to 80 letters, digits, '.', '_' and '-'"
    if not experiment.systems:
        yield "there is no system; give at least one"
    if not experiment.measures:
        yield "there is no measure; give at least one"


def _system_problems(experiment: Experiment) -> Iterator[str]:
    before: set[str] = set()
    for system in experiment.systems:
        if system.role not in SYSTEM_ROLES:
            yield f"system {system.name!r}: role {system.role!r}; allowed is {', '.join(SYSTEM_ROLES)}"
        if system.masker is None and system.templates is None:
            yield f"system {system.name!r}: has neither a masker nor templates; give one"
        if system.templates is None and (system.role == "control") != (system.training is None):
            yield f"system {system.name!r}: a control has no training, every other system has one"
        if system.baseline is not None and system.baseline not in before:
            yield f"system {system.name!r}: baseline {system.baseline!r} is not a system before it; put baselines first"
        if system.masker is not None and system.masker.spec.in_shape[0] != _CROP_CHANNELS:
            yield f"system {system.name!r}: its masker takes {system.masker.spec.in_shape}; RGB crops have 3 channels"
        before.add(system.name)


def _setting_problems(experiment: Experiment) -> Iterator[str]:
    if experiment.people not in ("real", "synthetic"):
        yield f"people={experiment.people!r}; allowed is 'real' or 'synthetic'"
    if experiment.num_resamples < 100:
        yield f"num_resamples={experiment.num_resamples}; intervals need at least 100"
    if experiment.batch_size < 1:
        yield f"batch_size={experiment.batch_size}; allowed is 1 or more"
