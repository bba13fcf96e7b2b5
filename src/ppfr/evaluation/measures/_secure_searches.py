"""Searches under secret sharing compared with searches by float scores: the effect of fixed-point numbers in 1:N.

Suffixes: N probes, M references, D embedding, K embedding or template values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core import ALL_KEYS, GENUINE_TOKEN, SecureMatcher, SubjectKey, result_row
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import protection_of, templates_of, unit
from ppfr.evaluation.measures._identification import (
    IdentificationGap,
    gallery_keys,
    identification_gap,
    probe_keys,
    search_settings,
    searched,
    subjects_of,
)
from ppfr.evaluation.measures._unlinkability import template_problems
from ppfr.metrics import Estimate, identification_report, threshold_at_far

if TYPE_CHECKING:
    from ppfr.data import OpenSetProtocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchesAtFpir:
    """Searches under secret sharing at one threshold on the float scores.

    Attributes:
        fpir: false positive identification rate of the float scores.
        threshold: their threshold.
        num_decided: searches that the parties decided.
        num_differ_from_float: of these, searches with another outcome than by float scores.
        num_differ_from_integers_in_the_clear: searches with another outcome than by the same integers in the clear.
    """

    fpir: float
    threshold: float
    num_decided: int
    num_differ_from_float: int
    num_differ_from_integers_in_the_clear: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchFormatFigures:
    """Figures of one fixed-point format. Rates are those of the integer scores of all searches."""

    values: str
    ring_bits: int
    rank_1: Estimate
    fnir_at_fpir: Mapping[str, Estimate]
    gap_to_float: IdentificationGap
    decisions: Sequence[SearchesAtFpir]


@result_row("secure_searches")
class SecureSearchesRow:
    """Searches of one system under secret sharing.

    Attributes:
        system: name of the system.
        protocol: name of the open-set protocol.
        scenario: "matcher holds all keys" (each probe is mapped under the key of every subject and compared with the
            template of that subject; without keys, the embedding is compared) or "genuine-token".
        num_references: enrolled subjects.
        num_searches: searches that the rates are measured on.
        formats: figures of each fixed-point format.
    """

    system: str
    protocol: str
    scenario: str
    num_references: int
    num_searches: int
    formats: Sequence[SearchFormatFigures]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecureFormat:
    """A fixed-point format in which parties hold shares.

    Attributes:
        values: its name.
        ring_bits: width of the ring.
        scale: an inner product of integers is a score times the square of it.
        integers: (N, K) unit rows -> the integers that the parties hold, as float64, so that inner products are exact.
        matcher: (M, K) references -> the parties. Subjects are the row numbers of the references.
    """

    values: str
    ring_bits: int
    scale: int
    integers: Callable[[np.ndarray], np.ndarray]
    matcher: Callable[[np.ndarray], SecureMatcher]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SecureSearches(Measure):
    """Do parties that hold shares search as float scores do, and what do fixed-point numbers cost in 1:N?

    The outcome of a search is the returned subject. Where a probe is mapped under the key of every subject, the parties
    verify one claim per subject, and the outcome is the set of accepted subjects.

    Args:
        protocol: references, mated and non-mated probes.
        formats: (K) -> the fixed-point formats for rows of K values.
        num_decided: searches that the parties decide, at equal distances among the mated and non-mated ones.
        fpirs: false positive identification rates to report at.
    """

    protocol: OpenSetProtocol
    formats: Callable[[int], Sequence[SecureFormat]]
    num_decided: int = 200
    fpirs: Sequence[float] = (1e-2,)
    results = (SecureSearchesRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Template schemes that do not fit their recogniser, no searches, and rates outside (0, 1]."""
        yield from template_problems(experiment)
        if self.num_decided < 1:
            yield f"num_decided={self.num_decided}; use at least 1"
        if not self.fpirs or any(not 0 < fpir <= 1 for fpir in self.fpirs):
            yield f"fpirs={tuple(self.fpirs)}; give at least one, each in (0, 1]"

    def config(self) -> Mapping[str, Any]:
        """Checksum of the searches, and the settings."""
        from ppfr.evaluation._fingerprint import searches_digest

        return {
            "searches": {self.protocol.name: searches_digest(self.protocol)},
            "num_decided": self.num_decided,
            "fpirs": list(self.fpirs),
        }

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses."""
        return [DataUse.of_protocol(self.protocol)]

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per system that is not a control and has no key selection."""
        return [
            Stage(
                name=f"search/{system.name}",
                title=f"Search under sharing with {system.label}",
                weight=8,
                after=(f"identify/{system.name}",),
                measure=functools.partial(self._search, session, system),
            )
            for system in session.experiment.systems
            if system.recognises and system.role != "control"
        ]

    def _search(self, session: Session, system: System) -> list[SecureSearchesRow]:
        references_MD, probes_ND, subjects = searched(session, system, self.protocol)
        rows = []
        for scenario, searches in _scenarios(session, system, references_MD, probes_ND, subjects):
            formats = self.formats(searches.reference_MK.shape[1])
            float_NM, *rounded_NM = searches.scores(formats)
            num_mated = len(self.protocol.mated)
            top_N = float_NM.max(axis=1)
            thresholds = {
                # No score lies above 1, so a threshold of 1 accepts as little as an infinite one.
                fpir: min(1.0, float(threshold_at_far(top_N[:num_mated], top_N[num_mated:], fpir)))
                for fpir in self.fpirs
            }
            figures = [
                self._figures(session, searches, form, scores=(float_NM, score_NM), thresholds=thresholds)
                for form, score_NM in zip(formats, rounded_NM, strict=True)
            ]
            rows.append(
                SecureSearchesRow(
                    system=system.name,
                    protocol=self.protocol.name,
                    scenario=scenario,
                    num_references=len(references_MD),
                    num_searches=len(probes_ND),
                    formats=figures,
                )
            )
        return rows

    def _figures(
        self,
        session: Session,
        searches: _Searches,
        form: SecureFormat,
        *,
        scores: tuple[np.ndarray, np.ndarray],
        thresholds: Mapping[float, float],
    ) -> SearchFormatFigures:
        (float_NM, rounded_NM), subjects = scores, subjects_of(self.protocol)
        report = identification_report(rounded_NM, *subjects, ranks=(1,), **search_settings(session, self.fpirs))
        decided = np.unique(np.linspace(0, len(float_NM) - 1, min(self.num_decided, len(float_NM))).astype(int))
        decisions = []
        with form.matcher(searches.reference_MK) as matcher:
            for fpir, threshold in thresholds.items():
                outcomes = searches.decide(matcher, decided, threshold=threshold)
                in_float, in_clear = (
                    [searches.outcome(score_NM[n], threshold=threshold) for n in decided] for score_NM in scores
                )
                decisions.append(
                    SearchesAtFpir(
                        fpir=fpir,
                        threshold=threshold,
                        num_decided=len(decided),
                        num_differ_from_float=_num_different(outcomes, in_float),
                        num_differ_from_integers_in_the_clear=_num_different(outcomes, in_clear),
                    )
                )
        return SearchFormatFigures(
            values=form.values,
            ring_bits=form.ring_bits,
            rank_1=report.rank[1],
            fnir_at_fpir={f"{fpir:g}": found for fpir, found in report.fnir_at_fpir.items()},
            gap_to_float=identification_gap(session, rounded_NM, float_NM, subjects, fpirs=self.fpirs),
            decisions=decisions,
        )


Outcome = tuple[int, ...]
"""Row numbers of the returned references; empty if nobody is returned."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Searches:
    """Searches of one system in one scenario.

    Attributes:
        reference_MK: what is enrolled.
        probe_NK: what is presented, the same to all references; None if it is mapped under the key of each reference.
        system: the system, for mapping.
        probes_ND: embeddings of the probes.
        keys: key of each reference; empty without keys.
    """

    reference_MK: np.ndarray
    probe_NK: np.ndarray | None
    system: System
    probes_ND: np.ndarray
    keys: Sequence[SubjectKey] = ()

    def scores(self, formats: Sequence[SecureFormat]) -> list[np.ndarray]:
        """(N, M) float scores, then those by the integers of each format."""
        if self.probe_NK is not None:
            sides = (self.probe_NK, self.reference_MK)
            return [sides[0] @ sides[1].T, *(_integer_scores(form, *sides) for form in formats)]
        scores = [np.empty((len(self.probes_ND), len(self.keys))) for _ in range(1 + len(formats))]
        mapping = protection_of(self.system).scheme.mapping(self.keys)
        for column in range(len(self.keys)):
            mapped_NK = unit(mapping.rows([column] * len(self.probes_ND)).apply(self.probes_ND))
            template_1K = self.reference_MK[column : column + 1]
            scores[0][:, column] = mapped_NK @ template_1K[0]
            for score_NM, form in zip(scores[1:], formats, strict=True):
                score_NM[:, column] = _integer_scores(form, mapped_NK, template_1K)[:, 0]
        return scores

    def outcome(self, score_M: np.ndarray, *, threshold: float) -> Outcome:
        """The outcome of a search by its scores."""
        if self.probe_NK is None:
            return tuple(np.flatnonzero(score_M >= threshold).tolist())
        best = int(score_M.argmax())
        return (best,) if score_M[best] >= threshold else ()

    def decide(self, matcher: SecureMatcher, decided: np.ndarray, *, threshold: float) -> list[Outcome]:
        """The outcomes of some searches by the parties."""
        if self.probe_NK is not None:
            found = matcher.identify(self.probe_NK[decided], threshold=threshold)
            return [() if subject is None else (int(subject),) for subject in found]
        mapping, outcomes = protection_of(self.system).scheme.mapping(self.keys), []
        for n in decided:
            mapped_MK = unit(mapping.apply(np.repeat(self.probes_ND[n : n + 1], len(self.keys), axis=0)))
            is_accepted_M = matcher.verify(mapped_MK, matcher.subjects, threshold=threshold)
            outcomes.append(tuple(np.flatnonzero(is_accepted_M).tolist()))
        return outcomes


def _scenarios(
    session: Session,
    system: System,
    references_MD: np.ndarray,
    probes_ND: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray],
) -> Iterator[tuple[str, _Searches]]:
    """Searches by scenario, with the keys of `Identification`."""
    if system.templates is None:
        yield (
            ALL_KEYS,
            _Searches(reference_MK=references_MD, probe_NK=probes_ND, system=system, probes_ND=probes_ND),
        )
        return
    keys = gallery_keys(session, system, len(references_MD))
    reference_MK = templates_of(system, references_MD, keys)
    own = probe_keys(session, system, keys, subjects, scenario=GENUINE_TOKEN)
    probe_NK = templates_of(system, probes_ND, own)
    is_keyed = system.templates.is_keyed
    yield (
        ALL_KEYS,
        _Searches(
            reference_MK=reference_MK,
            probe_NK=None if is_keyed else probe_NK,
            system=system,
            probes_ND=probes_ND,
            keys=keys,
        ),
    )
    if is_keyed:
        yield (
            GENUINE_TOKEN,
            _Searches(reference_MK=reference_MK, probe_NK=probe_NK, system=system, probes_ND=probes_ND, keys=keys),
        )


def _integer_scores(form: SecureFormat, probe_NK: np.ndarray, reference_MK: np.ndarray) -> np.ndarray:
    return np.asarray(form.integers(probe_NK) @ form.integers(reference_MK).T / form.scale**2)


def _num_different(first: Sequence[Outcome], second: Sequence[Outcome]) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))
