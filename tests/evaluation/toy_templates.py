"""Experiments on templates that are small enough to see through: people of patterns and a linear recogniser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from toy_experiment import Projection, pairs, people

from ppfr.attacks import MappingInversion, templates_threat
from ppfr.core import SubjectKey
from ppfr.data import OpenSetProtocol
from ppfr.evaluation import Judge, TemplateArm, TemplateAttackPlan, TemplateExperiment
from ppfr.experiments.hfcf._templates import simulated_keys
from ppfr.matching import ExactMatcher
from ppfr.templates import ConstantTemplates, IdentityMapping, UnprotectedTemplates

DIM = Projection.dim


def keyless(name: str, role: str, scheme: Any, **fields: Any) -> TemplateArm:
    return TemplateArm(
        name=name,
        label=name.capitalize(),
        role=role,
        scheme=scheme,
        draw_keys=lambda num, rng: [scheme.new_key()] * num,
        **{"is_keyed": False, **fields},
    )


def unprotected(name: str = "plain", role: str = "baseline", **fields: Any) -> TemplateArm:
    matcher = lambda rows_MD, _, values: ExactMatcher(rows_MD, values=values)  # noqa: E731
    return keyless(name, role, UnprotectedTemplates(dim=DIM), matcher=matcher, **fields)


def mapped(name: str = "mapping", *, overlap: int = 0, scale: float | None = 1.0, **fields: Any) -> TemplateArm:
    scheme = IdentityMapping(dim=DIM, num_terms=3, overlap=overlap, scale=scale)
    return TemplateArm(
        name=name,
        label=name.capitalize(),
        role="protected",
        scheme=scheme,
        draw_keys=lambda num, rng: simulated_keys(scheme, num, rng),
        baseline="plain",
        **fields,
    )


def constant() -> TemplateArm:
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
        return simulated_keys(IdentityMapping(dim=DIM, num_terms=3, scale=1.0), num, rng)


def plan(arm: TemplateArm, *, knows_keys: bool = True) -> TemplateAttackPlan:
    roles: Mapping[str, str] = {"baseline": "positive control", "control": "negative control"}
    return TemplateAttackPlan(
        name=f"solve-{arm.name}-{'known' if knows_keys else 'unknown'}",
        label="Solver",
        arm=arm.name,
        make=lambda: MappingInversion(knows_keys=knows_keys, num_starts=2, max_iterations=100),
        granted=templates_threat(knows_keys=knows_keys),
        role=roles.get(arm.role, "attack"),
    )


def open_set(*, num_enrolled: int = 20, num_strangers: int = 15) -> OpenSetProtocol:
    images = people(num_enrolled + num_strangers, 3, seed=7, name="searched")
    first = np.arange(num_enrolled) * 3
    strangers = (num_enrolled + np.arange(num_strangers)) * 3
    return OpenSetProtocol(name="toy-open-set", images=images, references=first, mated=first + 1, unmated=strangers)


def template_experiment(**changes: Any) -> TemplateExperiment:
    arms = changes.pop("arms", (unprotected(), mapped(), constant()))
    settings: dict[str, Any] = {
        "name": "toy-templates",
        "title": "Toy templates",
        "command": "ppfr run toy --data /home/ada/faces",
        "seed": 3,
        "people": "synthetic",
        "recogniser": Judge(name="judge", label="Judge", embedder=Projection(5)),
        "arms": arms,
        "pairs": pairs(people(40, 3, seed=1, name="tested"), each=3),
        "open_set": open_set(),
        "attacks": [plan(arm) for arm in arms],
        "num_victims": 12,
        "num_issues": 2,
        "fmrs": (1e-1, 1e-2),
        "fars": (1e-1,),
        "fpirs": (1e-1,),
        "num_resamples": 100,
        "batch_size": 64,
    }
    return TemplateExperiment(**{**settings, **changes})
