"""The contract of measures: one question about systems, as resumable stages that leave typed rows."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ppfr.core import ImageSet

if TYPE_CHECKING:
    from ppfr.evaluation._attack_plan import AttackPlan
    from ppfr.evaluation._experiment import Experiment
    from ppfr.evaluation._session import Session


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One step of a run.

    Attributes:
        name: names the part's file. Two measures that need the same step yield stages of one name; it runs once.
        title: for people.
        weight: rough share of the work, for the remaining time.
        after: names of stages that must be done before.
        measure: does it and returns rows of the kinds that the measure declares.
    """

    name: str
    title: str
    weight: float
    after: Sequence[str]
    measure: Callable[[], Iterable[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataUse:
    """An image set and what it is for; no set of role "protocol" may share a subject with one of another role.

    Attributes:
        role: "training", "public" (the adversaries' own faces) or "protocol".
        images: the images that are used.
        name: for the record; "" for the set's own.
    """

    role: Literal["training", "public", "protocol"]
    images: ImageSet
    name: str = ""


class Measure(ABC):
    """One question about systems, answered end to end.

    A subclass declares the classes of its result rows (`ppfr.core.result_row`), what would make its figures
    meaningless, and its stages. The runner knows no measure by name: it runs stages, keeps their rows and writes them,
    with the schemas of their classes, into the record. A `Section` of `ppfr.report` renders rows by their kind.
    """

    results: ClassVar[tuple[type, ...]]
    """Classes of the rows that stages leave."""

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """Everything that is wrong, at once, before anything runs."""
        return ()

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """JSON-ready: everything that the figures depend on, and that a resumed run must share with the first."""

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """Image sets that the measure reads."""
        return ()

    def attacks(self) -> Sequence[AttackPlan]:
        """Attacks that the measure runs, in the order in which they run."""
        return ()

    @abstractmethod
    def stages(self, session: Session) -> Iterable[Stage]:
        """The steps, in the order in which they run; several processes may share them out."""

    def pictures(self, experiment: Experiment) -> Iterable[Mapping[str, str]]:
        """Strips of faces that stages may write into the run's `pictures` folder: file, label, note and kind."""
        return ()
