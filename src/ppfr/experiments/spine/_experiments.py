"""The spine: a protection and the unprotected baseline, attacked three ways, on real and on synthetic faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import filelock

from ppfr.assets import data_root
from ppfr.core import ImageSet, derive_seed
from ppfr.data import PairProtocol, StoredImageSet, read_cfp, read_lfw, training_split_for_cfp, training_split_for_lfw
from ppfr.evaluation import Arm, Experiment, Victims
from ppfr.experiments._arms import ArmByWay
from ppfr.experiments._attack_plans import attack_matrix
from ppfr.experiments._context import (
    FAST_BUDGET,
    LAPTOP_BUDGET,
    WIDE_ATTACKERS,
    Budget,
    RecipeContext,
    budget_of,
    judge_of,
    simulated_secret,
)
from ppfr.masking import Constant, PpfrFd, Unprotected
from ppfr.models import Backbone, Lpips, ModelCard, load_pretrained
from ppfr.synthetic import SyntheticFaces
from ppfr.systems._catalogue import SYNTHETIC_SEED, synthetic_protocol
from ppfr.systems._strategies import Adapt, FitOptions, FromScratch, Way
from ppfr.training import OptimiserSettings

ADAPTED, JUDGE = "mobilefacenet-y1", "mobilefacenet-casia"


REAL_BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": FAST_BUDGET,
        "laptop": dataclasses.replace(LAPTOP_BUDGET, precision="32-true"),
        "paper": Budget(
            passes=24,
            attack_passes={"unet": 50, "cgan": 50, "linkage": 24},
            attack_options=WIDE_ATTACKERS,
            num_victims=1500,
        ),
    }
)


def lfw(context: RecipeContext) -> Experiment:
    """LFW's 6,000 pairs; everything is trained on people who are in none of them."""
    root = data_root(context.data)
    protocol, images = read_lfw(root), training_split_for_lfw(root)
    return _real(context, name="spine:lfw", title="PPFR-FD on LFW", protocols=[protocol], images=images)


def cfp(context: RecipeContext) -> Experiment:
    """CFP frontal-frontal and frontal-profile; everything is trained on LFW less the people of CFP."""
    root = data_root(context.data)
    protocols, images = [read_cfp(root, "FF"), read_cfp(root, "FP")], training_split_for_cfp(root)
    return _real(context, name="spine:cfp", title="PPFR-FD on CFP", protocols=protocols, images=images)


def _real(
    context: RecipeContext, *, name: str, title: str, protocols: Sequence[PairProtocol], images: ImageSet
) -> Experiment:
    budget = budget_of(REAL_BUDGETS, context.preset)
    way = Adapt(
        plan=budget.plan(budget.passes, warmup_steps=50, clip_norm=5.0), teacher=ADAPTED, weights=context.weights
    )
    network, card = load_pretrained(JUDGE, weights_dir=context.weights)
    return _experiment(
        context,
        budget,
        name=name,
        title=title,
        summary=(
            f"{ADAPTED}, adapted to masked faces in {budget.passes} passes over {len(images)} images; unprotected and "
            f"PPFR-FD in the same way and with the same budget. Attackers train on the same public images."
        ),
        people="real",
        way=way,
        judge=(network, card),
        protocols=protocols,
        images=images,
        public=images,
        lpips=Lpips.from_weights(weights_dir=context.weights).distance,
    )


DEMO_BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": FAST_BUDGET,
        "laptop": Budget(
            passes=4,
            attack_passes={"unet": 1, "cgan": 1, "linkage": 3},
            attack_options={"unet": {}, "cgan": {}, "linkage": {"stem_width": 48, "stem_depth": 1}},
            num_victims=100,
            num_resamples=500,
        ),
        "paper": Budget(
            passes=40,
            attack_passes={"unet": 40, "cgan": 40, "linkage": 40},
            attack_options=WIDE_ATTACKERS,
            num_victims=1000,
        ),
    }
)
# People are ranges of numbers: recognisers, attackers and judge train on people of their own, tests on others again.
_DEMO_PEOPLE: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"fast-test": (20, 4, 100), "laptop": (240, 12, 1000), "paper": (10_000, 50, 6000)}
)
ATTACKERS_FROM, JUDGE_FROM = 300_000, 600_000
_MOST_CACHED = 20_000  # 750 MB


def demo(context: RecipeContext) -> Experiment:
    """The same loop on synthetic faces, from scratch: no data, no weights. Its figures say nothing about real faces."""
    budget = budget_of(DEMO_BUDGETS, context.preset)
    subjects, images_each, num_pairs = _DEMO_PEOPLE[context.preset]
    way = FromScratch(
        plan=budget.plan(budget.passes, warmup_steps=20, clip_norm=5.0),
        network="mobilefacenet-small",
        head="cosface",
        scale=32.0,
        margin=0.2,
        optimiser=OptimiserSettings(optimiser="adamw", lr=4e-3, weight_decay=1e-2),
    )

    return _experiment(
        context,
        budget,
        name="spine:demo",
        title="PPFR-FD on synthetic faces",
        summary=(
            f"Small networks trained from scratch on {subjects} synthetic people. It shows the loop; its figures say "
            "nothing about real faces."
        ),
        people="synthetic",
        way=way,
        judge=synthetic_judge(context, way, synthetic_people(subjects, images_each, first=JUDGE_FROM)),
        protocols=[synthetic_protocol(num_pairs=num_pairs)],
        images=synthetic_people(subjects, images_each, first=0),
        public=synthetic_people(subjects // 2, images_each, first=ATTACKERS_FROM),
        lpips=None,
    )


def synthetic_people(num_subjects: int, images_each: int, *, first: int) -> StoredImageSet:
    """So many synthetic people from number `first` on."""
    faces = SyntheticFaces(num_subjects, images_each, seed=SYNTHETIC_SEED, first_subject=first)
    # Drawing a face takes as long as training on it; what fits in memory is drawn once.
    return faces.cached() if len(faces) <= _MOST_CACHED else faces


def synthetic_judge(context: RecipeContext, way: Way, images: ImageSet) -> tuple[Backbone, ModelCard]:
    """A recogniser of plain synthetic faces, trained on people of its own: there is no public one."""
    run_dir = context.out_dir / "judge"
    options = FitOptions(run_dir=run_dir, device=context.device, resumes=context.resumes)
    context.out_dir.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(context.out_dir / "judge.lock"):  # whoever works on this run too waits, and loads it
        system, _ = way.train(Unprotected(), images, seed=derive_seed(context.seed, "judge"), options=options)
    return system.network, dataclasses.replace(system.card, name="synthetic-judge")


def _experiment(
    context: RecipeContext,
    budget: Budget,
    *,
    way: Way,
    judge: tuple[Backbone, ModelCard],
    images: ImageSet,
    public: ImageSet,
    **fields: Any,
) -> Experiment:
    secret = simulated_secret(context)
    training = ArmByWay(way, secret=secret)
    arms = [
        Arm(name="unprotected", label="Unprotected", role="baseline", masker=Unprotected(), training=training),
        Arm(
            name="ppfr-fd",
            label="PPFR-FD",
            role="protected",
            masker=PpfrFd(secret=secret),
            training=training,
            baseline="unprotected",
        ),
        Arm(name="constant", label="Constant", role="control", masker=Constant()),
    ]
    network, card = judge
    return Experiment(
        preset=context.preset,
        command=context.command,
        seed=context.seed,
        arms=arms,
        training_images=images,
        judges=[judge_of(context, network, card)],
        attacks=attack_matrix(arms, budget, teacher=network, teacher_card=card),
        public_images=public,
        victims=Victims(num_subjects=budget.num_victims),
        num_resamples=budget.num_resamples,
        **fields,
    )
