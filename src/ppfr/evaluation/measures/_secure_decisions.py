"""Decisions under secret sharing compared with decisions by float scores: the effect of fixed-point numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core import result_row
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import study_of
from ppfr.evaluation.measures._unlinkability import template_problems
from ppfr.evaluation.measures._verification import evaluation_stage_name
from ppfr.metrics import Estimate

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TurnedDecision:
    """A secure decision that differs from the decision by the float score, with both distances from the threshold."""

    pair: int
    is_genuine: bool
    accepted: bool
    float_score_less_threshold: float
    score_less_threshold: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecisionsAtFar:
    """Secure decisions at one threshold on the float scores."""

    far: float
    threshold: float
    num_differ_from_integers_in_the_clear: int
    differ_from_float: Sequence[TurnedDecision]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueryTraffic:
    """Traffic of a query: bytes sent per party, and rounds."""

    kind: str
    num_references: int
    bytes_sent: Sequence[int]
    num_rounds: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FormatFigures:
    """Figures of one fixed-point format."""

    values: str
    scale: int
    ring_bits: int
    rms_error: float
    largest_error: float
    error_bound: float
    accuracy: Estimate
    eer: Estimate
    accuracy_gap_to_float: Estimate
    decisions: Sequence[DecisionsAtFar]
    queries: Sequence[QueryTraffic]


@result_row("secure_decisions")
class SecureDecisionsRow:
    """Secure decisions of one system on the pairs of one protocol.

    Attributes:
        system: name of the system.
        protocol: name of the pair protocol.
        num_pairs: pairs decided at each threshold.
        formats: figures of each fixed-point format.
    """

    system: str
    protocol: str
    num_pairs: int
    formats: Sequence[FormatFigures]


DecideSecurely = Callable[["PairProtocol", np.ndarray, np.ndarray, int], Sequence[FormatFigures]]
"""(protocol, (N, K) enrolled templates, (N, K) probes, seed) -> figures of each format."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SecureDecisions(Measure):
    """Do parties that hold shares decide as float scores do? The probe is mapped under the key of the claimed subject.

    Without template protection, the parties hold shares of embeddings.

    Args:
        pairs: the decided pairs. Controls are not measured.
        decide: decides under secret sharing.
    """

    pairs: PairProtocol
    decide: DecideSecurely
    results = (SecureDecisionsRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Template schemes that do not fit their recogniser."""
        return template_problems(experiment)

    def config(self) -> Mapping[str, Any]:
        """The protocol."""
        return {"pairs": self.pairs.name}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses."""
        return [DataUse.of_protocol(self.pairs)]

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per system that is not a control and has no key selection."""
        return [
            Stage(
                name=f"decide/{system.name}",
                title=f"Decide under sharing with {system.label}",
                weight=2,
                after=(evaluation_stage_name(system),),
                measure=functools.partial(self._decide, session, system),
            )
            for system in session.experiment.systems
            if system.recognises and system.role != "control"
        ]

    def _decide(self, session: Session, system: System) -> list[SecureDecisionsRow]:
        enrolled_NK, probes_NK = study_of(session, self.pairs).compared(system, is_stolen=True)
        formats = self.decide(self.pairs, enrolled_NK, probes_NK, session.seed("bootstrap"))
        return [
            SecureDecisionsRow(
                system=system.name, protocol=self.pairs.name, num_pairs=len(self.pairs), formats=list(formats)
            )
        ]
