"""Paired comparisons of accuracy: each system with its baseline, and ablations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from ppfr.core import result_row
from ppfr.evaluation._embedding import comparisons_of
from ppfr.evaluation._experiment import Experiment
from ppfr.evaluation._measure import Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation.measures._verification import evaluation_stage_name, scenarios_of, scores_name
from ppfr.metrics import Estimate, paired_accuracy_gap

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


@result_row("accuracy_gap")
class AccuracyGapRow:
    """Paired gap in accuracy between two systems on one protocol.

    Attributes:
        system: name of the system.
        against: name of the system that it is compared with.
        comparison: name of the comparison; None for the comparison with the baseline of the system.
        protocol: name of the pair protocol.
        scenario: as in `VerificationRow`.
        gap: accuracy of `system` minus accuracy of `against`, as a share.
    """

    system: str
    against: str
    comparison: str | None
    protocol: str
    scenario: str
    gap: Estimate


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AccuracyGaps(Measure):
    """Accuracy of each system compared with its baseline, and the comparisons of the experiment.

    Args:
        protocols: the protocols of `Verification`.
    """

    protocols: Sequence[PairProtocol]
    results = (AccuracyGapRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Comparisons of systems that have no accuracy."""
        recognising = {system.name for system in experiment.systems if system.recognises}
        for system in experiment.systems:
            if system.baseline is not None and system.baseline not in recognising:
                yield f"system {system.name!r}: baseline {system.baseline!r} cannot verify, so it has no accuracy"
        for comparison in experiment.comparisons:
            for name in (comparison.system, comparison.against):
                if name not in recognising:
                    available = ", ".join(sorted(recognising)) or "none"
                    yield f"comparison {comparison.name!r}: system {name!r} cannot verify; available: {available}"
            if comparison.system == comparison.against:
                yield f"comparison {comparison.name!r}: compares {comparison.system!r} with itself; name two systems"

    def config(self) -> Mapping[str, Any]:
        """Empty: systems and comparisons are part of the configuration of the experiment."""
        return {}

    def stages(self, session: Session) -> Iterable[Stage]:
        """Comparisons with baselines first, then the comparisons of the experiment."""
        experiment = session.experiment
        pairs: list[tuple[str, str, str, str, str | None]] = [
            (f"compare/{system.name}", f"Compare {system.label} with its baseline", system.name, system.baseline, None)
            for system in experiment.systems
            if system.baseline is not None and system.recognises
        ]
        pairs += [
            (f"comparison/{each.name}", f"Answer: {each.text}", each.system, each.against, each.name)
            for each in experiment.comparisons
        ]
        return [
            Stage(
                name=name,
                title=title,
                weight=0.5,
                after=(evaluation_stage_name(system), evaluation_stage_name(against)),
                measure=functools.partial(self._gaps, session, system, against, comparison),
            )
            for name, title, system, against, comparison in pairs
        ]

    def _gaps(self, session: Session, system: str, against: str, comparison: str | None) -> list[AccuracyGapRow]:
        return [
            AccuracyGapRow(
                system=system,
                against=against,
                comparison=comparison,
                protocol=protocol.name,
                scenario=scenario,
                gap=self._gap(session, system, against, protocol, scenario),
            )
            for protocol in self.protocols
            for scenario in scenarios_of(*(session.experiment.system(name) for name in (system, against)))
        ]

    def _gap(self, session: Session, system: str, against: str, protocol: PairProtocol, scenario: str) -> Estimate:
        # A system without templates has the same scores in every scenario.
        first, second = (
            comparisons_of(protocol, session.workspace.read_scores(name, scores_name(protocol, scenario)))
            for name, scenario in (
                (each.name, scenario if each.templates is not None else "")
                for each in map(session.experiment.system, (system, against))
            )
        )
        return paired_accuracy_gap(
            first, second, seed=session.seed("bootstrap"), num_resamples=session.experiment.num_resamples
        )
