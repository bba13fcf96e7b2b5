"""Oracle attacks: templates recovered by hill climbing on a matcher's scores or decisions, within a query budget.

Suffixes: N target subjects, K template values, D embedding, P faces of the adversary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from ppfr.core import (
    DecisionOracle,
    ImageSet,
    MatchOracle,
    OracleAnswers,
    RangeError,
    ScoreOracle,
    check_query_budgets,
    result_row,
)
from ppfr.evaluation._attack_plan import AttackPlan, ControlRule, plan_problems
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import (
    TemplateStudy,
    cosines,
    num_targets_problem,
    people_of,
    study_of,
    templates_of,
    unit,
)
from ppfr.evaluation.measures._attack_run import AttackRunRow
from ppfr.evaluation.measures._recogniser_threshold import RecogniserThresholdRow, fmr_problems, threshold_stages
from ppfr.evaluation.measures._unlinkability import template_problems
from ppfr.evaluation.measures._verification import evaluation_stage_name
from ppfr.metrics import Estimate, mean_with_interval, threshold_at_far

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

_MAX_ROLLS = 25

Reveal = Callable[[np.ndarray, float], OracleAnswers]
"""((N, K) templates of the targets, the threshold) -> the matcher's answers to a client."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OracleAcceptance:
    """How often recovered templates are accepted: as the enrolled template, and against one of another image."""

    fmr: float
    threshold: float
    enrolled: Estimate
    another: Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OracleBudget:
    """Outcome at one query budget.

    Attributes:
        num_queries: queries allowed per subject.
        median_asked: queries made per subject, median.
        cosine: mean cosine of recovered and enrolled templates.
        at_fmr: acceptance per false match rate.
    """

    num_queries: int
    median_asked: float
    cosine: Estimate
    at_fmr: Sequence[OracleAcceptance]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhotographAcceptance:
    """How often a photograph of the subject is accepted, for comparison."""

    fmr: float
    accepted: Estimate


@result_row("oracle_attack")
class OracleAttackRow:
    """Outcome of one attack on one matcher.

    Attributes:
        attack: its name.
        dim: K.
        answers: kind of the matcher's answers, in words.
        starts_from: "faces" of other people, or a "photograph" of the subject.
        by_budget: outcome per query budget.
        without_queries: acceptance of what an adversary without queries presents.
        photograph: acceptance of a photograph.
    """

    attack: str
    dim: int
    answers: str
    starts_from: Literal["faces", "photograph"]
    by_budget: Sequence[OracleBudget]
    without_queries: Sequence[OracleAcceptance]
    photograph: Sequence[PhotographAcceptance]


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OracleRule(ControlRule):
    """When a control of an oracle attack counts as passed, at its last budget and the first false match rate.

    Attributes:
        fmr: the first false match rate.
        min_cosine: a positive control recovers templates whose mean cosine to the enrolled ones is at least this (lower
            end of the interval).
        max_times_fmr: a negative control is accepted against another image as at most this many times the false match
            rate of the subjects (lower end of the interval), or as at most the share that an adversary without queries
            reaches (upper end).
    """

    fmr: float
    min_cosine: float = 0.99
    max_times_fmr: float = 1.0

    def win_in_words(self) -> str:
        """What a positive control must show."""
        return f"recovers templates of a mean cosine of at least {self.min_cosine:g} (lower end of the interval)"

    def chance_in_words(self) -> str:
        """What a negative control must show."""
        return (
            f"passes, against another image at FMR {self.fmr:g}, as no more than {self.max_times_fmr * self.fmr:g} of "
            "the target subjects (lower end), or as no more than an adversary without queries (its upper end)"
        )

    def is_met(self, row: OracleAttackRow, role: str) -> bool:
        """Whether a control passed, at its last budget."""
        last = row.by_budget[-1]
        if role == "positive control":
            return bool(last.cosine.low >= self.min_cosine)
        first, unqueried = last.at_fmr[0], row.without_queries[0].another
        return bool(first.another.low <= max(self.max_times_fmr * first.fmr, unqueried.high))


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OracleAttackPlan(AttackPlan):
    """One attack on the matcher of one system by a client without key and template.

    Attributes:
        answers: kind of the matcher's answers, in words.
        reveal: the matcher. Decisions use the system's threshold at the first false match rate.
        query_budgets: numbers of queries per subject, ascending.
        num_targets: number of target subjects, drawn from the measure's.
        starts_from: "faces" of other people, or a "photograph" of the subject. The photograph is the third image, so
            only people with three images are attacked.
    """

    rule: OracleRule
    answers: str
    reveal: Reveal
    query_budgets: Sequence[int]
    num_targets: int
    starts_from: Literal["faces", "photograph"] = "faces"

    def extra_config(self) -> Mapping[str, Any]:
        """Answers, query budgets and start."""
        return {
            "answers": self.answers,
            "starts_from": self.starts_from,
            "num_targets": self.num_targets,
            "budgets": list(self.query_budgets),
        }


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class OracleAttacks(Measure):
    """How many queries does a client need to be accepted as another person?

    Args:
        pairs: the protocol whose people are enrolled and attacked.
        plans: the attacks, in the order in which they run.
        public_images: faces of the adversaries, of which the first image of each person is used; they share no subject
            with `pairs`.
        num_targets: number of people that the plans' target subjects are drawn from.
        fmrs: false match rates at whose thresholds acceptance of recovered templates is reported.
    """

    pairs: PairProtocol
    plans: Sequence[OracleAttackPlan]
    public_images: ImageSet
    num_targets: int
    fmrs: Sequence[float] = (1e-3, 1e-4)
    results = (RecogniserThresholdRow, AttackRunRow, OracleAttackRow)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Plans, budgets and numbers of target subjects that do not fit."""
        yield from template_problems(experiment)
        yield from plan_problems(self.plans, experiment, control_is_system=False)
        yield from fmr_problems(self.fmrs, self.pairs)
        people, systems = people_of(self.pairs), {system.name: system for system in experiment.systems}
        num = len(people.attackable())
        if not 2 <= self.num_targets <= num:
            yield num_targets_problem(self.num_targets, num)
        num_started = int(((people.third_S >= 0) & people.is_claimed_S).sum())
        for plan in self.plans:
            if plan.system in systems and not systems[plan.system].recognises:
                yield f"attack {plan.name!r}: system {plan.system!r} has selected keys, but no thresholds of its own"
            if plan.granted.sees not in (ScoreOracle, DecisionOracle):
                yield f"attack {plan.name!r}: sees {plan.granted.sees.__name__}; allowed is ScoreOracle, DecisionOracle"
            if not 2 <= plan.num_targets <= self.num_targets:
                yield f"attack {plan.name!r}: {plan.num_targets} target subjects; allowed is 2 to {self.num_targets}"
            if plan.starts_from == "photograph" and num_started < 2:
                yield (
                    f"attack {plan.name!r}: starts from a third image, which {num_started} people have; use another "
                    "protocol, or starts_from='faces'"
                )
            try:
                check_query_budgets(plan.query_budgets)
            except RangeError as error:
                yield f"attack {plan.name!r}: {error}"

    def config(self) -> Mapping[str, Any]:
        """Plans and numbers."""
        return {
            "pairs": self.pairs.name,
            "plans": [plan.config() for plan in self.plans],
            "num_targets": self.num_targets,
            "fmrs": list(self.fmrs),
        }

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses, and the adversaries' own."""
        yield DataUse(role="public", images=self.public_images)
        yield DataUse.of_protocol(self.pairs)

    def attacks(self) -> Sequence[AttackPlan]:
        """The plans."""
        return self.plans

    def stages(self, session: Session) -> Iterable[Stage]:
        """Thresholds, then system by system: keys are drawn for one system at a time."""
        for name in dict.fromkeys(plan.recogniser for plan in self.plans):
            yield from threshold_stages(session, self.pairs, name, self.fmrs)
        for system in session.experiment.systems:
            for plan in self.plans:
                if plan.system == system.name:
                    yield Stage(
                        name=f"ask/{plan.name}",
                        title=f"{plan.label} on {system.label}: {plan.answers}",
                        weight=3,
                        after=(evaluation_stage_name(system),),
                        measure=functools.partial(self._attack, session, plan),
                    )

    def _attack(self, session: Session, plan: OracleAttackPlan) -> list[Any]:
        study, system = study_of(session, self.pairs), session.experiment.system(plan.system)
        people, targets, rows_ND = study.people, self._targets(session, study, plan), study.rows_of(system)
        drawn = study.keys(system)
        keys = [drawn[i] for i in targets]
        enrolled_NK, another_NK = (
            templates_of(system, rows_ND[images_S[targets]], keys) for images_S in (people.enrolled_S, people.another_S)
        )
        starts_NK = None
        if plan.starts_from == "photograph":
            starts_NK = templates_of(system, rows_ND[people.third_S[targets]], keys)
        thresholds = self._thresholds(session, study, system)
        attack = plan.make(session.options("attack", plan.name, resumes=True))
        oracle = _oracle(plan, enrolled_NK, thresholds[0])
        own_PK = self._own(session, study, system)
        result = attack.run(
            oracle,
            own_PK,
            starts_NK=starts_NK,
            query_budgets=plan.query_budgets,
            seed=session.seed("attack", attack.name),
        )

        def accepted(found_NK: np.ndarray) -> list[OracleAcceptance]:
            return [
                OracleAcceptance(
                    fmr=fmr,
                    threshold=threshold,
                    enrolled=_mean(session, cosines(found_NK, enrolled_NK) >= threshold, targets),
                    another=_mean(session, cosines(found_NK, another_NK) >= threshold, targets),
                )
                for fmr, threshold in zip(self.fmrs, thresholds, strict=True)
            ]

        row = OracleAttackRow(
            attack=plan.name,
            dim=enrolled_NK.shape[1],
            answers=plan.answers,
            starts_from=plan.starts_from,
            by_budget=[
                OracleBudget(
                    num_queries=budget,
                    median_asked=float(np.median(num_queries_N)),
                    cosine=_mean(session, cosines(found_NK, enrolled_NK), targets, is_share=False),
                    at_fmr=accepted(found_NK),
                )
                for budget, found_NK, num_queries_N in zip(
                    result.query_budgets, result.templates_LNK, result.num_queries_LN, strict=True
                )
            ],
            without_queries=accepted(np.tile(_most_accepted(own_PK, thresholds[0]), (len(targets), 1))),
            photograph=[
                PhotographAcceptance(fmr=each.fmr, accepted=each.enrolled)
                for each in accepted(another_NK if starts_NK is None else starts_NK)
            ],
        )
        return [
            row,
            AttackRunRow(
                attack=plan.name,
                num_targets=len(targets),
                num_images=len(targets),
                is_control_met=None if plan.role == "attack" else plan.rule.is_met(row, plan.role),
                notes={**result.notes, "num_own": len(own_PK)},
            ),
        ]

    def _targets(self, session: Session, study: TemplateStudy, plan: OracleAttackPlan) -> np.ndarray:
        """Indices of people. A plan with fewer targets attacks a subset of those of a plan with more."""
        order = np.random.default_rng(session.seed("query victims")).permutation(study.targets(self.num_targets))
        if plan.starts_from == "photograph":
            order = order[study.people.third_S[order] >= 0]
        return np.asarray(order[: plan.num_targets])

    def _own(self, session: Session, study: TemplateStudy, system: System) -> np.ndarray:
        """(P, K) the adversary's faces as templates of the system, under keys that the adversary draws."""
        first: dict[str, int] = {}
        for index, subject in enumerate(self.public_images.subject_ids):
            first.setdefault(subject, index)
        rows_PD = study.all_rows(study.recogniser_of(system), self.public_images, sorted(first.values()))
        return templates_of(system, rows_PD, study.other_keys(system, len(rows_PD), "own faces"))

    def _thresholds(self, session: Session, study: TemplateStudy, system: System) -> list[float]:
        """The system's thresholds at `fmrs`: the recogniser's, or those of mapped templates if it has keys."""
        if not system.is_keyed:
            return [study.threshold(study.recogniser_of(system), fmr).threshold for fmr in self.fmrs]
        key = ("mapped thresholds", self.pairs.name, system.name, tuple(self.fmrs))
        return session.once(key, lambda: _mapped_thresholds(study, system, self.fmrs))


def _oracle(plan: OracleAttackPlan, enrolled_NK: np.ndarray, threshold: float) -> MatchOracle:
    """The matcher as the adversary of a plan queries it."""
    answers, (num_targets, dim) = plan.reveal(enrolled_NK, threshold), enrolled_NK.shape
    if plan.granted.sees is DecisionOracle:
        return DecisionOracle(answers, num_targets=num_targets, dim=dim, threshold=threshold)
    return ScoreOracle(answers, num_targets=num_targets, dim=dim)


def _mapped_thresholds(study: TemplateStudy, system: System, fmrs: Sequence[float]) -> list[float]:
    """Thresholds of mapped templates; impostors are the next people in the list, under the claimed key."""
    people, keys = study.people, study.keys(system)
    first_SD = study.rows_of(system)[people.enrolled_S]
    template_SK = templates_of(system, first_SD, keys)
    impostor = [
        cosines(template_SK, templates_of(system, np.roll(first_SD, -by, axis=0), keys))
        for by in range(1, min(_MAX_ROLLS, len(first_SD) - 1) + 1)
    ]
    two = people.with_two()
    another = templates_of(system, study.rows_of(system)[people.another_S[two]], [keys[i] for i in two])
    genuine = cosines(template_SK[two], another)
    return [float(threshold_at_far(genuine, np.concatenate(impostor), fmr)) for fmr in fmrs]


def _mean(session: Session, values_N: np.ndarray, targets: np.ndarray, *, is_share: bool = True) -> Estimate:
    return mean_with_interval(
        values_N.astype(np.float64),
        targets,
        is_share=is_share,
        seed=session.seed("bootstrap"),
        num_resamples=session.experiment.num_resamples,
    )


def _most_accepted(own_PK: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) what an adversary without queries presents.

    Of its own templates and their mean, this is the one that most of its templates match.
    """
    candidates = np.concatenate([own_PK, unit(own_PK.mean(axis=0, keepdims=True))])
    accepted_P = [np.count_nonzero(own_PK @ row_K >= threshold) for row_K in candidates]
    return np.asarray(candidates[int(np.argmax(accepted_P))])
