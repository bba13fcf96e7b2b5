"""Attacks on masked images: faces recovered, people re-identified, and pairs told apart.

One trained adversary answers three questions, so one measure asks them all and leaves rows of three kinds.
Suffixes: N images of target subjects, D embedding, C H W image, K P Q masked image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from ppfr.attacks import FreshSecret
from ppfr.core import (
    Attack,
    AttackResult,
    ImageMasker,
    ImageSet,
    MaskedImages,
    MixedImages,
    ShapeError,
    UnsupportableError,
    as_json,
)
from ppfr.evaluation._attack_plan import NO_SECRET, AttackPlan, plan_problems, secret_of
from ppfr.evaluation._embedding import batches, checked_rows, pair_comparisons, read_images
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment
from ppfr.evaluation._masked_pictures import blurred_picture, picture_of_masked, rgb_bytes
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._picture_files import write_strip
from ppfr.evaluation._session import Session
from ppfr.evaluation.measures._attack_run import AttackRunRow, AttackTrainingRow
from ppfr.evaluation.measures._image_outcome import (
    ImageAttackRule,
    ImageRecoveryRow,
    OutcomeEvaluation,
    ReIdentificationRow,
    TargetFaces,
    thresholds_of,
)
from ppfr.evaluation.measures._training import training_stage, training_stage_name
from ppfr.evaluation.measures._verification import (
    VerificationRow,
    plain_embeddings,
    recogniser_stage_name,
    verification_row,
)

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

_NUM_AVERAGED = 2048


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageAttackPlan(AttackPlan):
    """One attack on the masked images of one system.

    With `granted.knows_secret` it trains on the deployed masker, else on simulations under secrets of its own.

    Attributes:
        measures_pairs: run the attack on the masked images of all protocol pairs too, for its 1:1 accuracy.
    """

    rule: ImageAttackRule = dataclasses.field(default_factory=ImageAttackRule)
    measures_pairs: bool = True

    def extra_config(self) -> Mapping[str, Any]:
        """Whether pairs are measured."""
        return {"measures_pairs": self.measures_pairs}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Target subjects: drawn from the people of the first protocol who have two images or more.

    One image of each is masked and seen by the adversary; another one, plain, is in the gallery.

    Attributes:
        num_subjects: how many people; also the gallery's size.
        protocol: name of the protocol; "" for the first.
        num_pictured: how many of them the report shows.
    """

    num_subjects: int
    protocol: str = ""
    num_pictured: int = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Image indices in the protocol's images, row for row: attacked, and in the gallery."""

    seen: tuple[int, ...]
    gallery: tuple[int, ...]
    subjects: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Acted:
    """What an attack made of masked images; of target subjects also what it saw and recovered."""

    guesses_ND: np.ndarray
    pictures_NCHW: np.ndarray | None
    masked_NCHW: np.ndarray
    first_NKPQ: torch.Tensor | None
    value_range: tuple[float, float]
    notes: Mapping[str, Any]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAttacks(Measure):
    """Which people can an adversary re-identify from masked images, and what do they look like?

    Args:
        plans: the attacks, in the order in which they run.
        protocols: pair protocols; target subjects come from one of them, pairs from all.
        targets: whom the attacks are measured on.
        public_images: faces that attackers train on; shares no subject with any protocol.
        lpips: maps two float32 batches in [0, 1] to one distance per pair, as `ppfr.models.Lpips.distance` does.
        recogniser_far: false accept rate of the evaluation recogniser's strict threshold.
        fars: false accept rates to report 1:1 figures at.
    """

    plans: Sequence[ImageAttackPlan]
    protocols: Sequence[PairProtocol]
    targets: Targets
    public_images: ImageSet
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    recogniser_far: float = 1e-3
    fars: Sequence[float] = (1e-2, 1e-3, 1e-4)
    results = (AttackTrainingRow, AttackRunRow, ReIdentificationRow, ImageRecoveryRow, VerificationRow)

    def target_protocol(self) -> PairProtocol:
        """The protocol that target subjects are drawn from."""
        wanted = self.targets.protocol
        return next(p for p in self.protocols if not wanted or p.name == wanted)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Plans, recognisers and target subjects that do not fit."""
        yield from plan_problems(self.plans, experiment)
        systems = {system.name: system for system in experiment.systems}
        recognisers = {recogniser.name: recogniser for recogniser in experiment.recognisers}
        for plan in self.plans:
            system, recogniser = systems.get(plan.system), recognisers.get(plan.recogniser)
            if system is None or recogniser is None:
                continue  # said already
            if plan.granted.sees not in (MaskedImages, MixedImages):
                yield f"attack {plan.name!r}: sees {plan.granted.sees.__name__}; allowed is MaskedImages, MixedImages"
            if system.masker is None:
                yield f"attack {plan.name!r}: system {system.name!r} masks no images"
            if plan.granted.sees is MixedImages and not (system.training and system.training.mixes):
                yield f"attack {plan.name!r}: sees mixed images, and system {system.name!r} mixes none"
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
        yield from self._target_problems()

    def _target_problems(self) -> Iterable[str]:
        wanted, names = self.targets.protocol, [p.name for p in self.protocols]
        if not names:
            yield "there are attacks, but no protocol whose people they are measured on"
            return
        if wanted and wanted not in names:
            yield f"target subjects come from protocol {wanted!r}, which is not in the measure"
            return
        num, found = self.targets.num_subjects, len(eligible(self.target_protocol()))
        if not 2 <= num <= found:
            yield f"{num} target subjects; {found} people have two images or more: allowed is 2 to {found}"
        elif num < 5:
            yield f"{num} target subjects; rank-5 needs a gallery of at least 5"

    def config(self) -> Mapping[str, Any]:
        """Plans, target subjects and rates."""
        return {
            "plans": [plan.config() for plan in self.plans],
            "targets": dataclasses.asdict(self.targets),
            "recogniser_far": self.recogniser_far,
            "fars": list(self.fars),
            "has_lpips": self.lpips is not None,
        }

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """Public faces, and the images that the protocols use."""
        yield DataUse(role="public", images=self.public_images)
        for protocol in self.protocols:
            yield DataUse(role="protocol", images=protocol.used_images(), name=protocol.name)

    def attacks(self) -> Sequence[AttackPlan]:
        """The plans."""
        return self.plans

    def stages(self, session: Session) -> Iterable[Stage]:
        """For each plan: train the adversary, then measure what it makes of the target subjects."""
        for plan in self.plans:
            system = session.experiment.system(plan.system)
            secret = secret_of(plan, system)
            where = f"{plan.label} on {system.label}{'' if secret == NO_SECRET else f', secret {secret}'}"
            after: tuple[str, ...] = ()
            learns = system.training is not None and system.masker is not None and system.masker.spec.is_trainable
            if plan.granted.sees is MixedImages or learns:
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
        """The target subjects, then for each system what the server sees and what was recovered."""
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
        facts = dict(attack.fit(_trains_on(session, plan, attack), self.public_images, seed=seed))
        _last_trained(session).clear()  # one at a time: networks are large
        _last_trained(session)[plan.name] = attack
        return attack, facts

    def _measure(self, session: Session, plan: ImageAttackPlan) -> list[Any]:
        attack = _last_trained(session).get(plan.name) or self._trained(session, plan)[0]
        recogniser, protocol = session.experiment.recogniser(plan.recogniser), self.target_protocol()
        chosen = choose_targets(protocol, self.targets.num_subjects, rng=np.random.default_rng(session.seed("victims")))
        evaluation = OutcomeEvaluation(
            self._target_faces(session, recogniser, protocol, chosen),
            embed=lambda faces_NCHW: _embed(session, recogniser, faces_NCHW),
            thresholds=thresholds_of(
                pair_comparisons(protocol, plain_embeddings(session, recogniser, protocol)), self.recogniser_far
            ),
            lpips=self.lpips,
            seed=session.seed("bootstrap"),
            num_resamples=session.experiment.num_resamples,
        )
        acted = _run(session, plan, attack, evaluation, protocol, purpose="victims", indices=list(chosen.seen))
        self._draw(session, plan, protocol, chosen, acted)
        found = evaluation.re_identification(plan.name, acted.guesses_ND)
        recovery = None
        if acted.pictures_NCHW is not None:
            recovery = evaluation.recovery(plan.name, acted.pictures_NCHW, acted.masked_NCHW)
        pairs = []
        if plan.measures_pairs:
            pairs = [
                self._pairs(session, plan, attack, evaluation=evaluation, recogniser=recogniser, protocol=each)
                for each in self.protocols
            ]
        is_met = None if plan.role == "attack" else plan.rule.is_met(plan.role, found, recovery, pairs)
        run = AttackRunRow(
            attack=plan.name,
            num_targets=len(set(chosen.subjects)),
            num_images=len(chosen.seen),
            is_control_met=is_met,
            notes=as_json(acted.notes),
        )
        return [run, found, *([] if recovery is None else [recovery]), *pairs]

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
        acted = _run(session, plan, attack, evaluation, protocol, purpose="pairs", indices=protocol.used().tolist())
        comparisons = pair_comparisons(protocol, acted.guesses_ND, plain_embeddings(session, recogniser, protocol))
        return verification_row(
            session.experiment, protocol, comparisons, source="attack", name=plan.name, fars=self.fars
        )

    def _target_faces(
        self, session: Session, recogniser: EvaluationRecogniser, protocol: PairProtocol, chosen: _Chosen
    ) -> TargetFaces:
        cpu, embedding = torch.device("cpu"), session.embedding
        return TargetFaces(
            seen_NCHW=read_images(protocol.images, chosen.seen, device=cpu).numpy(),
            subjects=chosen.subjects,
            seen_ND=embedding.plain(recogniser.embedder, protocol.images, chosen.seen),
            gallery_ND=embedding.plain(recogniser.embedder, protocol.images, chosen.gallery),
            average_CHW=session.once(("average face", self.public_images.name), lambda: _average(self.public_images)),
        )

    def _draw(
        self, session: Session, plan: ImageAttackPlan, protocol: PairProtocol, chosen: _Chosen, acted: _Acted
    ) -> None:
        """Strips for the report: the target subjects, what the adversary sees of them, what the attack recovered."""
        num = min(self.targets.num_pictured, len(chosen.seen))
        if num == 0 or acted.first_NKPQ is None:
            return
        folder = session.workspace.pictures
        write_strip(protocol.images.read(list(chosen.seen[:num])), folder / "original.png")
        seen = picture_of_masked(acted.first_NKPQ[:num], acted.value_range)
        write_strip(seen, folder / f"{'mixed' if plan.granted.sees == 'mixed_images' else 'seen'}--{plan.system}.png")
        if acted.pictures_NCHW is not None:
            write_strip(rgb_bytes(acted.pictures_NCHW[:num]), folder / f"recovered--{plan.name}.png")


def eligible(protocol: PairProtocol) -> dict[str, list[int]]:
    """Image indices, by subject, of those people of a protocol who have two images or more."""
    by_subject: dict[str, list[int]] = {}
    for index in protocol.used().tolist():
        by_subject.setdefault(protocol.images.subject_ids[index], []).append(index)
    return {subject: indices for subject, indices in sorted(by_subject.items()) if len(indices) >= 2}


def choose_targets(protocol: PairProtocol, num_subjects: int, *, rng: np.random.Generator) -> _Chosen:
    """Draw target subjects: people first, then for each an image to attack and another for the gallery."""
    found = eligible(protocol)
    people = sorted(found)
    drawn = rng.permutation(len(people))[:num_subjects]
    seen, gallery, subjects = [], [], []
    for place in drawn.tolist():
        first, second = rng.permutation(found[people[place]])[:2].tolist()
        seen.append(first)
        gallery.append(second)
        subjects.append(people[place])
    return _Chosen(seen=tuple(seen), gallery=tuple(gallery), subjects=tuple(subjects))


def _last_trained(session: Session) -> dict[str, Attack]:
    return session.once("last trained attack", dict)


def _seen_through(session: Session, plan: ImageAttackPlan) -> ImageMasker:
    """What turns a target's image into what the adversary of a plan sees of it."""
    system = session.experiment.system(plan.system)
    assert system.masker is not None  # checked
    if plan.granted.sees is not MixedImages:
        if system.training is not None and system.masker.spec.is_trainable:
            session.trained(system)  # what it learned is loaded into the masker, where an earlier sitting trained it
        return system.masker
    exposed = session.trained(system).exposed
    if exposed is None:
        raise UnsupportableError(f"system {system.name!r} left no mixed images to attack; its training must mix")
    return exposed


def _trains_on(session: Session, plan: ImageAttackPlan, attack: Attack) -> ImageMasker:
    """The masker that the adversary trains on: the deployed one if it holds its secret, else simulations."""
    deployed = _seen_through(session, plan)
    return deployed if attack.needs.knows_secret or not deployed.spec.is_keyed else FreshSecret(deployed)


def _run(
    session: Session,
    plan: ImageAttackPlan,
    attack: Attack,
    evaluation: OutcomeEvaluation,
    protocol: PairProtocol,
    *,
    purpose: str,
    indices: list[int],
) -> _Acted:
    """Let the attack act on masked images of a protocol; of target subjects, also keep what was seen and recovered."""
    masker = _seen_through(session, plan)
    observe = MixedImages if plan.granted.sees is MixedImages else MaskedImages
    is_pictured = purpose == "victims"
    stream = f"observe/{purpose}/{protocol.name}"
    guesses, pictures, masked, notes = [], [], [], {}
    first_NKPQ: torch.Tensor | None = None
    for rows, masked_NKPQ in session.embedding.observed(masker, protocol.images, indices, purpose=stream):
        seed = session.seed("attack", attack.name, "run", stream, rows.start)
        result = attack.run(observe(images_NKPQ=masked_NKPQ), seed=seed)
        num = rows.stop - rows.start
        _check_rows(result, num)
        guesses.append(checked_rows(evaluation.guesses(result), num, what=f"attack {plan.name!r}"))
        if is_pictured:
            first_NKPQ = masked_NKPQ if first_NKPQ is None else first_NKPQ
            _, height, width = masker.spec.in_shape
            masked.append(blurred_picture(masked_NKPQ, masker.spec.value_range, (height, width)))
        if is_pictured and result.recovered_NCHW is not None:
            pictures.append(result.recovered_NCHW.detach().cpu().numpy().astype(np.float32))
        notes = dict(result.notes)
    return _Acted(
        guesses_ND=np.concatenate(guesses),
        pictures_NCHW=np.concatenate(pictures) if pictures else None,
        masked_NCHW=np.concatenate(masked) if masked else np.empty((0, *masker.spec.in_shape), dtype=np.float32),
        first_NKPQ=first_NKPQ,
        value_range=masker.spec.value_range,
        notes=notes,
    )


def _check_rows(result: AttackResult, num: int) -> None:
    for values in (result.recovered_NCHW, result.embeddings_ND):
        if values is not None and len(values) != num:
            raise ShapeError(f"the attack made {len(values)} rows of {num} observed images; it must make one of each")


def _average(public: ImageSet) -> np.ndarray:
    """(3, H, W) mean of public faces."""
    spread = np.unique(np.linspace(0, len(public) - 1, min(_NUM_AVERAGED, len(public))).astype(int)).tolist()
    total = sum(
        read_images(public, batch, device=torch.device("cpu")).double().sum(dim=0) for batch in batches(spread, 64)
    )
    assert isinstance(total, torch.Tensor)
    return (total / len(spread)).float().numpy()


def _embed(session: Session, recogniser: EvaluationRecogniser, faces_NCHW: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(faces_NCHW, dtype=np.float32))
    size, device = session.experiment.batch_size, session.device
    rows = [recogniser.embedder.embed(part.to(device)).cpu() for part in tensor.split(size)]
    return checked_rows(torch.cat(rows).numpy(), len(tensor), what=f"evaluation recogniser {recogniser.name!r}")
