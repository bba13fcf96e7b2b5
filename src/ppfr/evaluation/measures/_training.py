"""Training of the systems, which most other measures depend on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

from ppfr.core import as_json, result_row
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import DataUse, Measure, Stage
from ppfr.evaluation._session import Session


@result_row("training")
class TrainingRow:
    """How a system was trained.

    Attributes:
        system: name of the system.
        fits: facts of each run of the training loop; "curve", if present, is a list of [step, loss].
        guarantee: the privacy guarantee of the masker, with "in_words"; None if nothing is proven.
    """

    system: str
    fits: Sequence[Mapping[str, Any]]
    guarantee: Mapping[str, Any] | None


def training_stage(session: Session, system: System) -> Stage:
    """The stage that trains a system. Measures that need the trained system depend on it by its name."""
    return Stage(
        name=training_stage_name(system),
        title=f"Train {system.label}",
        weight=10,
        after=(),
        measure=functools.partial(_train, session, system),
    )


def training_stage_name(system: System) -> str:
    """Name of the stage that trains a system."""
    return f"train/{system.name}"


def _train(session: Session, system: System) -> list[TrainingRow]:
    fits = [as_json(fit) for fit in session.trained(system, again=False).fits]
    assert system.masker is not None  # checked
    return [TrainingRow(system=system.name, fits=fits, guarantee=as_json(system.masker.guarantee()))]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Measure):
    """Trains every system that has a training."""

    results = (TrainingRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Trained systems without training images or without a masker."""
        for system in experiment.systems:
            if system.training is None:
                continue
            if experiment.training_images is None:
                yield f"system {system.name!r} is trained, but `training_images` is None; give training images"
            if system.masker is None:
                yield f"system {system.name!r} is trained, but has no masker; use `Unprotected` for plain faces"

    def config(self) -> Mapping[str, Any]:
        """Empty: systems are part of the configuration of the experiment."""
        return {}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """The training images of the recognisers."""
        if experiment.training_images is not None:
            yield DataUse(role="training", images=experiment.training_images)

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per trained system."""
        return [training_stage(session, system) for system in session.experiment.systems if system.training is not None]
