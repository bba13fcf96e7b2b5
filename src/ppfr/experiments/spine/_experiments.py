"""The spine experiments: PPFR-FD and the unprotected baseline under three attacks, on real and synthetic faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import filelock
import numpy as np

from ppfr.assets import data_root
from ppfr.core import ImageSet, derive_seed
from ppfr.data import PairProtocol, StoredImageSet, read_cfp, read_lfw, training_split_for_cfp, training_split_for_lfw
from ppfr.evaluation import Experiment, System
from ppfr.experiments._attack_plans import attack_matrix, gallery_attacks, known_plaintext_plans
from ppfr.experiments._context import (
    FAST_BUDGET,
    LAPTOP_BUDGET,
    Budget,
    ExperimentContext,
    budget_of,
    recogniser_of,
    simulated_secret,
)
from ppfr.experiments._measures import image_measures
from ppfr.experiments._training import StrategyTraining
from ppfr.masking import Constant, PpfrFd, Unprotected
from ppfr.models import Backbone, Lpips, ModelCard, load_pretrained
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import SYNTHETIC_SEED, FineTuning, FromScratch, TrainingStrategy, synthetic_protocol
from ppfr.training import OptimizerSettings

TEACHER, RECOGNISER = "mobilefacenet-y1", "mobilefacenet-casia"


REAL_BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": FAST_BUDGET,
        "laptop": dataclasses.replace(LAPTOP_BUDGET, precision="32-true"),
        "paper": Budget(
            epochs=24,
            attack_preset="paper-long",
            num_targets=1500,
        ),
    }
)


def lfw(context: ExperimentContext) -> Experiment:
    """The 6,000 pairs of LFW. Everything is trained on people who are in none of these pairs."""
    root = data_root(context.data)
    protocol, images = read_lfw(root), training_split_for_lfw(root)
    return _real(context, name="spine:lfw", title="PPFR-FD on LFW", protocols=[protocol], images=images)


def cfp(context: ExperimentContext) -> Experiment:
    """CFP frontal-frontal and frontal-profile. Everything is trained on LFW without the people of CFP."""
    root = data_root(context.data)
    protocols, images = [read_cfp(root, "FF"), read_cfp(root, "FP")], training_split_for_cfp(root)
    return _real(context, name="spine:cfp", title="PPFR-FD on CFP", protocols=protocols, images=images)


def _real(
    context: ExperimentContext, *, name: str, title: str, protocols: Sequence[PairProtocol], images: ImageSet
) -> Experiment:
    budget = budget_of(REAL_BUDGETS, context.preset)
    strategy = FineTuning(
        plan=budget.plan(budget.epochs, warmup_steps=50, clip_norm=5.0), teacher=TEACHER, weights=context.weights
    )
    if budget.num_pairs is not None:
        protocols = [protocol.sample(budget.num_pairs, seed=context.seed) for protocol in protocols]
    network, card = load_pretrained(RECOGNISER, weights_dir=context.weights)
    return _experiment(
        context,
        budget,
        name=name,
        title=title,
        summary=(
            f"{TEACHER}, fine-tuned on masked faces for {budget.epochs} epochs over {len(images)} images, with the "
            "same strategy and compute budget for the baseline and PPFR-FD. Attackers train on the same images."
        ),
        people="real",
        strategy=strategy,
        recogniser=(network, card),
        protocols=protocols,
        images=images,
        public=images,
        lpips=Lpips.from_weights(weights_dir=context.weights).distance,
    )


DEMO_BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": FAST_BUDGET,
        "laptop": Budget(
            epochs=4,
            attack_preset="demo",
            num_targets=100,
            num_resamples=500,
        ),
        "paper": Budget(
            epochs=40,
            attack_preset="paper-synthetic",
            num_targets=1000,
        ),
    }
)
# Synthetic people are ranges of numbers. Recognisers, attackers, the evaluation recogniser and the protocols use
# different ranges.
_DEMO_PEOPLE: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"fast-test": (20, 4, 100), "laptop": (240, 12, 1000), "paper": (10_000, 50, 6000)}
)
ATTACKERS_FROM, RECOGNISER_FROM = 300_000, 600_000
_MOST_CACHED = 20_000  # 750 MB


def demo(context: ExperimentContext) -> Experiment:
    """Synthetic faces, from scratch, without data or weights. The figures say nothing about real faces."""
    budget = budget_of(DEMO_BUDGETS, context.preset)
    subjects, images_each, num_pairs = _DEMO_PEOPLE[context.preset]
    strategy = FromScratch(
        plan=budget.plan(budget.epochs, warmup_steps=20, clip_norm=5.0),
        network="mobilefacenet-small",
        head="cosface",
        scale=32.0,
        margin=0.2,
        optimizer=OptimizerSettings(optimizer="adamw", lr=4e-3, weight_decay=1e-2),
    )

    return _experiment(
        context,
        budget,
        name="spine:demo",
        title="PPFR-FD on synthetic faces",
        summary=(
            f"Small networks trained from scratch on {subjects} synthetic people. It demonstrates the procedure. The "
            "figures say nothing about real faces."
        ),
        people="synthetic",
        strategy=strategy,
        recogniser=synthetic_recogniser(
            context, strategy, synthetic_people(subjects, images_each, first=RECOGNISER_FROM)
        ),
        protocols=[synthetic_protocol(num_pairs=num_pairs)],
        images=synthetic_people(subjects, images_each, first=0),
        public=synthetic_people(subjects // 2, images_each, first=ATTACKERS_FROM),
        lpips=None,
    )


def synthetic_people(num_subjects: int, images_each: int, *, first: int) -> StoredImageSet:
    """Synthetic people with numbers from `first` on."""
    faces = SyntheticFaces(num_subjects, images_each, seed=SYNTHETIC_SEED, first_subject=first)
    # Rendering a face takes as long as training on it, so image sets that fit in memory are rendered once.
    return faces.cached() if len(faces) <= _MOST_CACHED else faces


def synthetic_recogniser(
    context: ExperimentContext, strategy: TrainingStrategy, images: ImageSet
) -> tuple[Backbone, ModelCard]:
    """A recogniser of plain synthetic faces, trained on people that nothing else uses."""
    folder = context.options.directory
    options = dataclasses.replace(context.options, run_dir=folder / "recogniser", num_devices=1)
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "recogniser.lock"):  # other processes of this run wait, and then load it
        system, _ = strategy.train(Unprotected(), images, seed=derive_seed(context.seed, "judge"), options=options)
    return system.network, dataclasses.replace(system.card, name="synthetic-judge")


def _experiment(
    context: ExperimentContext,
    budget: Budget,
    *,
    strategy: TrainingStrategy,
    recogniser: tuple[Backbone, ModelCard],
    images: ImageSet,
    public: ImageSet,
    protocols: Sequence[PairProtocol],
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    **fields: Any,
) -> Experiment:
    secret = simulated_secret(context)
    training = StrategyTraining(strategy, secret=secret)
    systems = [
        System(name="unprotected", label="Unprotected", role="baseline", masker=Unprotected(), training=training),
        System(
            name="ppfr-fd",
            label="PPFR-FD",
            role="protected",
            masker=PpfrFd(secret=secret),
            training=training,
            baseline="unprotected",
        ),
        System(name="constant", label="Constant", role="control", masker=Constant()),
    ]
    network, card = recogniser
    return Experiment(
        preset=context.preset,
        command=context.command,
        seed=context.seed,
        systems=systems,
        measures=image_measures(
            protocols,
            plans=[
                *attack_matrix(systems, budget, teacher=network, teacher_card=card),
                *known_plaintext_plans(systems, recogniser=card.name),
            ],
            gallery_plans=gallery_attacks(systems, budget, recogniser=card.name),
            public=public,
            num_targets=budget.num_targets,
            lpips=lpips,
        ),
        recognisers=[recogniser_of(context, network, card)],
        training_images=images,
        num_resamples=budget.num_resamples,
        **fields,
    )
