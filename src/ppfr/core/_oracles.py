"""Matchers as oracles: adversaries send probes of their choice and get scores or decisions, never a template.

Suffixes: N targets, R queries, Q probes, P other people's templates, K template values, L query budgets.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ppfr.core._errors import RangeError, ShapeError
from ppfr.core._observations import Observation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ppfr.core._observations import ThreatModel

OracleAnswers = Callable[["NDArray[np.float64]", "NDArray[np.int64]"], "NDArray[Any]"]
"""((R, K) probes, (R,) index of the target that each is compared with) -> (R,) scores or decisions."""

_MAX_ROWS = 65_536


class MatchOracle(Observation):
    """N enrolled targets that can be queried with probes, and the number of queries to each.

    The targets' templates are not accessible through it.

    Args:
        answer: computes the answers: a plain comparison, or a protocol of several parties.
        num_targets: N.
        dim: K, length of a probe.

    Raises:
        RangeError: N or K below 1.
    """

    __slots__ = ("_answer", "_dim", "_num_queries_N")

    def __init__(self, answer: OracleAnswers, *, num_targets: int, dim: int) -> None:
        if num_targets < 1 or dim < 1:
            raise RangeError(f"num_targets={num_targets} and dim={dim}; give at least 1 of each")
        self._answer, self._dim = answer, dim
        self._num_queries_N = np.zeros(num_targets, dtype=np.int64)

    @property
    def num_targets(self) -> int:
        """N."""
        return len(self._num_queries_N)

    @property
    def dim(self) -> int:
        """K."""
        return self._dim

    @property
    def num_queries_N(self) -> NDArray[np.int64]:
        """(N,) queries to each target so far."""
        return self._num_queries_N.copy()

    def query(self, probes_RK: ArrayLike, targets_R: ArrayLike) -> NDArray[Any]:
        """Compare each probe with one target.

        Args:
            probes_RK: (R, K) finite values.
            targets_R: (R,) indices of targets.

        Returns:
            (R,) float64 scores, or bool decisions.

        Raises:
            ShapeError: not (R, K) with one target for each row.
            RangeError: probes that are not finite, or indices outside 0..N-1.
        """
        probes, targets = np.asarray(probes_RK, dtype=np.float64), np.asarray(targets_R, dtype=np.int64)
        if probes.ndim != 2 or probes.shape[1] != self._dim or targets.shape != probes.shape[:1]:
            raise ShapeError(
                f"probes have shape {probes.shape} and targets {targets.shape}; give (R, {self._dim}) and (R,)"
            )
        if not np.isfinite(probes).all():
            raise RangeError("probes contain values that are not finite; give finite ones")
        if targets.size and not (targets.min() >= 0 and targets.max() < self.num_targets):
            raise RangeError(f"a target is outside 0..{self.num_targets - 1}")
        if not targets.size:
            return self._typed(np.empty(0))
        self._num_queries_N += np.bincount(targets, minlength=self.num_targets)
        return self._typed(np.asarray(self._answer(probes, targets)))

    @staticmethod
    @abstractmethod
    def _typed(answers_R: NDArray[Any]) -> NDArray[Any]:
        """Answers in the data type that the oracle returns."""

    def query_all(self, probes_QK: ArrayLike) -> NDArray[Any]:
        """(N, Q): compare every probe with every target; raises as `query`."""
        probes = np.asarray(probes_QK, dtype=np.float64)
        num_probes, num_at_once = len(probes), max(1, _MAX_ROWS // max(1, len(probes)))
        parts = []
        for start in range(0, self.num_targets, num_at_once):
            targets = np.arange(start, min(start + num_at_once, self.num_targets))
            answers = self.query(np.tile(probes, (len(targets), 1)), np.repeat(targets, num_probes))
            parts.append(answers.reshape(len(targets), num_probes))
        return np.concatenate(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_targets={self.num_targets}, dim={self.dim})"


@final
class ScoreOracle(MatchOracle):
    """An oracle whose answers are scores, or anything else than yes or no (ranks, rounded scores)."""

    __slots__ = ()
    kind = "scores"
    in_words = "the score of each probe that it presents"

    @staticmethod
    def _typed(answers_R: NDArray[Any]) -> NDArray[np.float64]:
        return answers_R.astype(np.float64, copy=False)


@final
class DecisionOracle(MatchOracle):
    """An oracle whose answers are decisions at a threshold, which the adversary knows.

    Args:
        answer: computes the decisions.
        num_targets: N.
        dim: K, length of a probe.
        threshold: a probe is accepted if its score is at least this.

    Raises:
        RangeError: N or K below 1.
    """

    __slots__ = ("_threshold",)
    kind = "decisions"
    in_words = "the decision, yes or no, on each probe that it presents"

    def __init__(self, answer: OracleAnswers, *, num_targets: int, dim: int, threshold: float) -> None:
        super().__init__(answer, num_targets=num_targets, dim=dim)
        self._threshold = threshold

    @property
    def threshold(self) -> float:
        """Of the decisions."""
        return self._threshold

    @staticmethod
    def _typed(answers_R: NDArray[Any]) -> NDArray[np.bool_]:
        return answers_R.astype(np.bool_, copy=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OracleResult:
    """The adversary's estimate of each target's template, at each query budget.

    Attributes:
        query_budgets: L numbers of queries per target, ascending.
        templates_LNK: (L, N, K) of norm 1.
        num_queries_LN: (L, N) queries made for the estimate; at most the budget.
        notes: facts of the run for the report.
    """

    query_budgets: Sequence[int]
    templates_LNK: NDArray[np.float64]
    num_queries_LN: NDArray[np.int64]
    notes: Mapping[str, float | int | str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.templates_LNK.shape
        if len(shape) != 3 or shape[0] != len(self.query_budgets) or self.num_queries_LN.shape != shape[:2]:
            raise ShapeError(
                f"templates have shape {shape}, queries {self.num_queries_LN.shape}, for {len(self.query_budgets)} "
                "query budgets; give (L, N, K) and (L, N)"
            )

    def __repr__(self) -> str:
        num_targets = self.templates_LNK.shape[1]
        return f"OracleResult(query_budgets={list(self.query_budgets)}, num_targets={num_targets}, values=<redacted>)"


class OracleAttack(ABC):
    """An adversary that sees only the answers of an oracle to probes of its choice."""

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
        """JSON-ready constructor arguments, for the record."""

    @abstractmethod
    def run(
        self,
        oracle: MatchOracle,
        own_PK: ArrayLike,
        *,
        starts_NK: ArrayLike | None = None,
        query_budgets: Sequence[int],
        seed: int,
    ) -> OracleResult:
        """Recover every target's template within each query budget.

        Args:
            oracle: the matcher to query.
            own_PK: (P, K) templates of other people, of norm 1, P >= 10, computed by the same network and scheme. An
                adversary without faces of its own uses only their number.
            starts_NK: a probe for each target that is likely to be accepted, such as a photograph of the person, or
                None.
            query_budgets: ascending numbers of queries per target, each at least 1. One run covers all of them: at a
                smaller budget the same adversary stops earlier.
            seed: root of every draw.

        Raises:
            ThreatModelError: an oracle of another type than the threat model grants.
            ShapeError: an oracle, templates or starts of lengths that do not fit each other.
            RangeError: budgets that are not ascending from 1; templates that are not finite, or not of norm 1.
        """


def check_query_budgets(query_budgets: Sequence[int]) -> list[int]:
    """Query budgets as a list.

    Raises:
        RangeError: none, below 1, or not ascending.
    """
    found = [int(budget) for budget in query_budgets]
    if not found or found[0] < 1 or any(a >= b for a, b in itertools.pairwise(found)):
        raise RangeError(f"query budgets {found} are not ascending numbers from 1")
    return found
