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
from ppfr.evaluation._experiment import Experiment, Held, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import other_keys, protection_of, templates_of, unit
from ppfr.evaluation.measures._unlinkability import template_problems
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


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Identification(Measure):
    """Identification rates, with all keys at the matcher and with one key per probe.

    Args:
        protocol: references, mated and non-mated probes.
        fpirs: false positive identification rates to report at.
    """

    protocol: OpenSetProtocol
    fpirs: Sequence[float] = (1e-2, 1e-3)
    results = (IdentificationRow,)

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
        """One per system without key selection. Baselines come first, since gaps are paired with their scores."""
        return [
            Stage(
                name=f"identify/{system.name}",
                title=f"Search 1:N with {system.label}",
                weight=8,
                after=() if system.baseline is None else (f"identify/{system.baseline}",),
                measure=functools.partial(self._identify, session, system),
            )
            for system in session.experiment.systems
            if system.templates is not None and system.recognises
        ]

    def _identify(self, session: Session, system: System) -> list[IdentificationRow]:
        protocol = self.protocol
        used, ids = protocol.used(), np.asarray(protocol.images.subject_ids)
        recogniser = session.experiment.recogniser(system.recogniser)
        rows_ND = session.plain_embeddings(recogniser, protocol.images, used.tolist())
        probe_N = np.concatenate([protocol.mated, protocol.unmated])
        references_MD = rows_ND[np.searchsorted(used, protocol.references)]
        probes_ND = rows_ND[np.searchsorted(used, probe_N)]
        subjects = ids[probe_N], ids[protocol.references]
        rows = []
        for scenario, values, scores_NM in _searches(session, system, references_MD, probes_ND, subjects):
            if system.baseline is None and (scenario, values) == (ALL_KEYS, "float32"):
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
        settings: dict[str, Any] = {
            "fpirs": self.fpirs,
            "seed": session.seed("bootstrap"),
            "num_resamples": session.experiment.num_resamples,
        }
        report = identification_report(scores_NM, probes, gallery, ranks=(1,), **settings)
        gap = None
        if system.baseline is not None:
            plain_NM = session.workspace.read_scores(system.baseline, _SCORES)
            paired = paired_identification_gaps(scores_NM, plain_NM, probes, gallery, **settings)
            gap = IdentificationGap(
                rank_1=paired.rank_1,
                fnir_at_fpir={f"{fpir:g}": found for fpir, found in paired.fnir_at_fpir.items()},
            )
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


def _searches(
    session: Session,
    system: System,
    references_MD: np.ndarray,
    probes_ND: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray],
) -> Iterator[tuple[str, Held, np.ndarray]]:
    """(scenario, number format, (N, M) scores) of all searches with a system."""
    protection, (probes, gallery) = protection_of(system), subjects
    keys = other_keys(session, system, len(gallery), "gallery")
    if protection.matcher is None:
        yield ALL_KEYS, "float32", _slow_search(system, references_MD, probes_ND, keys)
    else:
        for held in _HELD:
            matcher = protection.matcher(references_MD.astype(np.float32), keys, held)
            yield ALL_KEYS, held, matcher.score_matrix(probes_ND.astype(np.float32))
    if not protection.is_keyed:
        return
    template_MK = templates_of(system, references_MD, keys)
    strangers = other_keys(session, system, len(probes), "strangers")
    place = {subject: index for index, subject in enumerate(gallery.tolist())}
    stolen_N = np.random.default_rng(session.seed("templates", "stolen")).integers(len(gallery), size=len(probes))
    for scenario in (GENUINE_TOKEN, STOLEN_TOKEN):
        used = [
            keys[place[subject]]
            if subject in place
            else strangers[row]
            if scenario == GENUINE_TOKEN
            else keys[int(stolen_N[row])]
            for row, subject in enumerate(probes.tolist())
        ]
        yield scenario, "float32", np.clip(templates_of(system, probes_ND, used) @ template_MK.T, -1.0, 1.0)


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
