"""Renewal: whether re-enrolled subjects are recognised as before, and whether their old templates are rejected."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core import STOLEN_TOKEN, result_row
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import OWN_FAR, cosines, study_of, templates_of
from ppfr.evaluation.measures._unlinkability import template_problems
from ppfr.evaluation.measures._verification import evaluation_stage_name, scores_name
from ppfr.metrics import Estimate, mean_with_interval, roc

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


@result_row("renewal")
class RenewalRow:
    """Re-enrolment of all subjects under new keys.

    Attributes:
        system: name of the system.
        num_renewals: number of re-enrolments.
        num_comparisons: comparisons per rate.
        far: false accept rate of `tar_at_far` and of the threshold of the system.
        eer: equal error rate after each renewal, stolen-token scenario.
        tar_at_far: true accept rate after each renewal.
        old_template_accepted: share of old templates that are accepted in place of the new template of the same image.
    """

    system: str
    num_renewals: int
    num_comparisons: int
    far: float
    eer: Sequence[float]
    tar_at_far: Sequence[float]
    old_template_accepted: Estimate


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Renewal(Measure):
    """Are subjects recognised as before after re-enrolment, and are their old templates rejected?

    Args:
        pairs: the protocol whose subjects are enrolled.
        num_renewals: number of re-enrolments, each under new keys.
    """

    pairs: PairProtocol
    num_renewals: int = 5
    results = (RenewalRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Template schemes that do not fit their recogniser, and a number of renewals below 1."""
        yield from template_problems(experiment)
        if self.num_renewals < 1:
            yield f"num_renewals={self.num_renewals}; use at least 1"

    def config(self) -> Mapping[str, Any]:
        """The protocol and the number of renewals."""
        return {"pairs": self.pairs.name, "num_renewals": self.num_renewals}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses."""
        return [DataUse.of_protocol(self.pairs)]

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per system without key selection."""
        return [
            Stage(
                name=f"renew/{system.name}",
                title=f"Renew templates of {system.label}",
                weight=0.5,
                after=(evaluation_stage_name(system),),
                measure=functools.partial(self._renew, session, system),
            )
            for system in session.experiment.systems
            if system.templates is not None and system.recognises
        ]

    def _renew(self, session: Session, system: System) -> list[RenewalRow]:
        study = study_of(session, self.pairs)
        people, rows_ND, two = study.people, study.rows_of(system), study.people.with_two()
        threshold = study.own_threshold(
            session.workspace.read_scores(system.name, scores_name(self.pairs, STOLEN_TOKEN))
        )
        templates = []
        for renewal in (0, 1):
            keys = study.keys(system, renewal=renewal)
            templates.append(templates_of(system, rows_ND[people.enrolled_S[two]], [keys[i] for i in two]))
        share = mean_with_interval(
            (cosines(*templates) >= threshold).astype(np.float64),
            two,
            seed=session.seed("bootstrap"),
            num_resamples=session.experiment.num_resamples,
            is_share=True,
        )
        curves = []
        for renewal in range(1, self.num_renewals + 1):
            scores_N = study.scores(system, is_stolen=True, renewal=renewal)
            curves.append(roc(scores_N[self.pairs.is_genuine], scores_N[~self.pairs.is_genuine]))
        return [
            RenewalRow(
                system=system.name,
                num_renewals=self.num_renewals,
                num_comparisons=len(self.pairs),
                far=OWN_FAR,
                eer=[float(curve.eer()) for curve in curves],
                tar_at_far=[float(curve.tar_at_far(OWN_FAR)) for curve in curves],
                old_template_accepted=share,
            )
        ]
