"""A matcher's interface as whoever may ask it meets it, and the contract of attacks that do nothing but ask.

Suffixes: N targets, R queries, Q probes, K template values, L budgets.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core._errors import InvalidInputError, RangeError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ppfr.core._types import ThreatModel

Ask = Callable[["NDArray[np.float64]", "NDArray[np.int64]"], "NDArray[Any]"]
"""((R, K) probes, (R,) which target each is held against) -> (R,) what the matcher answers."""

_ROWS_AT_ONCE = 65_536


@final
class MatchInterface:
    """N enrolled targets that answer chosen probes, and how often each was asked. The templates cannot be seen.

    Args:
        answer: what stands behind it, a plain comparison or a protocol of several parties.
        num_targets: N.
        dim: K, length of a probe.
        reveals: "scores" or "decisions".
        threshold: of the decisions; whoever asks is told, since it must be taken to be known.

    Raises:
        RangeError: N or K below 1.
        InvalidInputError: another kind of answer; a threshold of scores, or decisions without one.
    """

    def __init__(
        self, answer: Ask, *, num_targets: int, dim: int, reveals: str, threshold: float | None = None
    ) -> None:
        if num_targets < 1 or dim < 1:
            raise RangeError(f"num_targets={num_targets} and dim={dim}; give at least 1 of each")
        if reveals not in ("scores", "decisions"):
            raise InvalidInputError(f"reveals={reveals!r} is not scores or decisions")
        if (reveals == "decisions") != (threshold is not None):
            raise InvalidInputError("decisions have a threshold, and scores have none; give one or the other")
        self._threshold = threshold
        self._answer, self._reveals, self._dim = answer, reveals, dim
        self._num_asked_N = np.zeros(num_targets, dtype=np.int64)

    @property
    def num_targets(self) -> int:
        """N."""
        return len(self._num_asked_N)

    @property
    def dim(self) -> int:
        """K."""
        return self._dim

    @property
    def reveals(self) -> str:
        """The kind of observation that an answer is: "scores" or "decisions"."""
        return self._reveals

    @property
    def threshold(self) -> float:
        """Of the decisions.

        Raises:
            InvalidInputError: scores are revealed.
        """
        if self._threshold is None:
            raise InvalidInputError("an interface that reveals scores has no threshold")
        return self._threshold

    @property
    def num_asked_N(self) -> NDArray[np.int64]:
        """(N,) queries that each target has answered so far."""
        return self._num_asked_N.copy()

    def ask(self, probes_RK: ArrayLike, targets_R: ArrayLike) -> NDArray[Any]:
        """(R,) answers to R queries: float64 scores, or bool decisions.

        Raises:
            ShapeError: not (R, K) with one target for each row.
            RangeError: probes that are not finite, or targets that are not there.
        """
        probes, targets = np.asarray(probes_RK, dtype=np.float64), np.asarray(targets_R, dtype=np.int64)
        if probes.ndim != 2 or probes.shape[1] != self._dim or targets.shape != probes.shape[:1]:
            raise ShapeError(
                f"probes have shape {probes.shape} and targets {targets.shape}; give (R, {self._dim}) and (R,)"
            )
        if not np.isfinite(probes).all():
            raise RangeError("probes hold values that are not finite; give finite ones")
        if targets.size and not (targets.min() >= 0 and targets.max() < self.num_targets):
            raise RangeError(f"a target is outside 0..{self.num_targets - 1}")
        if not targets.size:
            return np.empty(0, dtype=bool if self._reveals == "decisions" else np.float64)
        self._num_asked_N += np.bincount(targets, minlength=self.num_targets)
        return np.asarray(self._answer(probes, targets))

    def ask_all(self, probes_QK: ArrayLike) -> NDArray[Any]:
        """(N, Q): every probe held against every target."""
        probes = np.asarray(probes_QK, dtype=np.float64)
        num_probes, at_once = len(probes), max(1, _ROWS_AT_ONCE // max(1, len(probes)))
        parts = []
        for start in range(0, self.num_targets, at_once):
            targets = np.arange(start, min(start + at_once, self.num_targets))
            answers = self.ask(np.tile(probes, (len(targets), 1)), np.repeat(targets, num_probes))
            parts.append(answers.reshape(len(targets), num_probes))
        return np.concatenate(parts)

    def __repr__(self) -> str:
        return f"MatchInterface(num_targets={self.num_targets}, dim={self.dim}, reveals={self.reveals!r})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueryResult:
    """What an adversary takes each target's template to be once it has asked so often.

    Attributes:
        budgets: L numbers of queries a target, ascending.
        templates_LNK: (L, N, K) of norm 1.
        num_asked_LN: (L, N) queries that were asked for it; never above the budget.
        notes: facts of the run for the report.
    """

    budgets: Sequence[int]
    templates_LNK: NDArray[np.float64]
    num_asked_LN: NDArray[np.int64]
    notes: Mapping[str, float | int | str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.templates_LNK.shape
        if len(shape) != 3 or shape[0] != len(self.budgets) or self.num_asked_LN.shape != shape[:2]:
            raise ShapeError(
                f"templates have shape {shape}, queries {self.num_asked_LN.shape}, for {len(self.budgets)} budgets; "
                "give (L, N, K) and (L, N)"
            )

    def __repr__(self) -> str:
        return (
            f"QueryResult(budgets={list(self.budgets)}, num_targets={self.templates_LNK.shape[1]}, values=<redacted>)"
        )


class QueryAttack(ABC):
    """An adversary who sees nothing but the answers to probes of its own choice."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records."""

    @property
    @abstractmethod
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready dials, for the record."""

    @abstractmethod
    def run(
        self,
        interface: MatchInterface,
        own_PK: ArrayLike,
        *,
        starts_NK: ArrayLike | None = None,
        budgets: Sequence[int],
        seed: int,
    ) -> QueryResult:
        """Recover every target's template, with no more than each of `budgets` queries a target.

        Args:
            interface: what is asked.
            own_PK: (P, K) templates of other people, of norm 1, P >= 10, made by the same network and scheme; an
                adversary without faces of its own takes their number from them and no more.
            starts_NK: a probe for each target that stands a chance, such as a photograph of the person, or None.
            budgets: ascending numbers of queries from 1; the adversary at one budget is the one at the next, stopped
                earlier.
            seed: root of every draw.

        Raises:
            ThreatModelError: an interface that reveals something else than the threat model says.
            ShapeError: an interface, templates or starts of lengths that do not belong together.
            RangeError: budgets that are not ascending from 1; templates that are not finite, or not of norm 1.
        """


def check_budgets(budgets: Sequence[int]) -> list[int]:
    """Budgets as a list.

    Raises:
        RangeError: none, below 1, or not ascending.
    """
    found = [int(budget) for budget in budgets]
    if not found or found[0] < 1 or any(a >= b for a, b in itertools.pairwise(found)):
        raise RangeError(f"budgets {found} are not ascending numbers of queries from 1")
    return found
