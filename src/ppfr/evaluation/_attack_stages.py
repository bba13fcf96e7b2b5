"""The stages of attacks: training the adversary, and judging what it makes of the victims.

Suffixes: N victims' images, D embedding, C H W image, K P Q masked image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ppfr.attacks import FreshSecret
from ppfr.core import Attack, AttackResult, ImageMasker, Observation, ShapeError, derive_seed
from ppfr.data import PairProtocol
from ppfr.evaluation._checks import eligible_victims
from ppfr.evaluation._embedding import batches, checked_rows, pair_comparisons, read_images, verification_figures
from ppfr.evaluation._experiment import AttackPlan, Judge
from ppfr.evaluation._identity import as_json
from ppfr.evaluation._judging import OutcomeJudge, Thresholds, VictimFaces, control_verdict, thresholds_of
from ppfr.evaluation._masked_pictures import blurred_picture, picture_of_masked, rgb_bytes
from ppfr.evaluation._picture_files import write_strip
from ppfr.evaluation._stages import Session, Stage
from ppfr.evaluation._workspace import Json

_NUM_AVERAGED = 2048


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChosenVictims:
    """Image indices in the protocol's images, row for row: attacked, and in the gallery."""

    seen: tuple[int, ...]
    gallery: tuple[int, ...]
    subjects: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Acted:
    """What an attack made of masked images, and of victims also what it saw.

    Attributes:
        guesses_ND: guessed embeddings.
        pictures_NCHW: recovered victims, if the attack makes any.
        masked_NCHW: a picture of each masked victim.
        first_NKPQ: the first masked victims.
        value_range: of the masked values.
        notes: the attack's.
    """

    guesses_ND: np.ndarray
    pictures_NCHW: np.ndarray | None
    masked_NCHW: np.ndarray
    first_NKPQ: torch.Tensor | None
    value_range: tuple[float, float]
    notes: Json


class AttackSession:
    """The attacks of one sitting."""

    def __init__(self, session: Session) -> None:
        self._session, self._experiment = session, session.experiment
        self._fitted: dict[str, Attack] = {}
        self._average_CHW: np.ndarray | None = None

    def stages(self) -> list[Stage]:
        """The stages of all attacks, in the order in which they run."""
        return [stage for plan in self._experiment.attacks for stage in self._stages_of(plan)]

    def _stages_of(self, plan: AttackPlan) -> list[Stage]:
        where = f"{plan.label} on {self._experiment.arm(plan.arm).label}"
        arm = self._experiment.arm(plan.arm)
        if arm.masker.spec.is_keyed:
            where += ", secret known" if plan.granted.knows_secret else ", secret unknown"
        fit, judge = f"fit/{plan.name}", f"attack/{plan.name}"
        learns_masker = arm.training is not None and arm.masker.spec.is_trainable
        needs_training = plan.granted.sees == "mixed_images" or learns_masker
        return [
            Stage(
                name=fit,
                title=f"Train {where}",
                weight=8,
                after=(f"train/{plan.arm}",) if needs_training else (),
                measure=lambda: self._fit(plan),
            ),
            Stage(
                name=judge,
                title=f"Judge {where}",
                weight=2,
                after=(fit, f"judge/{plan.judge}"),
                measure=lambda: self._judge(plan),
            ),
        ]

    def _fit(self, plan: AttackPlan) -> Json:
        facts = self._attack(plan)[1]
        return {"fit": as_json(facts)}

    def _attack(self, plan: AttackPlan) -> tuple[Attack, Json]:
        """The attack, trained; a training that this folder holds is taken up."""
        options = self._session.options("attack", plan.name, resumes=True)
        attack = plan.make(options)
        public = self._experiment.public_images
        assert public is not None  # checked before the run
        seed = derive_seed(self._experiment.seed, "attack", attack.name)
        facts = dict(attack.fit(self._masker_for(plan, attack), public, seed=seed))
        self._fitted = {plan.name: attack}  # one at a time: networks are large
        return attack, facts

    def _masker_for(self, plan: AttackPlan, attack: Attack) -> ImageMasker:
        """What the adversary trains on: the deployed masker if it holds its secret, else simulations."""
        deployed = self._session.seen_through(plan)
        return deployed if attack.needs.knows_secret or not deployed.spec.is_keyed else FreshSecret(deployed)

    def _judge(self, plan: AttackPlan) -> Json:
        attack = self._fitted[plan.name] if plan.name in self._fitted else self._attack(plan)[0]
        judge, protocol = self._experiment.judge(plan.judge), self._experiment.victim_protocol()
        chosen = choose_victims(self._session)
        outcome_judge = OutcomeJudge(
            self._experiment,
            self._victim_faces(judge, protocol, chosen),
            embed=lambda faces_NCHW: self._embed(judge, faces_NCHW),
            thresholds=self._thresholds(judge, protocol),
        )
        acted = self._run(plan, attack, outcome_judge, protocol, purpose="victims", indices=list(chosen.seen))
        outcome: Json = {
            "num_victims": len(set(chosen.subjects)),
            "num_images": len(chosen.seen),
            "judge": judge.name,
            "recovery": None
            if acted.pictures_NCHW is None
            else outcome_judge.recovery(acted.pictures_NCHW, acted.masked_NCHW),
            "linkage": outcome_judge.linkage(acted.guesses_ND),
            "pairs": [],
        }
        self._draw(plan, protocol, chosen, acted)
        if plan.measures_pairs:
            outcome["pairs"] = [self._pairs(plan, attack, outcome_judge, judge, p) for p in self._experiment.protocols]
        is_met = None if plan.role == "attack" else control_verdict(outcome, plan.role, plan.rule)
        return {"notes": as_json(acted.notes), "outcome": outcome, "is_met": is_met}

    def _pairs(
        self, plan: AttackPlan, attack: Attack, outcome_judge: OutcomeJudge, judge: Judge, protocol: PairProtocol
    ) -> Json:
        acted = self._run(plan, attack, outcome_judge, protocol, purpose="pairs", indices=protocol.used().tolist())
        comparisons = pair_comparisons(protocol, acted.guesses_ND, self._session.plain_embeddings(judge, protocol))
        return verification_figures(self._experiment, protocol, comparisons)

    def _run(
        self,
        plan: AttackPlan,
        attack: Attack,
        outcome_judge: OutcomeJudge,
        protocol: PairProtocol,
        *,
        purpose: str,
        indices: list[int],
    ) -> Acted:
        """Let the attack act on masked images of a protocol; of victims, also keep what was seen and recovered."""
        masker = self._session.seen_through(plan)
        is_pictured = purpose == "victims"
        stream = f"observe/{purpose}/{protocol.name}"
        guesses, pictures, masked, notes = [], [], [], {}
        first_NKPQ: torch.Tensor | None = None
        for rows, masked_NKPQ in self._session.embedding.observed(masker, protocol.images, indices, purpose=stream):
            seed = derive_seed(self._experiment.seed, "attack", attack.name, "run", stream, rows.start)
            result = attack.run(Observation(kind=plan.granted.sees, values_NKPQ=masked_NKPQ), seed=seed)
            num = rows.stop - rows.start
            _check_rows(result, num)
            guesses.append(checked_rows(outcome_judge.guesses(result), num, what=f"attack {plan.name!r}"))
            if is_pictured:
                first_NKPQ = masked_NKPQ if first_NKPQ is None else first_NKPQ
                _, height, width = masker.spec.in_shape
                masked.append(blurred_picture(masked_NKPQ, masker.spec.value_range, (height, width)))
            if is_pictured and result.recovered_NCHW is not None:
                pictures.append(result.recovered_NCHW.detach().cpu().numpy().astype(np.float32))
            notes = dict(result.notes)
        return Acted(
            guesses_ND=np.concatenate(guesses),
            pictures_NCHW=np.concatenate(pictures) if pictures else None,
            masked_NCHW=np.concatenate(masked) if masked else np.empty((0, *masker.spec.in_shape), dtype=np.float32),
            first_NKPQ=first_NKPQ,
            value_range=masker.spec.value_range,
            notes=notes,
        )

    def _victim_faces(self, judge: Judge, protocol: PairProtocol, chosen: ChosenVictims) -> VictimFaces:
        cpu = torch.device("cpu")
        embedding = self._session.embedding
        return VictimFaces(
            seen_NCHW=read_images(protocol.images, chosen.seen, device=cpu).numpy(),
            subjects=chosen.subjects,
            seen_ND=embedding.plain(judge.embedder, protocol.images, chosen.seen),
            gallery_ND=embedding.plain(judge.embedder, protocol.images, chosen.gallery),
            average_CHW=self._average(),
        )

    def _average(self) -> np.ndarray:
        """(3, H, W) mean of public faces."""
        if self._average_CHW is None:
            public = self._experiment.public_images
            assert public is not None
            spread = np.unique(np.linspace(0, len(public) - 1, min(_NUM_AVERAGED, len(public))).astype(int)).tolist()
            total = sum(
                read_images(public, batch, device=torch.device("cpu")).double().sum(dim=0)
                for batch in batches(spread, 64)
            )
            assert isinstance(total, torch.Tensor)
            self._average_CHW = (total / len(spread)).float().numpy()
        return self._average_CHW

    def _embed(self, judge: Judge, faces_NCHW: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(faces_NCHW, dtype=np.float32))
        size, device = self._experiment.batch_size, self._session.device
        rows = [judge.embedder.embed(part.to(device)).cpu() for part in tensor.split(size)]
        return checked_rows(torch.cat(rows).numpy(), len(tensor), what=f"judge {judge.name!r}")

    def _thresholds(self, judge: Judge, protocol: PairProtocol) -> Thresholds:
        return thresholds_of(
            self._experiment, pair_comparisons(protocol, self._session.plain_embeddings(judge, protocol))
        )

    def _draw(self, plan: AttackPlan, protocol: PairProtocol, chosen: ChosenVictims, acted: Acted) -> None:
        """Strips for the report: the victims, what the adversary sees of them, what the attack recovered."""
        victims = self._experiment.victims
        num = 0 if victims is None else min(victims.num_pictured, len(chosen.seen))
        if num == 0 or acted.first_NKPQ is None:
            return
        folder = self._session.workspace.pictures
        write_strip(protocol.images.read(list(chosen.seen[:num])), folder / "original.png")
        seen = picture_of_masked(acted.first_NKPQ[:num], acted.value_range)
        write_strip(seen, folder / f"{'mixed' if plan.granted.sees == 'mixed_images' else 'seen'}--{plan.arm}.png")
        if acted.pictures_NCHW is not None:
            write_strip(rgb_bytes(acted.pictures_NCHW[:num]), folder / f"recovered--{plan.name}.png")


def choose_victims(session: Session) -> ChosenVictims:
    """Draw the victims: people first, then for each an image to attack and another for the gallery."""
    experiment = session.experiment
    assert experiment.victims is not None  # checked before the run
    eligible = eligible_victims(experiment)
    rng = np.random.default_rng(derive_seed(experiment.seed, "victims"))
    people = sorted(eligible)
    drawn = rng.permutation(len(people))[: experiment.victims.num_subjects]
    seen, gallery, subjects = [], [], []
    for place in drawn.tolist():
        first, second = rng.permutation(eligible[people[place]])[:2].tolist()
        seen.append(first)
        gallery.append(second)
        subjects.append(people[place])
    return ChosenVictims(seen=tuple(seen), gallery=tuple(gallery), subjects=tuple(subjects))


def _check_rows(result: AttackResult, num: int) -> None:
    for values in (result.recovered_NCHW, result.embeddings_ND):
        if values is not None and len(values) != num:
            raise ShapeError(f"the attack made {len(values)} rows of {num} observed images; it must make one of each")
