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
    """What is known of every attack before it runs."""

    @property
    def name(self) -> str:
        """Short name for tables and records."""
        ...

    @property
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""
        ...


class ControlRule(ABC):
    """When a control counts as passed. Each measure with attacks has its own subclass."""

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
    """One attack on one system under one threat model. Measures extend it with their own fields.

    Attributes:
        name: short and unique, for example "unet-ppfr-fd-unknown".
        label: for tables; the same for all variants of one attack, for example "U-Net recovery".
        system: name of the system that is attacked.
        make: creates the attack. It is called once for the checks, and again when the attack runs. An attack that is
            trained keeps its checkpoints in `options.run_dir` and resumes from there.
        granted: what this adversary knows and sees. Without `knows_secret` the adversary gets a simulation of the
            masker under other secrets.
        recogniser: name of the evaluation recogniser that identity is measured with. An attack that estimates
            embeddings must estimate those of this recogniser.
        rule: when a control counts as passed.
        role: "attack", "positive control" (on an unprotected system: must win) or "negative control" (must stay at the
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
        """The attack, created only to read its name, needs and configuration."""
        attack: AnyAttack = self.make(RunOptions(run_dir=Path("unused"), device=device, shows_progress=False))
        return attack

    def extra_config(self) -> Mapping[str, Any]:
        """Further configuration that the figures depend on."""
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
    """Problems of attack plans that do not depend on the measure.

    Args:
        plans: the attacks.
        experiment: the experiment that they belong to.
        control_is_system: whether controls are attacks on a baseline or on a control system. False where something
            else makes an attack a control, for example an oracle with random results.
    """
    systems = {system.name: system for system in experiment.systems}
    recognisers = {recogniser.name for recogniser in experiment.recognisers}
    for plan in plans:
        system = systems.get(plan.system)
        if plan.role not in ATTACK_ROLES:
            yield f"attack {plan.name!r}: unknown role {plan.role!r}; use one of {', '.join(ATTACK_ROLES)}"
        if plan.recogniser not in recognisers:
            yield f"attack {plan.name!r}: there is no evaluation recogniser {plan.recogniser!r}"
        if system is None:
            yield f"attack {plan.name!r}: there is no system {plan.system!r}"
        elif control_is_system and _SYSTEM_ROLE_OF.get(plan.role, system.role) != system.role:
            yield (
                f"attack {plan.name!r}: a {plan.role} must attack a system of role {_SYSTEM_ROLE_OF[plan.role]!r}, but "
                f"{plan.system!r} has role {system.role!r}"
            )


def check_threat_model(plan: AttackPlan, system: System, *, device: str = "auto") -> None:
    """Compare what an attack needs with what its plan grants.

    Raises:
        ThreatModelError: the attack needs more than the plan grants. Or the protection has a secret, the plan grants
            it, and the attack does not use it: the figures would be reported under the wrong threat model.
    """
    needs, granted = plan.probe(device=device).needs, plan.granted
    if needs.sees != granted.sees:
        raise ThreatModelError(
            f"Attack {plan.name!r} needs to see {needs.sees.__name__}, but is granted {granted.sees.__name__}. "
            "Grant what it needs, or remove the attack."
        )
    missing = [words for words, needed, given in _knowledge_of(needs, granted) if needed and not given]
    if missing:
        raise ThreatModelError(
            f"Attack {plan.name!r} needs {' and '.join(missing)}, which its threat model does not grant. "
            "Grant it, or configure the attack without it."
        )
    if system.is_keyed and granted.knows_secret and not needs.knows_secret:
        raise ThreatModelError(
            f"Attack {plan.name!r} is granted the deployment's secret, but does not use it. "
            "Configure the attack with the secret, or use a threat model without it."
        )


def unused_in_words(needs: ThreatModel, granted: ThreatModel) -> str:
    """For the report, what the adversary has and the attack does not use; "" if it uses everything."""
    unused = [words for words, needed, given in _knowledge_of(needs, granted) if given and not needed]
    return f"This attack does not use {' or '.join(unused)}." if unused else ""


def _knowledge_of(needs: ThreatModel, granted: ThreatModel) -> Iterator[tuple[str, bool, bool]]:
    yield "the method", needs.knows_method, granted.knows_method
    yield "the deployment's secret", needs.knows_secret, granted.knows_secret
    yield "the recogniser's weights", needs.knows_recogniser, granted.knows_recogniser
    yield "faces of other people", needs.has_public_faces, granted.has_public_faces


def secret_of(plan: AttackPlan, system: System) -> str:
    """Whether the adversary knows the secret: "known", "unknown", or "none" where the protection has no secret."""
    return ("known" if plan.granted.knows_secret else "unknown") if system.is_keyed else NO_SECRET
