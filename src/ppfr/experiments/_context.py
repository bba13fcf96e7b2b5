"""Context of an experiment, compute budgets of the presets, simulated deployments and evaluation recognisers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ppfr.core import InvalidInputError, RunOptions, choose_device, derive_seed
from ppfr.evaluation import EvaluationRecogniser, provenance_of
from ppfr.masking import draw_secret
from ppfr.models import Backbone, ModelCard, NetworkEmbedder, for_inference
from ppfr.training import Plan

PRESETS = ("fast-test", "laptop", "paper")
AnyBudget = TypeVar("AnyBudget")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentContext:
    """Arguments of an experiment. No figure depends on the directories.

    Attributes:
        preset: one of `PRESETS`.
        seed: seeds every random draw.
        options: run directory, device and progress.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        command: the command line that runs the experiment, for the report.
    """

    preset: str
    seed: int
    options: RunOptions
    data: Path | None = None
    weights: Path | None = None
    command: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Compute budget of a preset, equal for all systems and for the attacks on them.

    Attributes:
        epochs: epochs of each recogniser.
        attack_preset: size of each attack, a key of `TrainedAttack.sizes`.
        attack_epochs: epochs of each attack; None for those of `attack_preset`.
        num_observations: numbers of observations that attacks without training average.
        num_ridge_faces: public faces of the ridge regression.
        num_targets: number of target subjects.
        num_resamples: bootstrap resamples per interval.
        batch_size: batch size of every training.
        max_steps: maximum number of steps of every training (only in "fast-test").
        num_pairs: pairs of each protocol of real faces that are evaluated (only in "fast-test"); None for all.
        precision: precision of every training.
    """

    epochs: int
    attack_preset: str
    num_targets: int
    attack_epochs: int | None = None
    num_observations: tuple[int, ...] = (1, 4, 16, 64)
    num_ridge_faces: int = 1024
    num_resamples: int = 1000
    batch_size: int = 64
    max_steps: int | None = None
    num_pairs: int | None = None
    precision: str = "32-true"

    def plan(self, epochs: int, **options: Any) -> Plan:
        """The plan of a training with that number of epochs within this budget."""
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
    precision="bf16-mixed",  # doubles the images per second of training and attacks on processors that support it
)
FAST_BUDGET = Budget(
    epochs=1,
    attack_preset="fast-test",
    num_observations=(1, 4),
    num_ridge_faces=64,
    num_targets=20,
    num_resamples=100,
    batch_size=16,
    max_steps=4,
    num_pairs=300,
)


def budget_of(budgets: Mapping[str, AnyBudget], preset: str) -> AnyBudget:
    """The budget of a preset.

    Raises:
        InvalidInputError: unknown preset.
    """
    if preset not in budgets:
        raise InvalidInputError(f"unknown preset {preset!r}; available: {', '.join(budgets)}")
    return budgets[preset]


def simulated_secret(context: ExperimentContext) -> bytes:
    """The secret of a simulated deployment. It is derived from the seed, so that the run can be repeated."""
    rng = torch.Generator().manual_seed(derive_seed(context.seed, "deployment", "secret"))
    return draw_secret(rng=rng)


def recogniser_of(context: ExperimentContext, network: Backbone, card: ModelCard) -> EvaluationRecogniser:
    """An evaluation recogniser from a network of plain faces."""
    return EvaluationRecogniser(
        name=card.name,
        label=card.name,
        embedder=NetworkEmbedder(for_inference(network).to(choose_device(context.options.device))),
        provenance=[provenance_of(card, used_as="evaluation recogniser and the linkage attack's teacher")],
    )
