"""Template inversion: embeddings recovered from stolen templates, tried at recognisers and after renewal.

Suffixes: N target subjects, D embedding, K template values, E embedding of another recogniser.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core import STOLEN_TOKEN, ImageSet, InvalidInputError, ShapeError, TemplateMapping, Templates, result_row
from ppfr.evaluation._attack_plan import NO_SECRET, AttackPlan, ControlRule, plan_problems, secret_of
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import (
    TemplateStudy,
    cosines,
    num_cross_comparisons,
    people_of,
    protection_of,
    study_of,
    templates_of,
)
from ppfr.evaluation.measures._attack_run import AttackRunRow
from ppfr.evaluation.measures._unlinkability import (
    MAX_ROLLS,
    LinkabilityFigures,
    linkability_figures,
    template_problems,
)
from ppfr.evaluation.measures._verification import evaluation_stage_name, scores_name
from ppfr.metrics import Estimate, InversionSuccess, inversion_success, mean_with_interval, unlinkability

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

_RIDGE = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PassingAtFmr:
    """How often recovered embeddings are accepted against another image of the subject.

    Attributes:
        fmr: the recogniser's false match rate at the threshold.
        threshold: the recogniser's.
        success: impersonation success rate.
        success_if_solved: the same, unsolved templates counted as failures; None if the attack does not say.
        other_subject: acceptance as other target subjects; None if there is one subject.
        plain: upper bound: how often plain embeddings are accepted.
    """

    fmr: float
    threshold: float
    success: Estimate
    success_if_solved: Estimate | None
    other_subject: Estimate | None
    plain: Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransferFigures:
    """The same at another recogniser, whose embeddings are estimated by a linear map."""

    recogniser: str
    at_fmr: Sequence[PassingAtFmr]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AfterRenewal:
    """What was recovered, against the template of a re-enrolled subject: acceptance, and linkability."""

    accepted: Estimate
    linkability: LinkabilityFigures


@result_row("template_inversion")
class TemplateInversionRow:
    """Outcome of one attack on templates.

    Attributes:
        attack: its name.
        cosine: mean cosine of recovered and enrolled embeddings.
        median_cosine: their median.
        largest_cosine: their maximum.
        solved: share of templates that the attack reports as solved, or None.
        at_fmr: how often recovered embeddings pass, per false match rate.
        transfer: the same at another recogniser, or None.
        after_renewal: against re-enrolled subjects; None without the key.
    """

    attack: str
    cosine: Estimate
    median_cosine: float
    largest_cosine: float
    solved: float | None
    at_fmr: Sequence[PassingAtFmr]
    transfer: TransferFigures | None
    after_renewal: AfterRenewal | None


@result_row("key_selection")
class KeySelectionRow:
    """How keys were selected for the target subjects.

    Attributes:
        system: name of the system.
        in_words: the rule.
        fmr: false match rate of the inversion threshold.
        threshold: the recogniser's at it.
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


@result_row("recogniser_threshold")
class RecogniserThresholdRow:
    """A recogniser's threshold on plain embeddings.

    Attributes:
        recogniser: its name.
        fmr: false match rate.
        threshold: the score.
        num_impostor: non-mated comparisons that it rests on.
        caveat: why it is not to be taken at its word, or "".
    """

    recogniser: str
    fmr: float
    threshold: float
    num_impostor: int
    caveat: str


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InversionRule(ControlRule):
    """When a control of an inversion counts as passed.

    Attributes:
        fmr: false match rate of the first threshold.
        min_cosine: a positive control recovers embeddings whose mean cosine to the enrolled ones is at least this
            (lower end of the interval).
        min_share_of_plain: and passes as at least this share of the subjects as whom their plain embeddings pass.
        max_times_fmr: a negative control passes as no more of them than this many times the false match rate (lower end
            of the interval).
    """

    fmr: float
    min_cosine: float = 0.99
    min_share_of_plain: float = 0.9
    max_times_fmr: float = 1.0

    def win_in_words(self) -> str:
        """What a positive control must show."""
        return (
            f"recovers embeddings of a mean cosine of at least {self.min_cosine:g} (lower end of the interval) and "
            f"passes as at least {100 * self.min_share_of_plain:g} % of the target subjects as whom their plain "
            f"embeddings pass at FMR {self.fmr:g}"
        )

    def chance_in_words(self) -> str:
        """What a negative control must show."""
        most = self.max_times_fmr * self.fmr
        return f"passes as no more than {most:g} of the target subjects at FMR {self.fmr:g} (lower end)"

    def is_met(self, row: TemplateInversionRow, role: str) -> bool:
        """Whether a control came out as it must."""
        first = row.at_fmr[0]
        if role == "positive control":
            passes = first.success.value >= self.min_share_of_plain * first.plain.value
            return bool(passes and row.cosine.low >= self.min_cosine)
        return bool(first.success.low <= self.max_times_fmr * first.fmr)


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TemplateAttackPlan(AttackPlan):
    """One attack on the templates of one system; with `granted.knows_secret` it holds the subjects' keys."""

    rule: InversionRule


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfer:
    """Another recogniser, at which recovered embeddings are tried too by a linear map.

    Attributes:
        recogniser: its name.
        public_images: faces that the map is fitted on; shares no subject with the protocol.
    """

    recogniser: str
    public_images: ImageSet


class GuessedMapping:
    """A `TemplateMapping` under keys that the adversary drew, for an adversary without the real ones."""

    def __init__(self, mapping: TemplateMapping) -> None:
        self._mapping = mapping

    @property
    def num_rows(self) -> int:
        """N."""
        return self._mapping.num_rows

    @property
    def in_dim(self) -> int:
        """D."""
        return self._mapping.in_dim

    @property
    def out_dim(self) -> int:
        """K."""
        return self._mapping.out_dim

    @property
    def is_deployed(self) -> bool:
        """Never."""
        return False

    def apply(self, embeddings_ND: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, K)."""
        return self._mapping.apply(embeddings_ND)

    def pullback(self, embeddings_ND: np.ndarray, gradient_NK: np.ndarray) -> np.ndarray:
        """(N, D): gradient with respect to the embeddings."""
        return self._mapping.pullback(embeddings_ND, gradient_NK)

    def rows(self, indices: Sequence[int]) -> TemplateMapping:
        """The same for some rows."""
        return GuessedMapping(self._mapping.rows(indices))


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateInversion(Measure):
    """What does an adversary with a stolen template, and perhaps its key, recover?

    Args:
        pairs: the protocol whose people are enrolled and attacked.
        plans: the attacks, in the order in which they run.
        num_targets: target subjects, of those with two images or more.
        fmrs: the recogniser's false match rates at whose thresholds a recovered embedding counts as passing.
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
            yield too_many_targets(self.num_targets, num)
        attacked = {plan.system for plan in self.plans}
        selected = [s.name for s in experiment.systems if s.templates is not None and s.templates.selection is not None]
        for name in selected:
            if name not in attacked:
                yield f"system {name!r}: keys are selected for the targets of its attacks, and there is no attack"
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
        yield DataUse(role="protocol", images=self.pairs.used_images(), name=self.pairs.name)

    def attacks(self) -> Sequence[AttackPlan]:
        """The plans."""
        return self.plans

    def stages(self, session: Session) -> Iterable[Stage]:
        """Thresholds, then system by system: keys are drawn, or selected, for one at a time."""
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
        drawn = study.keys(system, num_targets=self.num_targets)
        keys = [drawn[i] for i in targets]
        seen = Templates(templates_NK=templates_of(system, rows_ND, keys).astype(np.float32))
        mapping: TemplateMapping = protection.scheme.mapping(keys)
        if not plan.granted.knows_secret:
            mapping = GuessedMapping(protection.scheme.mapping(study.other_keys(system, len(targets), "guessed")))
        attack = plan.make(session.options("attack", plan.name, resumes=True))
        result = attack.run(seen, mapping, seed=session.seed("attack", attack.name))
        if result.embeddings_ND is None:
            raise InvalidInputError(f"attack {plan.name!r} gave no embeddings; only these can be judged here")
        found_ND = np.asarray(result.embeddings_ND, dtype=np.float64)
        if found_ND.shape != rows_ND.shape:
            raise ShapeError(f"attack {plan.name!r} gave shape {found_ND.shape} for targets of shape {rows_ND.shape}")
        row = self._row(session, study, plan, targets, rows_ND=rows_ND, found_ND=found_ND, solved_N=result.solved_N)
        return [
            row,
            AttackRunRow(
                attack=plan.name,
                num_targets=len(targets),
                num_images=len(targets),
                is_control_met=None if plan.role == "attack" else plan.rule.is_met(row, plan.role),
                notes=dict(result.notes),
            ),
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
        cosine_N, settings = cosines(found_ND, rows_ND), _settings(session)
        embeddings = found_ND, rows_ND, another_ND
        renews = plan.granted.knows_secret and protection_of(system).selection is None
        return TemplateInversionRow(
            attack=plan.name,
            cosine=mean_with_interval(cosine_N, targets, **settings),
            median_cosine=float(np.median(cosine_N)),
            largest_cosine=float(cosine_N.max()),
            solved=None if solved_N is None else float(np.mean(solved_N)),
            at_fmr=[
                _passing(threshold.threshold, threshold.fmr, targets, embeddings, solved_N=solved_N, settings=settings)
                for threshold in (study.threshold(recogniser, fmr) for fmr in self.fmrs)
            ],
            transfer=self._transfer(session, study, targets, rows_ND, found_ND),
            after_renewal=_after_renewal(session, study, system, targets, found_ND) if renews else None,
        )

    def _transfer(
        self, session: Session, study: TemplateStudy, targets: np.ndarray, rows_ND: np.ndarray, found_ND: np.ndarray
    ) -> TransferFigures | None:
        if self.transfer is None:
            return None
        other = session.experiment.recogniser(self.transfer.recogniser)
        map_DE = session.once(("map", self.pairs.name, other.name), functools.partial(self._map, session, study, other))
        rows = found_ND @ map_DE, rows_ND @ map_DE, study.rows(other)[study.people.another_S[targets]]
        passing = [
            _passing(study.threshold(other, fmr).threshold, fmr, targets, rows, settings=_settings(session))
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


def threshold_stage_name(recogniser: str, fmr: float) -> str:
    """Name of the stage that leaves a recogniser's threshold."""
    return f"threshold/{recogniser}/{fmr:g}"


def threshold_stages(session: Session, pairs: PairProtocol, recogniser: str, fmrs: Sequence[float]) -> Iterable[Stage]:
    """One stage per false match rate; the first embeds all images of the protocol."""
    for number, fmr in enumerate(dict.fromkeys(fmrs)):
        yield Stage(
            name=threshold_stage_name(recogniser, fmr),
            title=f"Set the threshold of {recogniser} at FMR {fmr:g}",
            weight=0.1 if number else 40,
            after=(),
            measure=functools.partial(_threshold, session, pairs, recogniser, fmr),
        )


def _threshold(session: Session, pairs: PairProtocol, recogniser: str, fmr: float) -> list[RecogniserThresholdRow]:
    found = study_of(session, pairs).threshold(session.experiment.recogniser(recogniser), fmr)
    return [RecogniserThresholdRow(recogniser=recogniser, **dataclasses.asdict(found))]


def too_many_targets(num: int, num_people: int) -> str:
    """The problem of a number of target subjects that the protocol does not have."""
    return f"{num} target subjects; {num_people} claimed people have two images or more: allowed is 2 to {num_people}"


def fmr_problems(fmrs: Sequence[float], pairs: PairProtocol) -> Iterable[str]:
    """False match rates outside (0, 1], or below what the protocol's people can show."""
    if not fmrs or any(not 0 < fmr <= 1 for fmr in fmrs):
        yield f"FMRs {tuple(fmrs)}; each must lie in (0, 1]"
        return
    num = num_cross_comparisons(len(people_of(pairs).subjects))
    if num * min(fmrs) < 1:
        yield (
            f"FMR {min(fmrs):g} cannot be shown with {num} impostor comparisons of the recogniser; test on more "
            "people, or ask for a higher FMR"
        )


def _settings(session: Session) -> dict[str, Any]:
    return {"seed": session.seed("bootstrap"), "num_resamples": session.experiment.num_resamples}


def _passing(
    threshold: float,
    fmr: float,
    targets: np.ndarray,
    found_plain_another: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    solved_N: np.ndarray | None = None,
    settings: Mapping[str, Any],
) -> PassingAtFmr:
    """How often recovered embeddings are accepted against another image, and plain ones."""
    found_ND, plain_ND, another_ND = found_plain_another

    def success(rows_ND: np.ndarray, solved: np.ndarray | None = None) -> InversionSuccess:
        return inversion_success(
            rows_ND, targets, another_ND, targets, threshold=threshold, solved_N=solved, **settings
        )

    found = success(found_ND)
    return PassingAtFmr(
        fmr=fmr,
        threshold=threshold,
        success=found.success,
        success_if_solved=None if solved_N is None else success(found_ND, solved_N).success,
        other_subject=found.other_subject,
        plain=success(plain_ND).success,
    )


def _after_renewal(
    session: Session, study: TemplateStudy, system: System, targets: np.ndarray, found_ND: np.ndarray
) -> AfterRenewal:
    """The subject was re-enrolled from another image under a fresh key, which the adversary holds too."""
    drawn = study.keys(system, renewal=1)
    keys = [drawn[i] for i in targets]
    renewed_NK = templates_of(system, study.rows_of(system)[study.people.another_S[targets]], keys)

    def scores(by: int) -> np.ndarray:
        """What is recovered of one subject, against the renewed template of the one who is `by` places on."""
        order = np.roll(np.arange(len(targets)), -by)
        mapped_NK = templates_of(system, found_ND, [keys[i] for i in order])
        return cosines(mapped_NK, renewed_NK[order])

    mated_N, settings = scores(0), _settings(session)
    link = unlinkability(
        mated_N,
        np.concatenate([scores(by) for by in range(1, min(MAX_ROLLS, len(targets) - 1) + 1)]),
        mated_subjects=targets,
        score_range=(-1.0, 1.0),
        **settings,
    )
    own = session.workspace.read_scores(system.name, scores_name(study.pairs, STOLEN_TOKEN))
    is_accepted_N = (mated_N >= study.own_threshold(own)).astype(np.float64)
    return AfterRenewal(
        accepted=mean_with_interval(is_accepted_N, targets, is_share=True, **settings),
        linkability=linkability_figures(link),
    )


def _selection_fmr(system: System, recogniser: str) -> float | None:
    """False match rate that a system's keys are selected at, if they are, by embeddings of this recogniser."""
    if system.templates is None or system.templates.selection is None or system.recogniser != recogniser:
        return None
    return system.templates.selection.fmr


def _with_keys(system: System, plan: AttackPlan) -> str:
    secret = secret_of(plan, system)
    return "" if secret == NO_SECRET else f", keys {secret}"
