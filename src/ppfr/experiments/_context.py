"""Context of an experiment, compute budgets of the presets, simulated deployments and evaluation recognisers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ppfr.core import InvalidInputError, RunOptions, choose_device, derive_seed
from ppfr.evaluation import EvaluationRecogniser, provenance_of
from ppfr.masking import SECRET_BYTES
from ppfr.models import Backbone, ModelCard, NetworkEmbedder, for_inference
from ppfr.training import Plan

PRESETS = ("fast-test", "laptop", "paper")
AnyBudget = TypeVar("AnyBudget")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentContext:
    """What an experiment is told: where things are and how large to be; no figure depends on the directories.

    Attributes:
        preset: one of `PRESETS`.
        seed: root of every draw.
        options: where and on what it runs.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        command: the command line that runs this, for the report.
    """

    preset: str
    seed: int
    options: RunOptions
    data: Path | None = None
    weights: Path | None = None
    command: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of everything a preset spends; the same for every system, and for an attack on every system.

    Attributes:
        epochs: of the recogniser's training.
        attack_preset: size of every attack, a key of `TrainedAttack.sizes`.
        attack_epochs: of every attack, in place of its preset's; None for the preset's own.
        num_targets: people attacked.
        num_resamples: behind each interval.
        batch_size: of every training.
        max_steps: cuts every training short ("fast-test" alone).
        precision: of every training.
    """

    epochs: int
    attack_preset: str
    num_targets: int
    attack_epochs: int | None = None
    num_resamples: int = 1000
    batch_size: int = 64
    max_steps: int | None = None
    precision: str = "32-true"

    def plan(self, epochs: int, **options: Any) -> Plan:
        """A training of so many epochs within this budget."""
        return Plan(
            epochs=epochs,
            batch_size=self.batch_size,
            max_steps=self.max_steps,
            precision=self.precision,
            checkpoint_every_steps=100,
            **options,
        )


LAPTOP_BUDGET = Budget(
    epochs=3,
    attack_preset="laptop",
    num_targets=500,
    precision="bf16-mixed",  # twice the images a second where the processor has it, in training and attack
)
FAST_BUDGET = Budget(
    epochs=1,
    attack_preset="fast-test",
    num_targets=20,
    num_resamples=100,
    batch_size=16,
    max_steps=4,
)


def budget_of(budgets: Mapping[str, AnyBudget], preset: str) -> AnyBudget:
    """The budget of a preset.

    Raises:
        InvalidInputError: unknown preset.
    """
    if preset not in budgets:
        raise InvalidInputError(f"no preset is named {preset!r}; there are {', '.join(budgets)}")
    return budgets[preset]


def simulated_secret(context: ExperimentContext) -> bytes:
    """The secret of a simulated deployment: it comes from the seed, so that the run can be repeated."""
    rng = torch.Generator().manual_seed(derive_seed(context.seed, "deployment", "secret"))
    return bytes(torch.randint(0, 256, (SECRET_BYTES,), generator=rng).tolist())


def recogniser_of(context: ExperimentContext, network: Backbone, card: ModelCard) -> EvaluationRecogniser:
    """A recogniser of plain faces as evaluation recogniser."""
    return EvaluationRecogniser(
        name=card.name,
        label=card.name,
        embedder=NetworkEmbedder(for_inference(network).to(choose_device(context.options.device))),
        provenance=[provenance_of(card, used_as="evaluation recogniser and the linkage attack's teacher")],
    )
