"""The attacks of an experiment: each attack on each system, under each threat model, with controls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from ppfr import attacks
from ppfr.attacks import (
    EnrolmentAttack,
    GalleryAttack,
    IdentityRegression,
    KnownPlaintextRecovery,
    MatchedFilter,
    TrainedAttack,
    known_pair_threat,
    masked_images_threat,
)
from ppfr.core import Attack, AttackRole, ImageMasker, MaskedImages, MixedImages, RunOptions, ThreatModel
from ppfr.evaluation import GalleryAttackPlan, GalleryAttackRule, ImageAttackPlan, System
from ppfr.experiments._context import Budget
from ppfr.masking import PpfrFd, recover_shuffles, unmix
from ppfr.models import Backbone, ModelCard


def _image_attacks() -> Mapping[str, type[TrainedAttack]]:
    """Every trained attack that `ppfr.attacks` exports, by its slug. New attacks need no entry here."""
    found = [kind for kind in vars(attacks).values() if inspect.isclass(kind) and issubclass(kind, TrainedAttack)]
    return MappingProxyType({kind.slug: kind for kind in found if not inspect.isabstract(kind)})


IMAGE_ATTACKS = _image_attacks()

_MOST_FILTERED = 4


def attack_matrix(
    systems: Sequence[System],
    budget: Budget,
    *,
    teacher: Backbone,
    teacher_card: ModelCard,
    includes_unknown_secret: bool = True,
    without_signs: Collection[str] = (),
    kinds: Collection[str] = tuple(IMAGE_ATTACKS),
) -> list[ImageAttackPlan]:
    """Plan every attack on every system. Attacks on baselines and control systems are controls.

    Args:
        systems: the attacked systems. If training mixes images, the mixed images are attacked.
        budget: compute budget of the attacks.
        teacher: recogniser whose embeddings the identity-linkage attack learns to estimate.
        teacher_card: its card; also the name of the evaluation recogniser.
        includes_unknown_secret: also attack keyed maskers without their secret.
        without_signs: names of systems whose outputs have random signs, which attacks ignore.
        kinds: keys of `IMAGE_ATTACKS`: the attacks to plan.
    """
    plans = []
    for system in systems:
        assert system.masker is not None  # attacks on images need one
        sees = MixedImages if system.training is not None and system.training.mixes else MaskedImages
        for kind in (IMAGE_ATTACKS[name] for name in kinds):
            for knows_secret in (True, False) if system.is_keyed and includes_unknown_secret else (True,):
                granted = masked_images_threat(knows_secret=knows_secret, sees=sees)
                make = functools.partial(
                    _make,
                    kind,
                    budget,
                    system.masker,
                    teacher=(teacher, teacher_card),
                    granted=granted,
                    ignores_signs=system.name in without_signs,
                )
                plans.append(
                    ImageAttackPlan(
                        name=f"{kind.slug}-{system.name}{'' if knows_secret else '-unknown-secret'}",
                        label=kind.title,
                        system=system.name,
                        make=make,
                        granted=granted,
                        recogniser=teacher_card.name,
                        role=_role(system),
                        # Pictures are measured on target subjects only. Embeddings are cheap, so on all pairs as well.
                        measures_pairs=kind.estimates_embeddings,
                    )
                )
    return plans


def gallery_attacks(systems: Sequence[System], budget: Budget, *, recogniser: str) -> list[GalleryAttackPlan]:
    """Plan every attack without training on every system, with the secret. They are cheap, so they always run.

    The enrolment attack averages embeddings; on stochastic maskers a second one averages masked images. The matched
    filter needs few observations: it compares all values of a masked image with those of each candidate.

    Args:
        systems: the attacked systems. What devices send is attacked, also where training mixes images.
        budget: numbers of observations and of public faces.
        recogniser: name of the evaluation recogniser.
    """
    plans = []
    for system in systems:
        masker = system.masker
        assert masker is not None  # attacks on images need one
        few = tuple(num for num in budget.num_observations if num <= _MOST_FILTERED)
        many = budget.num_observations
        kinds: list[tuple[str, Callable[[], GalleryAttack], tuple[int, ...]]] = [
            ("matched-filter", MatchedFilter, few),
            ("ridge", functools.partial(IdentityRegression, num_faces=budget.num_ridge_faces), many),
        ]
        if system.training is not None or masker.spec.out_shape == masker.spec.in_shape:
            num_masks = min(16, many[-1])
            enrol = functools.partial(EnrolmentAttack, num_masks=num_masks)
            kinds.append(("enrolment", enrol, many))
            if masker.spec.is_stochastic:
                kinds.append(("enrolment-of-means", functools.partial(enrol, averages="masked images"), many))
        for slug, make, num_observations in kinds:
            attack = make()
            plans.append(
                GalleryAttackPlan(
                    name=f"{slug}-{system.name}",
                    label=attack.label,
                    system=system.name,
                    make=functools.partial(_make_gallery_attack, make),
                    granted=attack.needs,
                    recogniser=recogniser,
                    rule=GalleryAttackRule(min_share_of_plain=attack.min_share_of_plain),
                    role=_role(system),
                    num_observations=num_observations,
                )
            )
    return plans


def _make_gallery_attack(make: Callable[[], GalleryAttack], _options: RunOptions) -> GalleryAttack:
    return make()


def known_plaintext_plans(systems: Sequence[System], *, recogniser: str) -> list[ImageAttackPlan]:
    """Plan known-plaintext recovery on every system whose secret it can recover, and on the controls.

    Args:
        systems: any systems with maskers. A system whose secret the attack cannot express gets no plan.
        recogniser: name of the evaluation recogniser.
    """
    return [
        ImageAttackPlan(
            name=f"known-plaintext-{system.name}",
            label="Known-plaintext recovery",
            system=system.name,
            make=lambda options: KnownPlaintextRecovery(recover=recover_shuffles, unmask=unmix),
            granted=known_pair_threat(),
            recogniser=recogniser,
            role=_role(system),
            measures_pairs=False,
        )
        for system in systems
        if (isinstance(system.masker, PpfrFd) and system.is_keyed) or _role(system) != "attack"
    ]


def _role(system: System) -> AttackRole:
    roles: Mapping[str, AttackRole] = {"baseline": "positive control", "control": "negative control"}
    return roles.get(system.role, "attack")


def _make(
    kind: type[TrainedAttack],
    budget: Budget,
    masker: ImageMasker,
    options: RunOptions,
    *,
    teacher: tuple[Backbone, ModelCard],
    granted: ThreatModel,
    ignores_signs: bool,
) -> Attack:
    preset = kind.preset(budget.attack_preset)
    return kind.with_teacher(
        *teacher,
        plan=budget.plan(budget.attack_epochs or preset.epochs, warmup_steps=20, clip_norm=5.0),
        knows_secret=granted.knows_secret,
        sees=granted.sees,
        ignores_signs=ignores_signs,
        aligns_channels=masker.spec.is_keyed and not granted.knows_secret,
        run_dir=options.run_dir,
        device=options.device,
        progress=options.shows_progress,
        **preset.options,
    )
