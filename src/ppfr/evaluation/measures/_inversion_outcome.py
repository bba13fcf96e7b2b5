"""What an inversion of templates achieved: similarity, impersonation, transfer to other recognisers, renewal.

Suffixes: N target subjects, D embedding, K template values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from ppfr.core import STOLEN_TOKEN, result_row
from ppfr.evaluation._attack_plan import ControlRule
from ppfr.evaluation._experiment import System
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import RecogniserThreshold, TemplateStudy, cosines, templates_of
from ppfr.evaluation.measures._unlinkability import MAX_ROLLS, LinkabilityFigures, linkability_figures
from ppfr.evaluation.measures._verification import scores_name
from ppfr.metrics import Estimate, InversionSuccess, inversion_success, mean_with_interval, unlinkability


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PassingAtFmr:
    """How often recovered embeddings are accepted against another image of the subject.

    Attributes:
        fmr: the recogniser's false match rate at the threshold.
        threshold: the recogniser's.
        success: impersonation success rate.
        success_if_solved: the same, unsolved templates counted as failures; None if the attack
            does not report it.
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
    """Recovered embeddings against the templates of re-enrolled subjects: acceptance, and linkability."""

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
        at_fmr: how often recovered embeddings are accepted, per false match rate.
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


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InversionRule(ControlRule):
    """When a control of an inversion counts as passed.

    Attributes:
        fmr: false match rate of the first threshold.
        min_cosine: a positive control recovers embeddings whose mean cosine to the enrolled ones is at least this
            (lower end of the interval).
        min_share_of_plain: and is accepted as at least this share of the subjects whose plain embeddings are accepted.
        max_times_fmr: a negative control is accepted as at most this many times the false match rate of the subjects
            (lower end of the interval).
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
        """Whether a control passed."""
        first = row.at_fmr[0]
        if role == "positive control":
            passes = first.success.value >= self.min_share_of_plain * first.plain.value
            return bool(passes and row.cosine.low >= self.min_cosine)
        return bool(first.success.low <= self.max_times_fmr * first.fmr)


def bootstrap_settings(session: Session) -> dict[str, Any]:
    """Seed and number of resamples of all intervals."""
    return {"seed": session.seed("bootstrap"), "num_resamples": session.experiment.num_resamples}


def passing_at_fmr(
    threshold: RecogniserThreshold,
    targets: np.ndarray,
    *,
    found_ND: np.ndarray,
    plain_ND: np.ndarray,
    another_ND: np.ndarray,
    solved_N: np.ndarray | None = None,
    settings: Mapping[str, Any],
) -> PassingAtFmr:
    """How often recovered embeddings, and plain ones, are accepted against another image of the subject.

    Args:
        threshold: the recogniser's.
        targets: (N,) indices of the target subjects.
        found_ND: recovered embeddings.
        plain_ND: plain embeddings of the enrolled images.
        another_ND: plain embeddings of another image of each subject.
        solved_N: which rows the attack reports as solved; None if it does not say.
        settings: of the intervals; see `bootstrap_settings`.
    """

    def success(rows_ND: np.ndarray, solved: np.ndarray | None = None) -> InversionSuccess:
        return inversion_success(
            rows_ND, targets, another_ND, targets, threshold=threshold.threshold, solved_N=solved, **settings
        )

    found = success(found_ND)
    return PassingAtFmr(
        fmr=threshold.fmr,
        threshold=threshold.threshold,
        success=found.success,
        success_if_solved=None if solved_N is None else success(found_ND, solved_N).success,
        other_subject=found.other_subject,
        plain=success(plain_ND).success,
    )


def after_renewal(
    session: Session, study: TemplateStudy, system: System, targets: np.ndarray, found_ND: np.ndarray
) -> AfterRenewal:
    """Outcome after each subject was re-enrolled from another image under a fresh key that the adversary holds too."""
    drawn = study.keys(system, renewal=1)
    keys = [drawn[i] for i in targets]
    renewed_NK = templates_of(system, study.rows_of(system)[study.people.another_S[targets]], keys)

    def scores(by: int) -> np.ndarray:
        """Recovered embedding of each subject against the renewed template of the subject `by` positions later."""
        order = np.roll(np.arange(len(targets)), -by)
        mapped_NK = templates_of(system, found_ND, [keys[i] for i in order])
        return cosines(mapped_NK, renewed_NK[order])

    mated_N, settings = scores(0), bootstrap_settings(session)
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
