"""The contract of measures: one question about systems, as resumable stages that return typed rows."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ppfr.core import ImageSet

if TYPE_CHECKING:
    from ppfr.data import OpenSetProtocol, PairProtocol
    from ppfr.evaluation._attack_plan import AttackPlan
    from ppfr.evaluation._experiment import Experiment
    from ppfr.evaluation._session import Session


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One step of a run.

    Attributes:
        name: unique name; the result of the stage is stored under it. If two measures need the same stage, both yield
            a stage of that name, and it runs once.
        title: for progress lines and the report.
        weight: approximate share of the work, for the estimate of the remaining time.
        after: names of stages that must be done before.
        measure: runs the stage and returns rows of the kinds that the measure declares.
    """

    name: str
    title: str
    weight: float
    after: Sequence[str]
    measure: Callable[[], Iterable[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataUse:
    """An image set and its role. A set of role "protocol" must share no subject with a set of another role.

    Attributes:
        role: "training", "public" (faces that adversaries train on) or "protocol".
        images: the images that are used.
        name: name in the record; "" for the name of the image set.
    """

    role: Literal["training", "public", "protocol"]
    images: ImageSet
    name: str = ""

    @classmethod
    def of_protocol(cls, protocol: PairProtocol | OpenSetProtocol) -> DataUse:
        """The images that a protocol uses, under its name."""
        return cls(role="protocol", images=protocol.used_images(), name=protocol.name)


class Measure(ABC):
    """Answers one question about systems, end to end.

    A subclass declares the classes of its result rows (`ppfr.core.result_row`), the problems that would make its
    figures meaningless, and its stages. The runner knows no measure by name. It runs stages, keeps their rows, and
    writes the rows and the schemas of their classes into the record. A `Section` of `ppfr.report` renders rows by their
    kind.
    """

    results: ClassVar[tuple[type, ...]]
    """Classes of the rows that stages return."""

    def problems(self, experiment: Experiment) -> Iterable[str]:
        """All problems of the experiment that concern this measure. Called before anything runs."""
        return ()

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """Everything that the figures depend on, ready for JSON. A resumed run must have the same."""

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        """Image sets that the measure reads."""
        return ()

    def attacks(self) -> Sequence[AttackPlan]:
        """Attacks of the measure, in the order in which they run."""
        return ()

    @abstractmethod
    def stages(self, session: Session) -> Iterable[Stage]:
        """The stages, in the order in which they run. Several processes may divide them among themselves."""

    def pictures(self, experiment: Experiment) -> Iterable[Mapping[str, str]]:
        """Strips of faces that stages may write to the folder `pictures` of the run: file, label, note and kind."""
        return ()
