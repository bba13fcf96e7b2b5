"""The attacks of a recipe: each kind on each arm, under each threat model, with the controls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from ppfr.attacks import ConditionalGan, IdentityLinkage, UNetRecovery, masked_images_threat
from ppfr.core import Attack, ImageMasker
from ppfr.evaluation import Arm, AttackPlan, RunOptions
from ppfr.experiments._context import Budget
from ppfr.models import Backbone, ModelCard


def attack_matrix(
    arms: Sequence[Arm],
    budget: Budget,
    *,
    teacher: Backbone,
    teacher_card: ModelCard,
    tries_without_secret: bool = True,
    signless: Collection[str] = (),
) -> list[AttackPlan]:
    """Every attack on every arm: keyed maskers with the secret known and unknown, the others as controls.

    Args:
        arms: those attacked. Where training mixes images, its mixed images are what is attacked.
        budget: of the attackers.
        teacher: whose embeddings linkage learns to guess.
        teacher_card: its card; also the name of the judge.
        tries_without_secret: also attack keyed maskers without their secret.
        signless: names of arms whose signs are coins, so that attackers leave them out.
    """
    plans = []
    for arm in arms:
        sees = "mixed_images" if arm.training is not None and arm.training.mixes else "masked_images"
        for kind, label in ATTACK_LABELS.items():
            for knows_secret in (True, False) if arm.masker.spec.is_keyed and tries_without_secret else (True,):
                plans.append(
                    AttackPlan(
                        name=f"{kind}-{arm.name}{'' if knows_secret else '-unknown-secret'}",
                        label=label,
                        arm=arm.name,
                        make=_maker(
                            kind,
                            budget,
                            arm.masker,
                            teacher=teacher,
                            card=teacher_card,
                            knows_secret=knows_secret,
                            sees=sees,
                            ignores_signs=arm.name in signless,
                        ),
                        granted=masked_images_threat(knows_secret=knows_secret, sees=sees),
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
    kind: str,
    budget: Budget,
    masker: ImageMasker,
    *,
    teacher: Backbone,
    card: ModelCard,
    knows_secret: bool,
    sees: str,
    ignores_signs: bool,
) -> Callable[[RunOptions], Attack]:
    def make(options: RunOptions) -> Attack:
        shared = {
            "plan": budget.plan(budget.attack_passes[kind], warmup_steps=20, clip_norm=5.0),
            "knows_secret": knows_secret,
            "sees": sees,
            "ignores_signs": ignores_signs,
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
