"""Unlinkability (ISO/IEC 24745): whether two templates of one person under two keys can be linked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np

from ppfr.core import result_row
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation._template_study import cosines, study_of, templates_of
from ppfr.evaluation.measures._verification import embedder_stage_name
from ppfr.metrics import Estimate, Linkability, unlinkability

if TYPE_CHECKING:
    from ppfr.data import PairProtocol

MAX_ROLLS = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinkabilityFigures:
    """D_sys, its chance level, and how it was measured; `range` is the range of scores that the bins cover."""

    d_sys: Estimate
    chance: float
    num_bins: int
    range: tuple[float, float]
    num_non_mated: int
    omega: float


def linkability_figures(link: Linkability) -> LinkabilityFigures:
    """The figures for a record, without the curve over the bins."""
    return LinkabilityFigures(
        d_sys=link.d_sys,
        chance=link.chance,
        num_bins=len(link.d_local_T),
        range=(float(link.edge_T1[0]), float(link.edge_T1[-1])),
        num_non_mated=link.num_non_mated,
        omega=link.omega,
    )


@result_row("unlinkability")
class UnlinkabilityRow:
    """Linkability of the templates of one system.

    Attributes:
        system: name of the system.
        capture: "same" for one image under two keys, "another" for two images of one person under two keys.
        figures: D_sys and how it was measured.
    """

    system: str
    capture: Literal["same", "another"]
    figures: LinkabilityFigures


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Unlinkability(Measure):
    """Can an adversary with two templates and no key distinguish whether they are of one person?

    Args:
        pairs: the protocol whose subjects are enrolled.
    """

    pairs: PairProtocol
    results = (UnlinkabilityRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Template schemes that do not fit their recogniser."""
        yield from template_problems(experiment)

    def config(self) -> Mapping[str, Any]:
        """The protocol."""
        return {"pairs": self.pairs.name}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The images that the protocol uses."""
        return [DataUse.of_protocol(self.pairs)]

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per system without key selection."""
        return [
            Stage(
                name=f"unlink/{system.name}",
                title=f"Link templates of {system.label}",
                weight=0.2,
                after=(embedder_stage_name(session.experiment, system),),
                measure=functools.partial(self._unlink, session, system),
            )
            for system in session.experiment.systems
            if system.templates is not None and system.recognises
        ]

    def _unlink(self, session: Session, system: System) -> list[UnlinkabilityRow]:
        study = study_of(session, self.pairs)
        people, rows_ND, two = study.people, study.rows_of(system), study.people.with_two()
        old, new = ([study.keys(system, renewal=renewal)[i] for i in two] for renewal in (0, 1))
        first_NK = templates_of(system, rows_ND[people.enrolled_S[two]], old)
        captures: tuple[tuple[Literal["same", "another"], np.ndarray], ...] = (
            ("same", people.enrolled_S),
            ("another", people.another_S),
        )
        rows = []
        for capture, images_S in captures:
            second_NK = templates_of(system, rows_ND[images_S[two]], new)
            num_rolls = min(MAX_ROLLS, len(two) - 1)
            link = unlinkability(
                cosines(first_NK, second_NK),
                np.concatenate([cosines(first_NK, np.roll(second_NK, by, axis=0)) for by in range(1, num_rolls + 1)]),
                mated_subjects=two,
                score_range=(-1.0, 1.0),
                seed=session.seed("bootstrap"),
                num_resamples=session.experiment.num_resamples,
            )
            rows.append(UnlinkabilityRow(system=system.name, capture=capture, figures=linkability_figures(link)))
        return rows


def template_problems(experiment: Experiment) -> Iterable[str]:
    """Systems whose template scheme does not fit the source of their embeddings."""
    recognisers = {recogniser.name: recogniser for recogniser in experiment.recognisers}
    trained: set[str] = set()
    for system in experiment.systems:
        if system.training is not None:
            trained.add(system.name)
        if system.templates is None:
            continue
        recogniser = recognisers.get(system.recogniser)
        if recogniser is not None and system.recogniser in trained:
            yield f"system {system.name!r}: {system.recogniser!r} is a system and an evaluation recogniser; rename one"
        elif recogniser is None and system.recogniser in trained:
            if system.templates.selection is not None:  # the threshold of a selection is that of a plain recogniser
                yield (
                    f"system {system.name!r}: keys are selected at the threshold of an evaluation recogniser, but "
                    f"{system.recogniser!r} is a system; name an evaluation recogniser, or select no keys"
                )
        elif recogniser is None:
            yield (
                f"system {system.name!r}: there is no evaluation recogniser {system.recogniser!r}, and no trained "
                "system of that name is listed before it"
            )
        elif system.templates.scheme.in_dim != recogniser.embedder.dim:
            yield (
                f"system {system.name!r}: the template scheme takes {system.templates.scheme.in_dim} values, but the "
                f"recogniser {system.recogniser!r} returns {recogniser.embedder.dim}; use a scheme for that length"
            )
