"""Template inversion: embeddings recovered from stolen templates, presented to recognisers and after renewal.

Suffixes: N target subjects, D embedding, K template values, E embedding of another recogniser.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core import ImageSet, InvalidInputError, ShapeError, SubjectKey, TemplateMapping, Templates, result_row
from ppfr.evaluation._attack_plan import NO_SECRET, AttackPlan, plan_problems, secret_of
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import (
    GuessedMapping,
    TemplateStudy,
    cosines,
    num_targets_problem,
    people_of,
    protection_of,
    study_of,
    templates_of,
)
from ppfr.evaluation.measures._attack_run import AttackRunRow
from ppfr.evaluation.measures._inversion_outcome import (
    InversionRule,
    TemplateInversionRow,
    TransferFigures,
    after_renewal,
    bootstrap_settings,
    passing_at_fmr,
)
from ppfr.evaluation.measures._recogniser_threshold import (
    RecogniserThresholdRow,
    fmr_problems,
    threshold_stage_name,
    threshold_stages,
)
from ppfr.evaluation.measures._unlinkability import template_problems
from ppfr.evaluation.measures._verification import evaluation_stage_name
from ppfr.metrics import mean_with_interval

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

_RIDGE = 1e-3


@result_row("key_selection")
class KeySelectionRow:
    """How keys were selected for the target subjects.

    Attributes:
        system: name of the system.
        in_words: the rule.
        fmr: false match rate of the inversion threshold.
        threshold: the recogniser's threshold at this rate.
        num_people: subjects whose key was selected.
        mean_tried: keys tried per subject.
        share_below: share of subjects with a key below the threshold.
    """

    system: str
    in_words: str
    fmr: float
    threshold: float
    num_people: int
    mean_tried: float
    share_below: float


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TemplateAttackPlan(AttackPlan):
    """One attack on the templates of one system; with `granted.knows_secret` it holds the subjects' keys."""

    rule: InversionRule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfer:
    """Another recogniser, to which recovered embeddings are presented through a linear map.

    Attributes:
        recogniser: its name.
        public_images: faces that the map is fitted on; they share no subject with the protocol.
    """

    recogniser: str
    public_images: ImageSet


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateInversion(Measure):
    """What does an adversary with a stolen template, and perhaps its key, recover?

    An attack with `num_templates` R > 1 gets R templates of the enrolled image under R keys, as if the subject had
    enrolled one photo at R services: the worst case of record multiplicity.

    Args:
        pairs: the protocol whose people are enrolled and attacked.
        plans: the attacks, in the order in which they run.
        num_targets: target subjects, of those with two images or more.
        fmrs: the recogniser's false match rates at whose thresholds acceptance of recovered embeddings is reported.
        transfer: another recogniser, or None.
    """

    pairs: PairProtocol
    plans: Sequence[TemplateAttackPlan]
    num_targets: int
    fmrs: Sequence[float] = (1e-3, 1e-4)
    transfer: Transfer | None = None
    results = (RecogniserThresholdRow, KeySelectionRow, AttackRunRow, TemplateInversionRow)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Plans, rates and numbers of target subjects that do not fit."""
        yield from template_problems(experiment)
        yield from plan_problems(self.plans, experiment)
        yield from fmr_problems(self.fmrs, self.pairs)
        num = len(people_of(self.pairs).attackable())
        if self.plans and not 2 <= self.num_targets <= num:
            yield num_targets_problem(self.num_targets, num)
        attacked = {plan.system for plan in self.plans}
        selected = [s.name for s in experiment.systems if s.templates is not None and s.templates.selection is not None]
        for name in selected:
            if name not in attacked:
                yield f"system {name!r}: keys are selected for the targets of its attacks, but it has no attack"
        if self.transfer is not None and self.transfer.recogniser not in {r.name for r in experiment.recognisers}:
            yield f"transfer: there is no evaluation recogniser {self.transfer.recogniser!r}"

    def config(self) -> Mapping[str, Any]:
        """Plans and numbers."""
        return {
            "pairs": self.pairs.name,
            "plans": [plan.config() for plan in self.plans],
            "num_targets": self.num_targets,
            "fmrs": list(self.fmrs),
            "transfer": None if self.transfer is None else self.transfer.recogniser,
        }

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses, and public faces of the transfer."""
        if self.transfer is not None:
            yield DataUse(role="public", images=self.transfer.public_images)
        yield DataUse.of_protocol(self.pairs)

    def attacks(self) -> Sequence[AttackPlan]:
        """The plans."""
        return self.plans

    def stages(self, session: Session) -> Iterable[Stage]:
        """Thresholds, then system by system: keys are drawn or selected for one system at a time."""
        experiment = session.experiment
        names = list(dict.fromkeys(plan.recogniser for plan in self.plans))
        names += [] if self.transfer is None else [self.transfer.recogniser]
        for name in names:
            chosen = [fmr for s in experiment.systems if (fmr := _selection_fmr(s, name)) is not None]
            yield from threshold_stages(session, self.pairs, name, [*self.fmrs, *chosen])
        for system in experiment.systems:
            plans = [plan for plan in self.plans if plan.system == system.name]
            after, selection_fmr = evaluation_stage_name(system), _selection_fmr(system, system.recogniser)
            if plans and selection_fmr is not None:
                after = f"select/{system.name}"
                yield Stage(
                    name=after,
                    title=f"Select the target subjects' keys for {system.label}",
                    weight=4,
                    after=(threshold_stage_name(system.recogniser, selection_fmr),),
                    measure=functools.partial(self._select, session, system),
                )
            for plan in plans:
                yield Stage(
                    name=f"invert/{plan.name}",
                    title=f"{plan.label} on {system.label}{_with_keys(system, plan)}",
                    weight=6,
                    after=(after, *(threshold_stage_name(plan.recogniser, fmr) for fmr in self.fmrs)),
                    measure=functools.partial(self._invert, session, plan),
                )

    def _select(self, session: Session, system: System) -> list[KeySelectionRow]:
        selection = protection_of(system).selection
        found = study_of(session, self.pairs).selected(system, self.num_targets)
        assert selection is not None
        return [
            KeySelectionRow(
                system=system.name,
                in_words=selection.in_words,
                fmr=selection.fmr,
                threshold=found.threshold,
                num_people=found.num_people,
                mean_tried=found.mean_tried,
                share_below=found.share_below,
            )
        ]

    def _invert(self, session: Session, plan: TemplateAttackPlan) -> list[Any]:
        study, system = study_of(session, self.pairs), session.experiment.system(plan.system)
        targets, protection = study.targets(self.num_targets), protection_of(system)
        rows_ND = study.rows_of(system)[study.people.enrolled_S[targets]]
        attack = plan.make(session.options("attack", plan.name, resumes=True))
        keys = self._keys(study, system, targets, num_templates=attack.num_templates)
        enrolled_ND = np.repeat(rows_ND, attack.num_templates, axis=0)
        seen = Templates(templates_NK=templates_of(system, enrolled_ND, keys).astype(np.float32))
        mapping: TemplateMapping = protection.scheme.mapping(keys)
        if not plan.granted.knows_secret:
            mapping = GuessedMapping(protection.scheme.mapping(study.other_keys(system, len(keys), "guessed")))
        result = attack.run(seen, mapping, seed=session.seed("attack", attack.name))
        if result.embeddings_ND is None:
            raise InvalidInputError(
                f"Attack {plan.name!r} returned no embeddings. Return `AttackResult(embeddings_ND=...)`."
            )
        found_ND = np.asarray(result.embeddings_ND, dtype=np.float64)
        if found_ND.shape != rows_ND.shape:
            raise ShapeError(
                f"Attack {plan.name!r} returned embeddings of shape {found_ND.shape}, expected {rows_ND.shape}."
            )
        row = self._row(session, study, plan, targets, rows_ND=rows_ND, found_ND=found_ND, solved_N=result.solved_N)
        return [
            row,
            AttackRunRow(
                attack=plan.name,
                num_targets=len(targets),
                num_images=len(keys),
                is_control_met=None if plan.role == "attack" else plan.rule.is_met(row, plan.role),
                notes=dict(result.notes),
            ),
        ]

    def _keys(
        self, study: TemplateStudy, system: System, targets: np.ndarray, *, num_templates: int
    ) -> list[SubjectKey]:
        """Keys of each subject's templates in turn: the deployment's, then those of enrolments elsewhere."""
        drawn, num_others = study.keys(system, num_targets=self.num_targets), num_templates - 1
        others: Sequence[SubjectKey] = []
        if num_others:
            others = study.other_keys(system, len(targets) * num_others, "record multiplicity")
        return [
            key
            for row, target in enumerate(targets)
            for key in (drawn[target], *others[row * num_others : (row + 1) * num_others])
        ]

    def _row(
        self,
        session: Session,
        study: TemplateStudy,
        plan: TemplateAttackPlan,
        targets: np.ndarray,
        *,
        rows_ND: np.ndarray,
        found_ND: np.ndarray,
        solved_N: np.ndarray | None,
    ) -> TemplateInversionRow:
        system, recogniser = session.experiment.system(plan.system), session.experiment.recogniser(plan.recogniser)
        another_ND = study.rows(recogniser)[study.people.another_S[targets]]
        cosine_N, settings = cosines(found_ND, rows_ND), bootstrap_settings(session)
        renews = plan.granted.knows_secret and protection_of(system).selection is None
        return TemplateInversionRow(
            attack=plan.name,
            cosine=mean_with_interval(cosine_N, targets, **settings),
            median_cosine=float(np.median(cosine_N)),
            largest_cosine=float(cosine_N.max()),
            solved=None if solved_N is None else float(np.mean(solved_N)),
            at_fmr=[
                passing_at_fmr(
                    study.threshold(recogniser, fmr),
                    targets,
                    found_ND=found_ND,
                    plain_ND=rows_ND,
                    another_ND=another_ND,
                    solved_N=solved_N,
                    settings=settings,
                )
                for fmr in self.fmrs
            ],
            transfer=self._transfer(session, study, targets, rows_ND, found_ND),
            after_renewal=after_renewal(session, study, system, targets, found_ND) if renews else None,
        )

    def _transfer(
        self, session: Session, study: TemplateStudy, targets: np.ndarray, rows_ND: np.ndarray, found_ND: np.ndarray
    ) -> TransferFigures | None:
        if self.transfer is None:
            return None
        other = session.experiment.recogniser(self.transfer.recogniser)
        map_DE = session.once(("map", self.pairs.name, other.name), functools.partial(self._map, session, study, other))
        passing = [
            passing_at_fmr(
                study.threshold(other, fmr),
                targets,
                found_ND=found_ND @ map_DE,
                plain_ND=rows_ND @ map_DE,
                another_ND=study.rows(other)[study.people.another_S[targets]],
                settings=bootstrap_settings(session),
            )
            for fmr in self.fmrs
        ]
        return TransferFigures(recogniser=other.name, at_fmr=passing)

    def _map(self, session: Session, study: TemplateStudy, other: EvaluationRecogniser) -> np.ndarray:
        """(D, E) ridge regression from the recogniser's embeddings to the other's, on public faces."""
        assert self.transfer is not None
        images = self.transfer.public_images
        everything = list(range(len(images)))
        own = session.experiment.recogniser(self.plans[0].recogniser)
        a_PD, b_PE = (study.all_rows(recogniser, images, everything) for recogniser in (own, other))
        gram_DD = a_PD.T @ a_PD
        ridge_DD = _RIDGE * np.trace(gram_DD) / len(gram_DD) * np.eye(len(gram_DD))
        return np.asarray(np.linalg.solve(gram_DD + ridge_DD, a_PD.T @ b_PE))


def _selection_fmr(system: System, recogniser: str) -> float | None:
    """False match rate that a system's keys are selected at, if they are, by embeddings of this recogniser."""
    if system.templates is None or system.templates.selection is None or system.recogniser != recogniser:
        return None
    return system.templates.selection.fmr


def _with_keys(system: System, plan: AttackPlan) -> str:
    secret = secret_of(plan, system)
    return "" if secret == NO_SECRET else f", keys {secret}"
