"""Attacks without training: whom does a look-up in a gallery of plain photos find, from one observation and from many?

Suffixes: N target subjects, M gallery, C H W image, K P Q masked image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch

from ppfr.attacks import GalleryAttack, Knowledge
from ppfr.core import AttackRole, Embedder, ImageSet, MaskedImages, result_row
from ppfr.evaluation._attack_plan import NO_SECRET, AttackPlan, ControlRule, plan_problems, secret_of
from ppfr.evaluation._embedding import read_images
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation.measures._attack_run import AttackRunRow
from ppfr.evaluation.measures._image_targets import (
    ChosenTargets,
    Targets,
    choose_targets,
    eligible,
    target_problems,
    target_protocol,
)
from ppfr.evaluation.measures._training import training_stage, training_stage_name
from ppfr.metrics import Estimate, chance_rate, mean_with_interval, rank_k

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

Source = Literal["one image", "images of the person"]
"""What n observations are: n masks of one image, or the masks of n images of the person."""

_AT_ONCE = 32
_FEWEST_SUBJECTS = 10


@result_row("gallery_attack")
class GalleryAttackRow:
    """Target subjects that an attack without training finds in a gallery of plain photos.

    Attributes:
        attack: its name.
        level: strength of the attack.
        photo: which photo of each person the gallery holds: "another photo", or the "same photo" that was masked.
        source: what several observations are: masks of "one image", or of different "images of the person".
        num_observations: n, observations of each target subject that are averaged.
        gallery_size: people in the gallery.
        rank_1: share of target subjects found at rank 1; `n` is their number.
        rank_5: found among the first five.
        auc: share of pairs of a mated and a non-mated gallery photo of which the mated one scores higher.
        chance_rank_1: chance level.
        chance_rank_5: chance level.
        plain_rank_1: upper bound: one plain image in place of the observations, with the deployed recogniser if the
            attack uses it and it takes plain images, otherwise with the evaluation recogniser.
        plain_rank_5: upper bound.
    """

    attack: str
    level: str
    photo: str
    source: Source
    num_observations: int
    gallery_size: int
    rank_1: Estimate
    rank_5: Estimate
    auc: Estimate
    chance_rank_1: float
    chance_rank_5: float
    plain_rank_1: Estimate
    plain_rank_5: Estimate


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GalleryAttackRule(ControlRule):
    """When a control counts as passed, from one observation.

    Attributes:
        min_share_of_plain: a positive control re-identifies at least this share of the subjects that plain images
            re-identify, and more than chance by the lower end of the interval.
    """

    min_share_of_plain: float = 0.95

    def win_in_words(self) -> str:
        """What a positive control must show."""
        share = f", and at least {100 * self.min_share_of_plain:g} % of those that plain images do"
        return f"re-identifies more target subjects than chance{share if self.min_share_of_plain else ''}"

    def chance_in_words(self) -> str:
        """What a negative control must show."""
        return "re-identifies no more target subjects than chance (lower end of the interval)"

    def is_met(self, role: AttackRole, row: GalleryAttackRow) -> bool | None:
        """Whether a control passed; None for an attack."""
        is_above_chance = row.rank_1.low > row.chance_rank_1
        if role == "positive control":
            return bool(is_above_chance and row.rank_1.value >= self.min_share_of_plain * row.plain_rank_1.value)
        return not is_above_chance if role == "negative control" else None


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GalleryAttackPlan(AttackPlan):
    """One attack without training on one system.

    Attributes:
        num_observations: numbers n of observations of each target subject, ascending and starting with 1. Systems that
            are not stochastic have only one mask of an image; of n images of a person each is an observation.
    """

    rule: GalleryAttackRule = dataclasses.field(default_factory=GalleryAttackRule)
    num_observations: Sequence[int] = (1, 4, 16, 64)

    def extra_config(self) -> Mapping[str, Any]:
        """The numbers of observations."""
        return {"num_observations": list(self.num_observations)}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryAttacks(Measure):
    """Whom does an adversary re-identify who trains nothing?

    The attacks on one system see the same observations. The recogniser of a system without training is its evaluation
    recogniser, where that takes the masked images.

    Args:
        plans: the attacks.
        protocols: pair protocols; target subjects come from one of them.
        targets: the people that the attacks are measured on, the same as those of `ImageAttacks`.
        public_images: faces that attacks may use; they share no subject with any protocol.
    """

    plans: Sequence[GalleryAttackPlan]
    protocols: Sequence[PairProtocol]
    targets: Targets
    public_images: ImageSet
    results = (AttackRunRow, GalleryAttackRow)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Plans and target subjects that do not fit."""
        yield from plan_problems(self.plans, experiment)
        systems = {system.name: system for system in experiment.systems}
        for plan in self.plans:
            system, numbers = systems.get(plan.system), list(plan.num_observations)
            if numbers[:1] != [1] or numbers != sorted(set(numbers)):
                yield f"attack {plan.name!r}: num_observations={numbers}; give ascending numbers that start with 1"
            if plan.granted.sees is not MaskedImages:
                yield f"attack {plan.name!r}: sees {plan.granted.sees.__name__}; allowed is MaskedImages"
            if system is None:
                continue  # `plan_problems` reports it
            if system.masker is None:
                yield f"attack {plan.name!r}: system {system.name!r} masks no images"
            elif plan.granted.knows_recogniser and not _has_recogniser(system):
                yield (
                    f"attack {plan.name!r}: needs the recogniser of system {system.name!r}, which has none; give it a "
                    "training, or remove the attack"
                )
            elif system.is_keyed and not plan.granted.knows_secret:
                yield f"attack {plan.name!r}: masks with the deployment's secret; grant it, or remove the attack"
        yield from target_problems(self.protocols, self.targets)

    def config(self) -> Mapping[str, Any]:
        """Plans and target subjects."""
        return {"plans": [plan.config() for plan in self.plans], "targets": dataclasses.asdict(self.targets)}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """Public faces, and the images of the protocol."""
        yield DataUse(role="public", images=self.public_images)
        for protocol in self.protocols:
            yield DataUse.of_protocol(protocol)

    def attacks(self) -> Sequence[AttackPlan]:
        """The plans."""
        return self.plans

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per attacked system: masking costs most, and all attacks use the same masked images."""
        for name in dict.fromkeys(plan.system for plan in self.plans):
            system = session.experiment.system(name)
            plans = [plan for plan in self.plans if plan.system == name]
            after: tuple[str, ...] = ()
            if system.training is not None:
                yield training_stage(session, system)
                after = (training_stage_name(system),)
            secret = secret_of(plans[0], system)
            where = f"{system.label}{'' if secret == NO_SECRET else f', secret {secret}'}"
            yield Stage(
                name=f"gallery-attacks/{name}",
                title=f"Attacks without training on {where}",
                weight=4,
                after=after,
                measure=functools.partial(self._measure, session, system, plans),
            )

    # Stages

    def _measure(self, session: Session, system: System, plans: Sequence[GalleryAttackPlan]) -> list[Any]:
        protocol = target_protocol(self.protocols, self.targets)
        chosen = choose_targets(protocol, self.targets.num_subjects, rng=np.random.default_rng(session.seed("victims")))
        enrolled = [(plan, self._enrolled(session, system, plan, protocol, chosen)) for plan in plans]
        found: list[GalleryAttackRow] = []
        most = max(max(plan.num_observations) for plan in plans)
        for source, images_of_N in _observed_images(protocol, chosen, most):
            for plan, attack, num, score_NM in _scores(
                session, system, protocol, enrolled, source=source, images_of_N=images_of_N
            ):
                kept = [place for place, images in enumerate(images_of_N) if len(images) >= num]
                bound_by = self._bound_by(session, system, plan)
                rates = _rates(session, bound_by, attack, protocol, chosen=chosen, kept=kept, score_NM=score_NM)
                found.append(
                    GalleryAttackRow(
                        attack=plan.name,
                        level=attack.level,
                        photo=attack.photo,
                        source=source,
                        num_observations=num,
                        **rates,
                    )
                )
        runs = [
            AttackRunRow(
                attack=plan.name,
                num_targets=len(chosen.subjects),
                num_images=len(chosen.subjects),
                is_control_met=plan.rule.is_met(plan.role, next(row for row in found if row.attack == plan.name)),
                notes={"gallery_photo": attack.photo},
            )
            for plan, attack in enrolled
        ]
        return [*runs, *found]

    def _bound_by(self, session: Session, system: System, plan: GalleryAttackPlan) -> tuple[str, Embedder]:
        """Name and network that plain images are compared with: an attack cannot exceed the recogniser that it uses."""
        if plan.granted.knows_recogniser and system.training is not None and _takes_photos(system):
            return f"deployed/{system.name}", session.trained(system).embedder
        return plan.recogniser, session.experiment.recogniser(plan.recogniser).embedder

    def _enrolled(
        self,
        session: Session,
        system: System,
        plan: GalleryAttackPlan,
        protocol: PairProtocol,
        chosen: ChosenTargets,
    ) -> GalleryAttack:
        attack: GalleryAttack = plan.make(session.options("attack", plan.name, resumes=False))
        recogniser = session.experiment.recogniser(plan.recogniser).embedder
        deployed: Embedder | None = recogniser if _takes_photos(system) else None
        if system.training is not None:
            deployed = session.trained(system).embedder
        assert system.masker is not None  # checked
        knowledge = Knowledge(
            masker=system.masker,
            deployed_recogniser=deployed,
            public_recogniser=recogniser,
            public_images=self.public_images,
            device=session.device,
        )
        gallery = chosen.gallery if attack.photo == "another photo" else chosen.seen
        photo_MCHW = read_images(protocol.images, gallery, device=torch.device("cpu"))
        attack.enrol(knowledge, photo_MCHW, seed=session.seed("gallery attack", plan.name))
        return attack


def _takes_photos(system: System) -> bool:
    """Whether the masked image has the shape of a photo, so that a recogniser of plain photos takes it."""
    return system.masker is not None and system.masker.spec.out_shape == system.masker.spec.in_shape


def _has_recogniser(system: System) -> bool:
    return system.training is not None or _takes_photos(system)


def _observed_images(
    protocol: PairProtocol, chosen: ChosenTargets, most: int
) -> Iterator[tuple[Source, list[list[int]]]]:
    """For each source, the image of each observation of each target subject; one image is observed `most` times."""
    yield "one image", [[seen] * most for seen in chosen.seen]
    images_of = eligible(protocol)
    yield (
        "images of the person",
        [
            [seen, *(index for index in images_of[subject] if index not in (seen, kept))]
            for seen, kept, subject in zip(chosen.seen, chosen.gallery, chosen.subjects, strict=True)
        ],
    )


def _scores(
    session: Session,
    system: System,
    protocol: PairProtocol,
    attacks: Sequence[tuple[GalleryAttackPlan, GalleryAttack]],
    *,
    source: Source,
    images_of_N: Sequence[Sequence[int]],
) -> Iterator[tuple[GalleryAttackPlan, GalleryAttack, int, np.ndarray]]:
    """(plan, attack, n, (N, M) scores) of the target subjects with at least n images."""
    masker = system.masker
    assert masker is not None  # checked
    wanted: dict[str, list[int]] = {}
    for plan, attack in attacks:
        numbers = [num for num in plan.num_observations if _is_measured(num, source, attack, images_of_N)]
        wanted[plan.name] = numbers if source != "one image" or masker.spec.is_stochastic else numbers[:1]
    scores: dict[tuple[str, int], list[np.ndarray]] = {}
    for start in range(0, len(images_of_N), _AT_ONCE):
        part = images_of_N[start : start + _AT_ONCE]
        totals: dict[str, torch.Tensor] = {}
        for draw in range(1, max((max(nums, default=0) for nums in wanted.values()), default=0) + 1):
            rows = [place for place, images in enumerate(part) if len(images) >= draw]
            if not rows:
                break
            image_BCHW = read_images(protocol.images, [part[row][draw - 1] for row in rows], device=session.device)
            purpose = f"gallery attacks/{protocol.name}/{source}/{start}/{draw}"
            seen = MaskedImages(images_NKPQ=session.embedding.mask(masker, image_BCHW, purpose=purpose).cpu())
            for plan, attack in attacks:
                if draw > max(wanted[plan.name], default=0):
                    continue
                evidence = attack.evidence(seen)
                if plan.name not in totals:
                    totals[plan.name] = evidence.new_zeros(len(part), *evidence.shape[1:])
                totals[plan.name][rows] += evidence
                if draw in wanted[plan.name]:
                    mean = totals[plan.name][rows] / draw
                    scores.setdefault((plan.name, draw), []).append(attack.scores(mean, num_averaged=draw))
    for plan, attack in attacks:
        for num in wanted[plan.name]:
            yield plan, attack, num, np.concatenate(scores[plan.name, num])


def _is_measured(num: int, source: Source, attack: GalleryAttack, images_of_N: Sequence[Sequence[int]]) -> bool:
    """Whether there are n observations. One image of a person is one image, which is measured under that source."""
    if source == "one image":
        return True
    num_subjects = sum(len(images) >= num for images in images_of_N)
    return attack.photo == "another photo" and num > 1 and num_subjects >= _FEWEST_SUBJECTS


def _rates(
    session: Session,
    bound_by: tuple[str, Embedder],
    attack: GalleryAttack,
    protocol: PairProtocol,
    *,
    chosen: ChosenTargets,
    kept: Sequence[int],
    score_NM: np.ndarray,
) -> dict[str, Any]:
    """Fields of the row: rates of the `kept` target subjects, chance levels and upper bounds."""
    name, embedder = bound_by
    probes, size = [chosen.subjects[place] for place in kept], len(chosen.subjects)
    settings: dict[str, Any] = {
        "seed": session.seed("bootstrap"),
        "num_resamples": session.experiment.num_resamples,
    }

    def plain(indices: tuple[int, ...]) -> np.ndarray:
        return session.once(
            ("target faces", name, protocol.name, indices),
            lambda: session.embedding.plain(embedder, protocol.images, indices),
        )

    seen_ND, gallery_MD = plain(chosen.seen), plain(chosen.gallery if attack.photo == "another photo" else chosen.seen)
    found = rank_k(score_NM, probes, chosen.subjects, ranks=(1, 5), **settings)
    bound = rank_k(seen_ND[list(kept)] @ gallery_MD.T, probes, chosen.subjects, ranks=(1, 5), **settings)
    mate_N1 = score_NM[np.arange(len(kept)), list(kept)][:, None]
    below_N = (score_NM < mate_N1).sum(axis=1) + 0.5 * ((score_NM == mate_N1).sum(axis=1) - 1)
    return {
        "gallery_size": size,
        "rank_1": found[1],
        "rank_5": found[5],
        "auc": mean_with_interval(below_N / (size - 1), probes, is_share=True, **settings),
        "chance_rank_1": chance_rate(1, size),
        "chance_rank_5": chance_rate(5, size),
        "plain_rank_1": bound[1],
        "plain_rank_5": bound[5],
    }
