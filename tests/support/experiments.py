"""Looking into experiments."""

from __future__ import annotations

from typing import TypeVar

from ppfr.evaluation import AttackPlan, Experiment, Measure

AnyMeasure = TypeVar("AnyMeasure", bound=Measure)


def measure_of(experiment: Experiment, kind: type[AnyMeasure]) -> AnyMeasure:
    """The only measure of a kind."""
    (found,) = (measure for measure in experiment.measures if isinstance(measure, kind))
    return found


def attacks_of(experiment: Experiment) -> list[AttackPlan]:
    """The attacks of all measures."""
    return [plan for measure in experiment.measures for plan in measure.attacks()]
