"""The attacks of an experiment: each kind on each system, under each threat model, with the controls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from ppfr.attacks import ConditionalGan, IdentityLinkage, UNetRecovery, masked_images_threat
from ppfr.core import Attack, AttackRole, ImageMasker, RunOptions
from ppfr.evaluation import ImageAttackPlan, System
from ppfr.experiments._context import Budget
from ppfr.models import Backbone, ModelCard


def attack_matrix(
    systems: Sequence[System],
    budget: Budget,
    *,
    teacher: Backbone,
    teacher_card: ModelCard,
    tries_without_secret: bool = True,
    signless: Collection[str] = (),
) -> list[ImageAttackPlan]:
    """Every attack on every system: keyed maskers with the secret known and unknown, the others as controls.

    Args:
        systems: those attacked. Where training mixes images, its mixed images are what is attacked.
        budget: of the attackers.
        teacher: whose embeddings linkage learns to guess.
        teacher_card: its card; also the name of the evaluation recogniser.
        tries_without_secret: also attack keyed maskers without their secret.
        signless: names of systems whose signs are coins, so that attackers leave them out.
    """
    plans = []
    for system in systems:
        assert system.masker is not None  # attacks on images need one
        sees = "mixed_images" if system.training is not None and system.training.mixes else "masked_images"
        both = system.is_keyed and tries_without_secret
        for kind, label in ATTACK_LABELS.items():
            for knows_secret in (True, False) if both else (True,):
                plans.append(
                    ImageAttackPlan(
                        name=f"{kind}-{system.name}{'' if knows_secret else '-unknown-secret'}",
                        label=label,
                        system=system.name,
                        make=_maker(
                            kind,
                            budget,
                            system.masker,
                            teacher=teacher,
                            card=teacher_card,
                            knows_secret=knows_secret,
                            sees=sees,
                            ignores_signs=system.name in signless,
                        ),
                        granted=masked_images_threat(knows_secret=knows_secret, sees=sees),
                        recogniser=teacher_card.name,
                        role=_role(system),
                        # Pictures are measured on the target subjects; embeddings are cheap, so on all pairs too.
                        measures_pairs=kind == "linkage",
                    )
                )
    return plans


ATTACK_LABELS: Mapping[str, str] = MappingProxyType(
    {"unet": "U-Net recovery", "cgan": "Conditional GAN", "linkage": "Identity linkage"}
)


def _role(system: System) -> AttackRole:
    roles: Mapping[str, AttackRole] = {"baseline": "positive control", "control": "negative control"}
    return roles.get(system.role, "attack")


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
            "plan": budget.plan(budget.attack_epochs[kind], warmup_steps=20, clip_norm=5.0),
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
