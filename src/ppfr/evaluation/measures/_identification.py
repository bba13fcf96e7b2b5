"""Open-set identification, 1:N: enrolled subjects must be found, and other searches must return nobody.

Suffixes: N probes, M references, D embedding, K template values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core import ALL_KEYS, GENUINE_TOKEN, STOLEN_TOKEN, SubjectKey, result_row
from ppfr.evaluation._experiment import Comparison, Experiment, Held, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import other_keys, protection_of, templates_of, unit
from ppfr.evaluation.measures._unlinkability import template_problems
from ppfr.evaluation.measures._verification import embedder_stage_name
from ppfr.metrics import Estimate, identification_report, paired_identification_gaps

if TYPE_CHECKING:
    from ppfr.data import OpenSetProtocol

_HELD: tuple[Held, ...] = ("float32", "int8")
_SCORES = "identification"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IdentificationGap:
    """Paired gaps to the baseline: in rank-1, and in FNIR at each FPIR."""

    rank_1: Estimate
    fnir_at_fpir: Mapping[str, Estimate]


@result_row("identification")
class IdentificationRow:
    """1:N figures of one system in one scenario.

    Attributes:
        system: name of the system.
        protocol: name of the open-set protocol.
        scenario: "matcher holds all keys" (each probe is mapped under the key of every subject), "genuine-token" (under
            the key of its own subject) or "stolen-token" (non-mated probes under a stolen key).
        values: number format in which the matcher stores templates.
        fnir_at_fpir: false negative identification rate at each false positive identification rate.
        rank: identification rate by rank, keys such as "1".
        cmc: identification rate by rank, from rank 1 on.
        num_references: enrolled subjects.
        num_mated: searches with a mated reference in the gallery.
        num_unmated: searches without one.
        gap_to_baseline: paired gap to the baseline, in the scenario in which the matcher holds all keys.
    """

    system: str
    protocol: str
    scenario: str
    values: Held
    fnir_at_fpir: Mapping[str, Estimate]
    rank: Mapping[str, Estimate]
    cmc: Sequence[float]
    num_references: int
    num_mated: int
    num_unmated: int
    gap_to_baseline: IdentificationGap | None


@result_row("identification_gap")
class IdentificationGapRow:
    """Paired gap between the two systems of a comparison, in the scenario in which the matcher holds all keys.

    Attributes:
        comparison: name of the comparison.
        system: name of the system.
        against: name of the system that it is compared with.
        protocol: name of the open-set protocol.
        gap: figures of `system` minus those of `against`.
    """

    comparison: str
    system: str
    against: str
    protocol: str
    gap: IdentificationGap


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Identification(Measure):
    """Identification rates, with all keys at the matcher and with one key per probe, and paired gaps of comparisons.

    A system without template protection compares embeddings.

    Args:
        protocol: references, mated and non-mated probes.
        fpirs: false positive identification rates to report at.
    """

    protocol: OpenSetProtocol
    fpirs: Sequence[float] = (1e-2, 1e-3)
    results = (IdentificationRow, IdentificationGapRow)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Template schemes that do not fit their recogniser, and rates outside (0, 1]."""
        yield from template_problems(experiment)
        if not self.fpirs or any(not 0 < fpir <= 1 for fpir in self.fpirs):
            yield f"fpirs={tuple(self.fpirs)}; give at least one, each in (0, 1]"

    def config(self) -> Mapping[str, Any]:
        """Checksum of the searches, and the rates."""
        from ppfr.evaluation._fingerprint import searches_digest

        return {"fpirs": list(self.fpirs), "searches": {self.protocol.name: searches_digest(self.protocol)}}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses."""
        return [DataUse.of_protocol(self.protocol)]

    def stages(self, session: Session) -> Iterable[Stage]:
        """Systems without key selection, baselines first, since gaps are paired with their scores; then comparisons."""
        experiment = session.experiment
        for system in experiment.systems:
            if not system.recognises:
                continue
            source = experiment.embedded_by(system)
            needed = () if system.baseline is None else (f"identify/{system.baseline}",)
            yield Stage(
                name=f"identify/{system.name}",
                title=f"Search 1:N with {system.label}",
                weight=8,
                after=(*((embedder_stage_name(experiment, system),) if isinstance(source, System) else ()), *needed),
                measure=functools.partial(self._identify, session, system),
            )
        for each in experiment.comparisons:
            yield Stage(
                name=f"identify-comparison/{each.name}",
                title=f"Answer in 1:N: {each.text}",
                weight=2,
                after=(f"identify/{each.system}", f"identify/{each.against}"),
                measure=functools.partial(self._compare, session, each),
            )

    def _identify(self, session: Session, system: System) -> list[IdentificationRow]:
        references_MD, probes_ND, subjects = searched(session, system, self.protocol)
        is_compared = system.name in _compared_systems(session.experiment)
        rows = []
        for scenario, values, scores_NM in _searches(session, system, references_MD, probes_ND, subjects):
            if is_compared and (scenario, values) == (ALL_KEYS, "float32"):
                session.workspace.write_scores(system.name, _SCORES, scores_NM.astype(np.float32))
            rows.append(self._row(session, system, (scenario, values), scores_NM, subjects))
        return rows

    def _row(
        self,
        session: Session,
        system: System,
        searched: tuple[str, Held],
        scores_NM: np.ndarray,
        subjects: tuple[np.ndarray, np.ndarray],
    ) -> IdentificationRow:
        (scenario, values), (probes, gallery) = searched, subjects
        report = identification_report(scores_NM, probes, gallery, ranks=(1,), **search_settings(session, self.fpirs))
        gap = None
        if system.baseline is not None:
            plain_NM = session.workspace.read_scores(system.baseline, _SCORES)
            gap = identification_gap(session, scores_NM, plain_NM, subjects, fpirs=self.fpirs)
        return IdentificationRow(
            system=system.name,
            protocol=self.protocol.name,
            scenario=scenario,
            values=values,
            fnir_at_fpir={f"{fpir:g}": found for fpir, found in report.fnir_at_fpir.items()},
            rank={str(rank): found for rank, found in report.rank.items()},
            cmc=[float(share) for share in report.cmc_K],
            num_references=report.num_references,
            num_mated=report.num_mated,
            num_unmated=report.num_unmated,
            gap_to_baseline=gap,
        )

    def _compare(self, session: Session, comparison: Comparison) -> list[IdentificationGapRow]:
        first_NM, second_NM = (
            session.workspace.read_scores(name, _SCORES) for name in (comparison.system, comparison.against)
        )
        return [
            IdentificationGapRow(
                comparison=comparison.name,
                system=comparison.system,
                against=comparison.against,
                protocol=self.protocol.name,
                gap=identification_gap(session, first_NM, second_NM, subjects_of(self.protocol), fpirs=self.fpirs),
            )
        ]


def _compared_systems(experiment: Experiment) -> set[str]:
    """Names of the systems that others are compared with, whose scores are therefore stored."""
    baselines = {system.baseline for system in experiment.systems if system.baseline is not None}
    sides = {name for each in experiment.comparisons for name in (each.system, each.against)}
    return baselines | sides


def subjects_of(protocol: OpenSetProtocol) -> tuple[np.ndarray, np.ndarray]:
    """Subjects of the N probes, mated ones first, and of the M references."""
    ids = np.asarray(protocol.images.subject_ids)
    return ids[np.concatenate([protocol.mated, protocol.unmated])], ids[protocol.references]


def searched(
    session: Session, system: System, protocol: OpenSetProtocol
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """(M, D) embeddings of the references, (N, D) of the probes, and their subjects, see `subjects_of`."""
    used, rows_ND = protocol.used(), session.embeddings(system, protocol)
    probe_N = np.concatenate([protocol.mated, protocol.unmated])
    references_MD, probes_ND = (rows_ND[np.searchsorted(used, index)] for index in (protocol.references, probe_N))
    return references_MD, probes_ND, subjects_of(protocol)


def search_settings(session: Session, fpirs: Sequence[float]) -> dict[str, Any]:
    """Settings of the rates and their intervals."""
    return {
        "fpirs": fpirs,
        "seed": session.seed("bootstrap"),
        "num_resamples": session.experiment.num_resamples,
    }


def identification_gap(
    session: Session,
    scores_NM: np.ndarray,
    against_NM: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray],
    *,
    fpirs: Sequence[float],
) -> IdentificationGap:
    """Paired gap between two score matrices of the same searches."""
    paired = paired_identification_gaps(scores_NM, against_NM, *subjects, **search_settings(session, fpirs))
    return IdentificationGap(
        rank_1=paired.rank_1,
        fnir_at_fpir={f"{fpir:g}": found for fpir, found in paired.fnir_at_fpir.items()},
    )


def _searches(
    session: Session,
    system: System,
    references_MD: np.ndarray,
    probes_ND: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray],
) -> Iterator[tuple[str, Held, np.ndarray]]:
    """(scenario, number format, (N, M) scores) of all searches with a system."""
    if system.templates is None:
        yield ALL_KEYS, "float32", np.clip(probes_ND @ references_MD.T, -1.0, 1.0)
        return
    protection, keys = protection_of(system), gallery_keys(session, system, len(references_MD))
    if protection.matcher is None:
        yield ALL_KEYS, "float32", _slow_search(system, references_MD, probes_ND, keys)
    else:
        for held in _HELD:
            matcher = protection.matcher(references_MD.astype(np.float32), keys, held)
            yield ALL_KEYS, held, matcher.score_matrix(probes_ND.astype(np.float32))
    if not protection.is_keyed:
        return
    template_MK = templates_of(system, references_MD, keys)
    for scenario in (GENUINE_TOKEN, STOLEN_TOKEN):
        used = probe_keys(session, system, keys, subjects, scenario=scenario)
        yield scenario, "float32", np.clip(templates_of(system, probes_ND, used) @ template_MK.T, -1.0, 1.0)


def gallery_keys(session: Session, system: System, num: int) -> Sequence[SubjectKey]:
    """The keys of the enrolled subjects."""
    return other_keys(session, system, num, "gallery")


def probe_keys(
    session: Session,
    system: System,
    keys: Sequence[SubjectKey],
    subjects: tuple[np.ndarray, np.ndarray],
    *,
    scenario: str,
) -> list[SubjectKey]:
    """The key of each probe: that of its subject; for a subject who is not enrolled, their own or a stolen one."""
    probes, gallery = subjects
    strangers = other_keys(session, system, len(probes), "strangers")
    place = {subject: index for index, subject in enumerate(gallery.tolist())}
    stolen_N = np.random.default_rng(session.seed("templates", "stolen")).integers(len(gallery), size=len(probes))
    return [
        keys[place[subject]]
        if subject in place
        else strangers[row]
        if scenario == GENUINE_TOKEN
        else keys[int(stolen_N[row])]
        for row, subject in enumerate(probes.tolist())
    ]


def _slow_search(
    system: System, references_MD: np.ndarray, probes_ND: np.ndarray, keys: Sequence[SubjectKey]
) -> np.ndarray:
    """(N, M) scores by a loop over subjects: the probes are mapped under the key of each subject."""
    scheme = protection_of(system).scheme
    scores_NM = np.empty((len(probes_ND), len(keys)))
    for column, key in enumerate(keys):
        mapping = scheme.mapping([key])
        template_1K = unit(mapping.apply(references_MD[column : column + 1]))
        mapped_NK = unit(mapping.rows([0] * len(probes_ND)).apply(probes_ND))
        scores_NM[:, column] = np.clip(mapped_NK @ template_1K[0], -1.0, 1.0)
    return scores_NM
