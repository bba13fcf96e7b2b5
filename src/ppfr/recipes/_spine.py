"""The spine: a protection and the unprotected baseline, attacked three ways, on real and on synthetic faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ppfr.assets import data_root
from ppfr.attacks import ConditionalGan, IdentityLinkage, UNetRecovery, masked_images_threat
from ppfr.benchmark import Arm, AttackPlan, Experiment, Judge, Knowledge, RunOptions, Victims
from ppfr.core import Attack, ImageMasker, ImageSet, InvalidInputError, choose_device, derive_seed
from ppfr.data import (
    PairProtocol,
    StoredImageSet,
    SyntheticFaces,
    read_cfp,
    read_lfw,
    training_split_for_cfp,
    training_split_for_lfw,
)
from ppfr.masking import Constant, PpfrFd, Unprotected
from ppfr.models import Backbone, Lpips, ModelCard, NetworkEmbedder, for_inference, load_pretrained
from ppfr.recipes._arms import ArmByWay
from ppfr.recipes._catalogue import SYNTHETIC_SEED, synthetic_protocol
from ppfr.recipes._ways import Adapt, FitOptions, FromScratch, Way
from ppfr.training import OptimiserSettings, Plan

PRESETS = ("fast-test", "laptop", "paper")
ADAPTED, JUDGE = "mobilefacenet-y1", "mobilefacenet-casia"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeContext:
    """What a recipe is told: where things are and how large to be; no figure depends on the directories.

    Attributes:
        preset: one of `PRESETS`.
        out_dir: the run's directory.
        seed: root of every draw.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        resumes: take up what lies in `out_dir`.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        command: the command line that runs this, for the report.
    """

    preset: str
    out_dir: Path
    seed: int
    device: str = "auto"
    resumes: bool = False
    data: Path | None = None
    weights: Path | None = None
    command: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of everything a preset spends; the same for every arm, and for an attack on every arm.

    Attributes:
        passes: of the recogniser's training.
        attack_passes: by attack.
        attack_options: by attack: widths and depths of its networks.
        num_victims: people attacked.
        num_resamples: behind each interval.
        batch_size: of every training.
        max_steps: cuts every training short ("fast-test" alone).
        precision: of every training.
    """

    passes: int
    attack_passes: Mapping[str, int]
    attack_options: Mapping[str, Mapping[str, Any]]
    num_victims: int
    num_resamples: int = 1000
    batch_size: int = 64
    max_steps: int | None = None
    precision: str = "32-true"

    def plan(self, passes: int, **options: Any) -> Plan:
        """A training of so many passes within this budget."""
        return Plan(
            passes=passes,
            batch_size=self.batch_size,
            max_steps=self.max_steps,
            precision=self.precision,
            checkpoint_every_steps=100,
            **options,
        )


_WIDE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "unet": {"width": 64, "max_width": 1024, "num_blocks": 2, "num_fine_blocks": 1},
        "cgan": {"width": 64, "max_width": 512, "discriminator_width": 64},
        "linkage": {"stem_width": 128, "stem_depth": 6},
    }
)
_FAST = Budget(
    passes=1,
    attack_passes={"unet": 1, "cgan": 1, "linkage": 1},
    attack_options={
        "unet": {"width": 8, "max_width": 32, "num_deployments": 1},
        "cgan": {"width": 8, "max_width": 32, "discriminator_width": 8, "num_deployments": 1},
        "linkage": {"stem_width": 16, "stem_depth": 1, "num_deployments": 1},
    },
    num_victims=20,
    num_resamples=100,
    batch_size=16,
    max_steps=4,
)
REAL_BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": _FAST,
        "laptop": Budget(
            passes=3,
            attack_passes={"unet": 2, "cgan": 2, "linkage": 2},
            attack_options={"unet": {}, "cgan": {}, "linkage": {"stem_depth": 2}},
            num_victims=500,
        ),
        "paper": Budget(
            passes=24,
            attack_passes={"unet": 50, "cgan": 50, "linkage": 24},
            attack_options=_WIDE,
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
    budget = _budget(REAL_BUDGETS, context.preset)
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
        "fast-test": _FAST,
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
            attack_options=_WIDE,
            num_victims=1000,
        ),
    }
)
# People are ranges of numbers: recognisers, attackers and judge train on people of their own, tests on others again.
_DEMO_PEOPLE: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"fast-test": (20, 4, 100), "laptop": (240, 12, 1000), "paper": (10_000, 50, 6000)}
)
_ATTACKERS_FROM, _JUDGE_FROM = 300_000, 600_000
_MOST_CACHED = 20_000  # 750 MB


def demo(context: RecipeContext) -> Experiment:
    """The same loop on synthetic faces, from scratch: no data, no weights. Its figures say nothing about real faces."""
    budget = _budget(DEMO_BUDGETS, context.preset)
    subjects, images_each, num_pairs = _DEMO_PEOPLE[context.preset]
    way = FromScratch(
        plan=budget.plan(budget.passes, warmup_steps=20, clip_norm=5.0),
        network="mobilefacenet-small",
        head="cosface",
        scale=32.0,
        margin=0.2,
        optimiser=OptimiserSettings(optimiser="adamw", lr=4e-3, weight_decay=1e-2),
    )

    def people(first: int, share: float = 1.0) -> StoredImageSet:
        faces = SyntheticFaces(round(subjects * share), images_each, seed=SYNTHETIC_SEED, first_subject=first)
        # Drawing a face takes as long as training on it; what fits in memory is drawn once.
        return faces.cached() if len(faces) <= _MOST_CACHED else faces

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
        judge=_demo_judge(context, way, people(_JUDGE_FROM)),
        protocols=[synthetic_protocol(num_pairs=num_pairs)],
        images=people(0),
        public=people(_ATTACKERS_FROM, 0.5),
        lpips=None,
    )


def _demo_judge(context: RecipeContext, way: Way, images: ImageSet) -> tuple[Backbone, ModelCard]:
    """A recogniser of plain synthetic faces, trained on people of its own: there is no public one."""
    run_dir = context.out_dir / "judge"
    options = FitOptions(run_dir=run_dir, device=context.device, resumes=context.resumes)
    system, _ = way.train(Unprotected(), images, seed=derive_seed(context.seed, "judge"), options=options)
    return system.network, dataclasses.replace(system.card, name="synthetic-judge")


def _budget(budgets: Mapping[str, Budget], preset: str) -> Budget:
    if preset not in budgets:
        raise InvalidInputError(f"no preset is named {preset!r}; there are {', '.join(budgets)}")
    return budgets[preset]


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
    secret_rng = torch.Generator().manual_seed(derive_seed(context.seed, "deployment", "secret"))
    placeholder = PpfrFd(secret=bytes(32))
    training = ArmByWay(way)
    arms = [
        Arm(name="unprotected", label="Unprotected", role="baseline", masker=Unprotected(), training=training),
        Arm(
            name="ppfr-fd",
            label="PPFR-FD",
            role="protected",
            # A simulated deployment: its secret comes from the seed, so that the run can be repeated.
            masker=placeholder.with_new_secret(rng=secret_rng),
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
        judges=[
            Judge(
                name=card.name,
                label=card.name,
                embedder=NetworkEmbedder(for_inference(network).to(choose_device(context.device))),
                knowledge=[Knowledge.of_card(card, used_as="judge and the linkage attack's teacher")],
            )
        ],
        attacks=attack_matrix(arms, budget, teacher=network, teacher_card=card),
        public_images=public,
        victims=Victims(num_subjects=budget.num_victims),
        num_resamples=budget.num_resamples,
        **fields,
    )


def attack_matrix(
    arms: Sequence[Arm], budget: Budget, *, teacher: Backbone, teacher_card: ModelCard
) -> list[AttackPlan]:
    """Every attack on every arm: keyed maskers with the secret known and unknown, the others as controls."""
    plans = []
    for arm in arms:
        for kind, label in ATTACK_LABELS.items():
            for knows_secret in (True, False) if arm.masker.spec.is_keyed else (True,):
                plans.append(
                    AttackPlan(
                        name=f"{kind}-{arm.name}{'' if knows_secret else '-unknown-secret'}",
                        label=label,
                        arm=arm.name,
                        make=_maker(
                            kind, budget, arm.masker, knows_secret=knows_secret, teacher=teacher, card=teacher_card
                        ),
                        granted=masked_images_threat(knows_secret=knows_secret),
                        judge=teacher_card.name,
                        role=_role(arm),
                        # A recovered picture is judged on the victims; embeddings are cheap, so on all pairs too.
                        measures_pairs=kind == "linkage",
                    )
                )
    return plans


ATTACK_LABELS: Mapping[str, str] = MappingProxyType(
    {"unet": "U-Net recovery", "cgan": "Conditional GAN", "linkage": "Identity linkage"}
)


def _role(arm: Arm) -> str:
    return {"baseline": "positive control", "control": "negative control"}.get(arm.role, "attack")


def _maker(
    kind: str, budget: Budget, masker: ImageMasker, *, knows_secret: bool, teacher: Backbone, card: ModelCard
) -> Callable[[RunOptions], Attack]:
    def make(options: RunOptions) -> Attack:
        shared = {
            "plan": budget.plan(budget.attack_passes[kind], warmup_steps=20, clip_norm=5.0),
            "knows_secret": knows_secret,
            "aligns_channels": masker.spec.is_keyed and not knows_secret,
            "run_dir": options.run_dir,
            "device": options.device,
            "progress": options.shows_progress,
            **budget.attack_options[kind],
        }
        if kind == "unet":
            return UNetRecovery(**shared)
        if kind == "cgan":
            return ConditionalGan(**shared)
        return IdentityLinkage(teacher, teacher_card=card, **shared)

    return make
