"""Verification, 1:1: how well systems and evaluation recognisers decide whether two images show one person.

Suffixes: N images or comparisons, D embedding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from ppfr.core import GENUINE_TOKEN, STOLEN_TOKEN, derive_seed, result_row
from ppfr.evaluation._embedding import Settings, comparisons_of, pair_comparisons
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import study_of
from ppfr.evaluation.measures._training import training_stage, training_stage_name
from ppfr.metrics import Comparisons, Estimate, verification_report

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

SCENARIOS = (STOLEN_TOKEN, GENUINE_TOKEN)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RocPoints:
    """A thinned ROC: rates of the same length."""

    far: Sequence[float]
    tar: Sequence[float]


@result_row("verification")
class VerificationRow:
    """Verification figures of one system, recogniser or attack on one protocol.

    Attributes:
        source: what made the comparisons.
        name: name of the system, recogniser or attack.
        protocol: name of the pair protocol.
        scenario: "stolen-token" or "genuine-token" for keyed templates, else "".
        num_images: images that the protocol uses.
        num_subjects: their subjects.
        accuracy: mean accuracy over the protocol's folds; None if it has no folds.
        accuracy_std_over_folds: standard deviation over folds.
        accuracy_standard_error: standard error of the mean over folds.
        num_folds: number of folds.
        eer: equal error rate.
        auc: area under the ROC.
        tar_at_far: true accept rate at each false accept rate, keys such as "0.001".
        num_genuine: mated comparisons.
        num_impostor: non-mated comparisons.
        num_resamples: bootstrap resamples per interval.
        seed: seed of the resamples.
        roc: points of the curve.
    """

    source: Literal["system", "recogniser", "attack"]
    name: str
    protocol: str
    scenario: str
    num_images: int
    num_subjects: int
    accuracy: Estimate | None
    accuracy_std_over_folds: float | None
    accuracy_standard_error: float | None
    num_folds: int | None
    eer: Estimate
    auc: Estimate
    tar_at_far: Mapping[str, Estimate]
    num_genuine: int
    num_impostor: int
    num_resamples: int
    seed: int
    roc: RocPoints


def verification_row(
    settings: Settings,
    protocol: PairProtocol,
    comparisons: Comparisons,
    *,
    source: Literal["system", "recogniser", "attack"],
    name: str,
    fars: Sequence[float],
    scenario: str = "",
) -> VerificationRow:
    """All verification figures of some comparisons."""
    seed = derive_seed(settings.seed, "bootstrap")
    report = verification_report(comparisons, fars=fars, seed=seed, num_resamples=settings.num_resamples)
    curve = comparisons.roc().thinned()
    used, subjects = protocol.used(), protocol.images.subject_ids
    return VerificationRow(
        source=source,
        name=name,
        protocol=protocol.name,
        scenario=scenario,
        num_images=len(used),
        num_subjects=len({subjects[index] for index in used.tolist()}),
        accuracy=report.accuracy,
        accuracy_std_over_folds=report.folds.std if report.folds else None,
        accuracy_standard_error=report.folds.standard_error if report.folds else None,
        num_folds=len(report.folds.accuracy_F) if report.folds else None,
        eer=report.eer,
        auc=report.auc,
        tar_at_far={f"{far:g}": estimate for far, estimate in report.tar_at_far.items()},
        num_genuine=report.num_genuine,
        num_impostor=report.num_impostor,
        num_resamples=report.num_resamples,
        seed=report.seed,
        roc=RocPoints(far=curve.fmr_T.tolist(), tar=curve.tar_T.tolist()),
    )


def scores_name(protocol: PairProtocol, scenario: str = "") -> str:
    """Name under which the scores of a system are stored for paired intervals."""
    return f"{protocol.name}--{scenario}" if scenario else protocol.name


def scenarios_of(*systems: System) -> tuple[str, ...]:
    """The scenarios that a system is verified in, or that several systems are compared in."""
    return SCENARIOS if any(system.templates is not None for system in systems) else ("",)


def evaluation_stage_name(system: System | str) -> str:
    """Name of the stage that stores the scores of a system."""
    return f"evaluate/{system if isinstance(system, str) else system.name}"


def recogniser_stage_name(recogniser: str) -> str:
    """Name of the stage that measures an evaluation recogniser."""
    return f"recogniser/{recogniser}"


def embedder_stage_name(experiment: Experiment, system: System) -> str:
    """Name of the stage that the embeddings of a system depend on."""
    source = experiment.embedded_by(system)
    return training_stage_name(source) if isinstance(source, System) else recogniser_stage_name(source.name)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification(Measure):
    """Verification accuracy of each system, and of each evaluation recogniser on plain images.

    Systems with a template protection are verified in two scenarios. In the stolen-token scenario impostors have the
    key of the claimed subject. In the genuine-token scenario they have only their own key.

    Args:
        protocols: pairs and folds.
        fars: false accept rates to report at.
    """

    protocols: Sequence[PairProtocol]
    fars: Sequence[float] = (1e-2, 1e-3, 1e-4)
    results = (VerificationRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Missing or repeated protocols, and rates outside (0, 1]."""
        if not self.protocols:
            yield "`Verification` has no protocol; give at least one"
        for name, times in Counter(protocol.name for protocol in self.protocols).items():
            if times > 1:
                yield f"{times} protocols are named {name!r}; names must differ"
        if not self.fars or any(not 0 < far <= 1 for far in self.fars):
            yield f"fars={tuple(self.fars)}; give at least one, each in (0, 1]"
        if len(self.protocols) != 1 and any(system.templates is not None for system in experiment.systems):
            yield f"`Verification` has {len(self.protocols)} protocols; give exactly one for systems with templates"

    def config(self) -> Mapping[str, Any]:
        """Checksum of the compared pairs, and the rates."""
        from ppfr.evaluation._fingerprint import pairs_digest

        return {"fars": list(self.fars), "pairs": {p.name: pairs_digest(p) for p in self.protocols}}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocols use."""
        return [DataUse.of_protocol(p) for p in self.protocols]

    def stages(self, session: Session) -> Iterable[Stage]:
        """Evaluation recognisers first, then systems in order."""
        for recogniser in session.experiment.recognisers:
            yield Stage(
                name=recogniser_stage_name(recogniser.name),
                title=f"Measure the evaluation recogniser {recogniser.label} on plain images",
                weight=2,
                after=(),
                measure=functools.partial(self._of_recogniser, session, recogniser),
            )
        for system in session.experiment.systems:
            if not system.recognises:
                continue
            if system.templates is None:
                yield training_stage(session, system)
            yield Stage(
                name=evaluation_stage_name(system),
                title=f"Verify with {system.label}",
                weight=2,
                after=(embedder_stage_name(session.experiment, system),),
                measure=functools.partial(self._of_system, session, system),
            )

    def _of_recogniser(self, session: Session, recogniser: EvaluationRecogniser) -> list[VerificationRow]:
        return [
            verification_row(
                session.experiment,
                protocol,
                pair_comparisons(protocol, plain_embeddings(session, recogniser, protocol)),
                source="recogniser",
                name=recogniser.name,
                fars=self.fars,
            )
            for protocol in self.protocols
        ]

    def _of_system(self, session: Session, system: System) -> list[VerificationRow]:
        rows = []
        for protocol in self.protocols:
            for scenario in scenarios_of(system):
                scores_N = self._scores(session, system, protocol, scenario)
                session.workspace.write_scores(system.name, scores_name(protocol, scenario), scores_N)
                row = verification_row(
                    session.experiment,
                    protocol,
                    comparisons_of(protocol, scores_N),
                    source="system",
                    name=system.name,
                    fars=self.fars,
                    scenario=scenario,
                )
                rows.append(row)
        return rows

    def _scores(self, session: Session, system: System, protocol: PairProtocol, scenario: str) -> np.ndarray:
        if system.templates is not None:
            if scenario == GENUINE_TOKEN and not system.is_keyed:  # without a key both scenarios are the same
                return session.workspace.read_scores(system.name, scores_name(protocol, STOLEN_TOKEN))
            return study_of(session, protocol).scores(system, is_stolen=scenario == STOLEN_TOKEN)
        return np.asarray(pair_comparisons(protocol, session.embeddings(system, protocol)).scores)


def plain_embeddings(session: Session, recogniser: EvaluationRecogniser, protocol: PairProtocol) -> np.ndarray:
    """(N, D) embeddings by a recogniser of the images that a protocol uses, computed once per process."""
    used = protocol.used().tolist()
    return session.plain_embeddings(recogniser, protocol.images, used, name=f"protocol/{protocol.name}")
