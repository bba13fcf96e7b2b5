"""One attack on one system under one threat model, and when a control counts as passed."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ppfr.core import AttackRole, ControlEntry, RunOptions, ThreatModel, ThreatModelError, as_json
from ppfr.evaluation._experiment import Experiment, System

NO_SECRET = "none"  # noqa: S105
ATTACK_ROLES = ("attack", "positive control", "negative control")
_SYSTEM_ROLE_OF = {"positive control": "baseline", "negative control": "control"}


class AnyAttack(Protocol):
    """What every attack tells of itself before it runs."""

    @property
    def name(self) -> str:
        """Short name for tables and records."""
        ...

    @property
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""
        ...


class ControlRule(ABC):
    """When a control counts as passed; the subclass belongs to the measure whose outcome it judges."""

    @abstractmethod
    def win_in_words(self) -> str:
        """What a positive control must show."""

    @abstractmethod
    def chance_in_words(self) -> str:
        """What a negative control must show."""

    def entry(self, role: AttackRole) -> ControlEntry | None:
        """The rule for the record; None for an attack that is not a control."""
        if role == "positive control":
            return ControlEntry(expects="win", rule=self.win_in_words())
        if role == "negative control":
            return ControlEntry(expects="chance", rule=self.chance_in_words())
        return None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AttackPlan:
    """One attack on one system under one threat model; measures extend it by what they need.

    Attributes:
        name: short and unique, as in "unet-ppfr-fd-unknown".
        label: for tables; the same for all variants of one attack, as in "U-Net recovery".
        system: name of the system that is attacked.
        make: makes a fresh attack; called once for the checks, and again when its turn comes. An attack that trains
            keeps its training in `options.run_dir` and resumes from there.
        granted: what this adversary knows and sees. Without `knows_secret` it gets simulations under secrets of its
            own.
        recogniser: name of the evaluation recogniser that identity is measured with. An attack that estimates
            embeddings must estimate those of this recogniser.
        rule: when a control counts as passed.
        role: "attack", "positive control" (an unprotected system: must win) or "negative control" (must stay at the
            chance level).
    """

    name: str
    label: str
    system: str
    make: Callable[[RunOptions], Any]
    granted: ThreatModel
    recogniser: str
    rule: ControlRule
    role: AttackRole = "attack"

    def probe(self, *, device: str = "auto") -> AnyAttack:
        """The attack, made for a look at what it needs."""
        attack: AnyAttack = self.make(RunOptions(run_dir=Path("unused"), device=device, shows_progress=False))
        return attack

    def extra_config(self) -> Mapping[str, Any]:
        """What the figures depend on beside the fields of every plan."""
        return {}

    def config(self) -> dict[str, Any]:
        """JSON-ready: everything that the figures depend on."""
        attack = self.probe()
        return {
            "name": self.name,
            "method": attack.name,
            "system": self.system,
            "role": self.role,
            "granted": self.granted.as_dict(),
            "recogniser": self.recogniser,
            "rule": dataclasses.asdict(self.rule),  # type: ignore[call-overload]
            **self.extra_config(),
            "config": attack_config(attack),
        }


def attack_config(attack: Any) -> dict[str, Any]:
    """An attack's public configuration, if it has one."""
    public_config = getattr(attack, "public_config", None)
    config: dict[str, Any] = as_json(public_config()) if callable(public_config) else {"attack": attack.name}
    return config


def plan_problems(
    plans: Iterable[AttackPlan], experiment: Experiment, *, control_is_system: bool = True
) -> Iterator[str]:
    """What no attack plan may get wrong, whatever its measure.

    Args:
        plans: the attacks.
        experiment: where they run.
        control_is_system: a control is an attack on a baseline or a control system; False where it is something else
            that makes an attack a control, such as an oracle whose answers are random.
    """
    systems = {system.name: system for system in experiment.systems}
    recognisers = {recogniser.name for recogniser in experiment.recognisers}
    for plan in plans:
        system = systems.get(plan.system)
        if plan.role not in ATTACK_ROLES:
            yield f"attack {plan.name!r}: role {plan.role!r}; allowed is {', '.join(ATTACK_ROLES)}"
        if plan.recogniser not in recognisers:
            yield f"attack {plan.name!r}: there is no evaluation recogniser {plan.recogniser!r}"
        if system is None:
            yield f"attack {plan.name!r}: there is no system {plan.system!r}"
        elif control_is_system and _SYSTEM_ROLE_OF.get(plan.role, system.role) != system.role:
            yield f"attack {plan.name!r}: a {plan.role} does not belong on a system of role {system.role!r}"


def check_threat_model(plan: AttackPlan, system: System, *, device: str = "auto") -> None:
    """Hold what an attack needs against what its plan grants.

    Raises:
        ThreatModelError: it needs more; or, against a protection with a secret, it does not use the secret that it is
            granted, so that its figures would be printed under a threat model that they were not measured under.
    """
    needs, granted = plan.probe(device=device).needs, plan.granted
    if needs.sees != granted.sees:
        raise ThreatModelError(
            f"Attack {plan.name!r} needs to see {needs.sees.__name__}, but is granted {granted.sees.__name__}. "
            "Grant it, or drop the attack."
        )
    missing = [words for words, needed, given in _knowledge_of(needs, granted) if needed and not given]
    if missing:
        raise ThreatModelError(
            f"Attack {plan.name!r} needs {' and '.join(missing)}, which its threat model does not grant. "
            "Grant it, or make the attack without it."
        )
    if system.is_keyed and granted.knows_secret and not needs.knows_secret:
        raise ThreatModelError(
            f"Attack {plan.name!r} is granted the deployment's secret, but does not use it. "
            "Make it with the secret, or grant a threat model without."
        )


def _knowledge_of(needs: ThreatModel, granted: ThreatModel) -> Iterator[tuple[str, bool, bool]]:
    yield "the method", needs.knows_method, granted.knows_method
    yield "the deployment's secret", needs.knows_secret, granted.knows_secret
    yield "the recogniser's weights", needs.knows_recogniser, granted.knows_recogniser
    yield "faces of other people", needs.has_public_faces, granted.has_public_faces


def secret_of(plan: AttackPlan, system: System) -> str:
    """Whether the adversary knows the secret: "known", "unknown", or "none" where the protection has no secret."""
    return ("known" if plan.granted.knows_secret else "unknown") if system.is_keyed else NO_SECRET
