"""Attacks on masked images: recovery of faces, re-identification, and 1:1 accuracy on pairs.

One trained adversary answers all three questions, so one measure returns rows of three kinds.
Suffixes: N images of target subjects, C H W image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from ppfr.core import Attack, ImageSet, MaskedImages, MaskedImagesWithPairs, MixedImages, as_json
from ppfr.evaluation._attack_plan import NO_SECRET, AttackPlan, plan_problems, secret_of
from ppfr.evaluation._embedding import pair_comparisons, read_images
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment
from ppfr.evaluation._masked_pictures import RENDERINGS, Rendering, picture_of_masked, rgb_bytes
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._picture_files import write_strip
from ppfr.evaluation._session import Session
from ppfr.evaluation.measures._attack_run import AttackRunRow, AttackTrainingRow
from ppfr.evaluation.measures._image_attack_run import AttackOutput, embed_faces, run_attack, training_masker
from ppfr.evaluation.measures._image_outcome import (
    ImageAttackRule,
    ImageRecoveryRow,
    MaskedPictureRow,
    OutcomeEvaluation,
    ReIdentificationRow,
    TargetFaces,
    thresholds_of,
)
from ppfr.evaluation.measures._image_targets import (
    ChosenTargets,
    Targets,
    average_face,
    choose_targets,
    target_problems,
    target_protocol,
)
from ppfr.evaluation.measures._mixture_outcome import MixtureReIdentificationRow
from ppfr.evaluation.measures._training import training_stage, training_stage_name
from ppfr.evaluation.measures._verification import (
    VerificationRow,
    plain_embeddings,
    recogniser_stage_name,
    verification_row,
)

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


_SEEN = (MaskedImages, MixedImages, MaskedImagesWithPairs)


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageAttackPlan(AttackPlan):
    """One attack on the masked images of one system.

    With `granted.knows_secret` it trains on the deployed masker, otherwise on simulations under secrets of its own.

    Attributes:
        measures_pairs: also run the attack on the masked images of all protocol pairs, for its 1:1 accuracy.
        num_epochs: of an adversary who sees mixed images: the epochs from which it has a mixture of each image. It
            averages them, and trains on such averages.
    """

    rule: ImageAttackRule = dataclasses.field(default_factory=ImageAttackRule)
    measures_pairs: bool = True
    num_epochs: int = 1

    def extra_config(self) -> Mapping[str, Any]:
        """Whether pairs are measured too, and the epochs of an adversary who averages several."""
        epochs = {} if self.num_epochs == 1 else {"num_epochs": self.num_epochs}
        return {"measures_pairs": self.measures_pairs, **epochs}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAttacks(Measure):
    """Whom can an adversary re-identify from masked images, and how similar are the faces that it recovers?

    Args:
        plans: the attacks, in the order in which they run.
        protocols: pair protocols; target subjects come from one of them, pairs from all.
        targets: the people that the attacks are measured on.
        public_images: faces that attackers train on; they share no subject with any protocol.
        lpips: maps two float32 batches in [0, 1] to one distance per pair, as `ppfr.models.Lpips.distance` does.
        renderings: renderings of masked images that are measured beside "channel-mean", where faces are recovered.
        recogniser_far: false accept rate of the evaluation recogniser's strict threshold.
        fars: false accept rates to report 1:1 figures at.
    """

    plans: Sequence[ImageAttackPlan]
    protocols: Sequence[PairProtocol]
    targets: Targets
    public_images: ImageSet
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    renderings: Sequence[Rendering] = ()
    recogniser_far: float = 1e-3
    fars: Sequence[float] = (1e-2, 1e-3, 1e-4)
    results = (
        AttackTrainingRow,
        AttackRunRow,
        ReIdentificationRow,
        MixtureReIdentificationRow,
        ImageRecoveryRow,
        MaskedPictureRow,
        VerificationRow,
    )

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Plans, recognisers and target subjects that do not fit."""
        yield from plan_problems(self.plans, experiment)
        systems = {system.name: system for system in experiment.systems}
        recognisers = {recogniser.name: recogniser for recogniser in experiment.recognisers}
        for plan in self.plans:
            system, recogniser = systems.get(plan.system), recognisers.get(plan.recogniser)
            if system is None or recogniser is None:
                continue  # `plan_problems` reports it
            if plan.granted.sees not in _SEEN:
                allowed = ", ".join(kind.__name__ for kind in _SEEN)
                yield f"attack {plan.name!r}: sees {plan.granted.sees.__name__}; allowed is {allowed}"
            if system.masker is None:
                yield f"attack {plan.name!r}: system {system.name!r} masks no images"
            if plan.granted.sees is MixedImages and not (system.training and system.training.mixes):
                yield f"attack {plan.name!r}: sees mixed images, and system {system.name!r} mixes none"
            if plan.num_epochs < 1 or (plan.num_epochs > 1 and plan.granted.sees is not MixedImages):
                yield (
                    f"attack {plan.name!r}: num_epochs={plan.num_epochs}; allowed is 1, or more for an adversary who "
                    "sees MixedImages"
                )
            if system.training is not None:
                own = {recogniser.name, *(each.name for each in recogniser.provenance)}
                shared = own & {each.name for each in system.training.provenance}
                if shared:
                    yield (
                        f"attack {plan.name!r}: system {system.name!r} was made from {', '.join(sorted(shared))}, "
                        f"which is its evaluation recogniser {recogniser.name!r}; evaluate with another network"
                    )
        if not 0 < self.recogniser_far <= 1:
            yield f"recogniser_far={self.recogniser_far}; it must lie in (0, 1]"
        for rendering in self.renderings:
            if rendering not in RENDERINGS[1:]:
                yield f"rendering {rendering!r}; besides {RENDERINGS[0]!r} there is {', '.join(RENDERINGS[1:])}"
        yield from target_problems(self.protocols, self.targets)

    def config(self) -> Mapping[str, Any]:
        """Plans, target subjects and rates."""
        return {
            "plans": [plan.config() for plan in self.plans],
            "targets": dataclasses.asdict(self.targets),
            "recogniser_far": self.recogniser_far,
            "fars": list(self.fars),
            "has_lpips": self.lpips is not None,
            "renderings": list(self.renderings),
        }

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """Public faces, and the images that the protocols use."""
        yield DataUse(role="public", images=self.public_images)
        for protocol in self.protocols:
            yield DataUse.of_protocol(protocol)

    def attacks(self) -> Sequence[AttackPlan]:
        """The plans."""
        return self.plans

    def stages(self, session: Session) -> Iterable[Stage]:
        """For each plan: train the adversary, then measure its outcome on the target subjects."""
        for plan in self.plans:
            system = session.experiment.system(plan.system)
            secret = secret_of(plan, system)
            where = f"{plan.label} on {system.label}{'' if secret == NO_SECRET else f', secret {secret}'}"
            after: tuple[str, ...] = ()
            is_learned = system.training is not None and system.masker is not None and system.masker.spec.is_trainable
            if plan.granted.sees is MixedImages or is_learned:
                yield training_stage(session, system)
                after = (training_stage_name(system),)
            yield Stage(
                name=f"fit/{plan.name}",
                title=f"Train {where}",
                weight=8,
                after=after,
                measure=functools.partial(self._fit, session, plan),
            )
            yield Stage(
                name=f"attack/{plan.name}",
                title=f"Measure {where}",
                weight=2,
                after=(f"fit/{plan.name}", recogniser_stage_name(plan.recogniser)),
                measure=functools.partial(self._measure, session, plan),
            )

    def pictures(self, experiment: Experiment) -> Iterable[Mapping[str, str]]:
        """The target subjects, then for each system the masked images and the recovered faces."""
        yield {"file": "original.png", "label": "Original", "note": "", "kind": "original"}
        for system in experiment.systems:
            seen = (("seen", "What the server sees"), ("mixed", "What training sees, mixed"))
            for prefix, label in seen:
                yield {"file": f"{prefix}--{system.name}.png", "label": label, "note": system.label, "kind": "seen"}
            for plan in self.plans:
                if plan.system == system.name:
                    secret = secret_of(plan, system)
                    note = system.label if secret == NO_SECRET else f"{system.label}, secret {secret}"
                    file = f"recovered--{plan.name}.png"
                    yield {"file": file, "label": plan.label, "note": note, "kind": "recovered"}

    # Stages

    def _fit(self, session: Session, plan: ImageAttackPlan) -> list[AttackTrainingRow]:
        return [AttackTrainingRow(attack=plan.name, facts=as_json(self._trained(session, plan)[1]))]

    def _trained(self, session: Session, plan: ImageAttackPlan) -> tuple[Attack, Mapping[str, Any]]:
        """The attack, trained; a training that the run's folder holds is resumed."""
        attack: Attack = plan.make(session.options("attack", plan.name, resumes=True))
        seed = session.seed("attack", attack.name)
        facts = dict(attack.fit(training_masker(session, plan, attack), self.public_images, seed=seed))
        _last_trained(session).clear()  # keep one only: networks are large
        _last_trained(session)[plan.name] = attack
        return attack, facts

    def _measure(self, session: Session, plan: ImageAttackPlan) -> list[Any]:
        attack = _last_trained(session).get(plan.name) or self._trained(session, plan)[0]
        recogniser, protocol = (
            session.experiment.recogniser(plan.recogniser),
            target_protocol(self.protocols, self.targets),
        )
        chosen = choose_targets(protocol, self.targets.num_subjects, rng=np.random.default_rng(session.seed("victims")))
        evaluation = OutcomeEvaluation(
            self._target_faces(session, recogniser, protocol, chosen),
            embed=lambda faces_NCHW: embed_faces(session, recogniser, faces_NCHW),
            thresholds=thresholds_of(
                pair_comparisons(protocol, plain_embeddings(session, recogniser, protocol)), self.recogniser_far
            ),
            lpips=self.lpips,
            seed=session.seed("bootstrap"),
            num_resamples=session.experiment.num_resamples,
        )
        output = run_attack(
            session,
            plan,
            attack,
            protocol,
            estimate=evaluation.estimates,
            public_images=self.public_images,
            purpose="victims",  # label of random streams
            indices=list(chosen.seen),
            renderings=self.renderings,
        )
        self._draw(session, plan, protocol, chosen, output)
        found = evaluation.re_identification(plan.name, output.estimates_ND)
        mixtures = None
        if output.share_NN is not None:
            mixtures = evaluation.mixtures(plan.name, output.estimates_ND, output.share_NN, num_epochs=plan.num_epochs)
        recovery, rendered = None, []
        if output.recovered_NCHW is not None:
            recovery = evaluation.recovery(plan.name, output.recovered_NCHW, output.masked_NCHW)
            rendered = [evaluation.masked_picture(plan.name, *each) for each in output.rendered_NCHW.items()]
        pairs = []
        if plan.measures_pairs:
            pairs = [
                self._pairs(session, plan, attack, evaluation=evaluation, recogniser=recogniser, protocol=each)
                for each in self.protocols
            ]
        judged = found if mixtures is None else _as_anybody(found, mixtures)
        is_met = None if plan.role == "attack" else plan.rule.is_met(plan.role, judged, recovery, pairs)
        run = AttackRunRow(
            attack=plan.name,
            num_targets=len(set(chosen.subjects)),
            num_images=len(chosen.seen),
            is_control_met=is_met,
            notes=as_json(output.notes),
        )
        rows = [run, found, mixtures, recovery, *rendered, *pairs]
        return [row for row in rows if row is not None]

    def _pairs(
        self,
        session: Session,
        plan: ImageAttackPlan,
        attack: Attack,
        *,
        evaluation: OutcomeEvaluation,
        recogniser: EvaluationRecogniser,
        protocol: PairProtocol,
    ) -> VerificationRow:
        output = run_attack(
            session,
            plan,
            attack,
            protocol,
            estimate=evaluation.estimates,
            public_images=self.public_images,
            purpose="pairs",
            indices=protocol.used().tolist(),
        )
        comparisons = pair_comparisons(protocol, output.estimates_ND, plain_embeddings(session, recogniser, protocol))
        return verification_row(
            session.experiment, protocol, comparisons, source="attack", name=plan.name, fars=self.fars
        )

    def _target_faces(
        self, session: Session, recogniser: EvaluationRecogniser, protocol: PairProtocol, chosen: ChosenTargets
    ) -> TargetFaces:
        cpu, embedding = torch.device("cpu"), session.embedding
        return TargetFaces(
            seen_NCHW=read_images(protocol.images, chosen.seen, device=cpu).numpy(),
            subjects=chosen.subjects,
            seen_ND=embedding.plain(recogniser.embedder, protocol.images, chosen.seen),
            gallery_ND=embedding.plain(recogniser.embedder, protocol.images, chosen.gallery),
            average_CHW=session.once(
                ("average face", self.public_images.name), lambda: average_face(self.public_images)
            ),
        )

    def _draw(
        self,
        session: Session,
        plan: ImageAttackPlan,
        protocol: PairProtocol,
        chosen: ChosenTargets,
        output: AttackOutput,
    ) -> None:
        """Strips for the report: the target subjects, their masked images, and the recovered faces."""
        num = min(self.targets.num_pictured, len(chosen.seen))
        if num == 0 or output.first_NKPQ is None:
            return
        folder = session.workspace.pictures
        write_strip(protocol.images.read(list(chosen.seen[:num])), folder / "original.png")
        seen = picture_of_masked(output.first_NKPQ[:num], output.value_range)
        write_strip(seen, folder / f"{'mixed' if plan.granted.sees is MixedImages else 'seen'}--{plan.system}.png")
        if output.recovered_NCHW is not None:
            write_strip(rgb_bytes(output.recovered_NCHW[:num]), folder / f"recovered--{plan.name}.png")


def _as_anybody(found: ReIdentificationRow, mixtures: MixtureReIdentificationRow) -> ReIdentificationRow:
    """The rates that a control on mixed images is judged by: of anybody in the mixture, unless epochs are averaged."""
    if mixtures.num_epochs > 1:
        return found
    anybody = mixtures.anybody
    return dataclasses.replace(found, rank_1=anybody.rate, chance_rank_1=anybody.chance, plain_rank_1=anybody.plain)


def _last_trained(session: Session) -> dict[str, Attack]:
    return session.once("last trained attack", dict)
