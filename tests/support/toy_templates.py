"""Experiments on templates that are small enough to see through: people of patterns and a linear recogniser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from ppfr.attacks import MappingInversion, templates_threat
from ppfr.core import SubjectKey
from ppfr.data import OpenSetProtocol, PairProtocol
from ppfr.evaluation import (
    AccuracyGaps,
    EvaluationRecogniser,
    Experiment,
    Identification,
    InversionRule,
    Measure,
    Renewal,
    System,
    TemplateAttackPlan,
    TemplateInversion,
    TemplateProtection,
    Unlinkability,
    Verification,
)
from ppfr.matching import ExactMatcher
from ppfr.templates import ConstantTemplates, IdentityMapping, UnprotectedTemplates
from support.embeddings import seeded_keys
from support.toy_experiment import Projection, pairs, people

DIM = Projection.dim


def keyless(name: str, role: str, scheme: Any, *, matcher: Any = None, **fields: Any) -> System:
    protection = TemplateProtection(
        scheme=scheme, draw_keys=lambda num, rng: [scheme.new_key()] * num, is_keyed=False, matcher=matcher
    )
    settings = {"label": name.capitalize(), "recogniser": "recogniser", "templates": protection}
    return System(name=name, role=role, **{**settings, **fields})


def unprotected(name: str = "plain", role: str = "baseline", **fields: Any) -> System:
    matcher = lambda rows_MD, _, values: ExactMatcher(rows_MD, values=values)  # noqa: E731
    return keyless(name, role, UnprotectedTemplates(dim=DIM), matcher=matcher, **fields)


def mapped(
    name: str = "mapping", *, overlap: int = 0, scale: float | None = 1.0, draw_keys: Any = None, selection: Any = None
) -> System:
    scheme = IdentityMapping(dim=DIM, num_terms=3, overlap=overlap, scale=scale)
    drawn = draw_keys or (lambda num, rng: _toy_keys(scheme, num, rng))
    return System(
        name=name,
        label=name.capitalize(),
        role="protected",
        recogniser="recogniser",
        templates=TemplateProtection(scheme=scheme, draw_keys=drawn, selection=selection),
        baseline="plain",
    )


def _toy_keys(scheme: IdentityMapping, num: int, rng: np.random.Generator) -> list[SubjectKey]:
    return scheme.key_of_packed(seeded_keys(num, 3, rng))


def constant() -> System:
    return keyless("constant", "control", ConstantTemplates(dim=DIM, out_dim=4), baseline="plain")


@final
class Dying:
    """Breaks once, in the middle of a run."""

    def __init__(self) -> None:
        self.times = 1

    def __call__(self, num: int, rng: np.random.Generator) -> Sequence[SubjectKey]:
        if self.times:
            self.times -= 1
            raise KeyboardInterrupt
        return _toy_keys(IdentityMapping(dim=DIM, num_terms=3, scale=1.0), num, rng)


def plan(system: System, *, knows_keys: bool = True, num_templates: int = 1) -> TemplateAttackPlan:
    roles: Mapping[str, str] = {"baseline": "positive control", "control": "negative control"}
    return TemplateAttackPlan(
        name=f"solve-{system.name}-{'known' if knows_keys else 'unknown'}{'' if num_templates == 1 else '-joint'}",
        label="Solver",
        system=system.name,
        make=lambda options: MappingInversion(
            knows_keys=knows_keys, num_templates=num_templates, num_starts=2, max_iterations=100
        ),
        granted=templates_threat(knows_keys=knows_keys),
        recogniser="recogniser",
        rule=InversionRule(fmr=1e-1),
        role=roles.get(system.role, "attack"),
    )


def open_set(*, num_enrolled: int = 20, num_strangers: int = 15) -> OpenSetProtocol:
    images = people(num_enrolled + num_strangers, 3, seed=7, name="searched")
    first = np.arange(num_enrolled) * 3
    strangers = (num_enrolled + np.arange(num_strangers)) * 3
    return OpenSetProtocol(name="toy-open-set", images=images, references=first, mated=first + 1, unmated=strangers)


def toy_pairs() -> PairProtocol:
    """40 people."""
    return pairs(people(40, 3, seed=1, name="tested"), each=3)


def template_measures(
    systems: Sequence[System], *, plans: Sequence[TemplateAttackPlan] | None = None, **changes: Any
) -> list[Measure]:
    """Every measure of templates but oracle attacks; `changes` are of the inversion."""
    protocol = toy_pairs()
    chosen = [plan(system) for system in systems] if plans is None else list(plans)
    settings: dict[str, Any] = {"pairs": protocol, "plans": chosen, "num_targets": 12, "fmrs": (1e-1, 1e-2)}
    return [
        Verification(protocols=[protocol], fars=(1e-1,)),
        AccuracyGaps(protocols=[protocol]),
        Unlinkability(pairs=protocol),
        Renewal(pairs=protocol, num_renewals=2),
        TemplateInversion(**{**settings, **changes}),
        Identification(protocol=open_set(), fpirs=(1e-1,)),
    ]


def template_experiment(**changes: Any) -> Experiment:
    systems = changes.pop("systems", (unprotected(), mapped(), constant()))
    settings: dict[str, Any] = {
        "name": "toy-templates",
        "title": "Toy templates",
        "command": "ppfr run toy --data /home/ada/faces",
        "seed": 3,
        "people": "synthetic",
        "recognisers": [EvaluationRecogniser(name="recogniser", label="Recogniser", embedder=Projection(5))],
        "systems": systems,
        "measures": template_measures(systems),
        "num_resamples": 100,
        "batch_size": 64,
    }
    return Experiment(**{**settings, **changes})
