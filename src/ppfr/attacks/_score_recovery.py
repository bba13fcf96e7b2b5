"""Recovery of templates from scores, or other answers that carry more than one bit (a score oracle).

Suffixes: N targets, Q probes, K template values, P the adversary's own templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.attacks._oracle_threats import check_own_templates, oracle_threat
from ppfr.core import (
    InvalidInputError,
    MatchOracle,
    OracleAttack,
    OracleResult,
    ScoreOracle,
    ThreatModel,
    check_query_budgets,
    derive_seed,
)

Floats = NDArray[np.float64]
Simulate = Callable[[Floats, Floats], Floats]
"""((Q, K) probes, (P, K) templates) -> (P, Q) answers of the matcher if these templates were enrolled."""

_PENALTIES = tuple(10.0**power for power in range(-13, 1))
_HELD_OUT = 5
_MIN_TEMPLATES_PER_VALUE = 4


def cosine_scores(probes_QK: Floats, templates_PK: Floats) -> Floats:
    """(P, Q) exact scores."""
    return templates_PK @ probes_QK.T


@final
class ScoreRecovery(OracleAttack):
    """Send the same probes to every target, and map the answers to templates by a learned regression.

    The adversary knows the scheme. It therefore enrols its own templates in a copy of the matcher, computes that copy's
    answers, and fits templates to answers by ridge regression. For exact scores this is a linear system, which K
    independent probes solve exactly. With fewer probes the result is the most likely template given the population of
    faces, not the shortest one in the span of the probes. Scores that are rounded or noisy, and ranks, need no
    treatment of their own, because the copy reproduces them. The penalty is chosen on held-out templates of the
    adversary. If it has fewer than 4 K templates, random directions are added, so that every direction is covered.

    Args:
        simulate: the copy of the matcher.
        probes: "faces" presents the adversary's own templates, the most independent ones first. "directions" presents
            their principal axes, of norm 1, which no face has: this needs an adversary who injects embeddings. Beyond K
            probes, these are the axes of random halves of the templates.
        has_faces: without faces of its own, the adversary enrols the same number of random directions instead, and
            obtains the shortest solution.

    Raises:
        InvalidInputError: unknown `probes`, or "faces" without faces.

    Threat model:
        `oracle_threat(sees=ScoreOracle)`.

    References:
        A. Bassit et al., 2025: templates from 50 to 192 exposed scores, found by least squares on faces of others.
        Deviation: here the population of faces enters through the regression, not only through the span of the probes.
    """

    def __init__(
        self,
        *,
        simulate: Simulate = cosine_scores,
        probes: Literal["faces", "directions"] = "directions",
        has_faces: bool = True,
    ) -> None:
        if probes not in ("faces", "directions"):
            raise InvalidInputError(f"probes={probes!r} is not one of 'faces', 'directions'")
        if probes == "faces" and not has_faces:
            raise InvalidInputError("an adversary without faces can present directions only; use probes='directions'")
        self._simulate, self._probes, self._has_faces = simulate, probes, has_faces

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "score-recovery"

    @property
    def needs(self) -> ThreatModel:
        """Scores of chosen probes."""
        return oracle_threat(sees=ScoreOracle, has_public_faces=self._has_faces)

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments, for the record."""
        return {"probes": self._probes, "has_faces": self._has_faces}

    def run(
        self,
        oracle: MatchOracle,
        own_PK: ArrayLike,
        *,
        starts_NK: ArrayLike | None = None,
        query_budgets: Sequence[int],
        seed: int,
    ) -> OracleResult:
        """Recover every target's template; see `OracleAttack.run`.

        The whole of each budget is spent on every target. `starts_NK` is not used. `notes` contains the mean cosine at
        which held-out templates of the adversary are recovered at the last budget.
        """
        self.needs.check(oracle, attack=self.name)
        own_PK = check_own_templates(oracle, own_PK)
        budgets = check_query_budgets(query_budgets)
        rng = np.random.default_rng(derive_seed(seed, "score recovery"))
        num_added = max(0, _MIN_TEMPLATES_PER_VALUE * oracle.dim - len(own_PK))
        random_PK = _unit(
            rng.standard_normal((num_added if self._has_faces else len(own_PK) + num_added, own_PK.shape[1]))
        )
        probes_QK = self._chosen(own_PK if self._has_faces else random_PK, budgets[-1], rng)
        own_PK = np.concatenate([own_PK, random_PK]) if self._has_faces else random_PK
        own_PK = own_PK[rng.permutation(len(own_PK))]
        seen_NQ = oracle.query_all(probes_QK)
        simulated_PQ = np.asarray(self._simulate(probes_QK, own_PK), dtype=np.float64)
        found = [_regressed(simulated_PQ[:, :num], own_PK, seen_NQ[:, :num]) for num in budgets]
        return OracleResult(
            query_budgets=budgets,
            templates_LNK=np.stack([_unit(templates_NK) for templates_NK, _ in found]),
            num_queries_LN=np.repeat(np.array(budgets)[:, None], oracle.num_targets, axis=1),
            notes={"cosine_held_out_at_last_budget": found[-1][1]},
        )

    def _chosen(self, own_PK: Floats, num: int, rng: np.random.Generator) -> Floats:
        """(num, K) probes."""
        if self._probes == "faces":
            from scipy.linalg import qr

            order = qr(own_PK.T, mode="r", pivoting=True)[1]
            return np.asarray(own_PK[np.resize(order, num)])
        axes = [_axes(own_PK)]
        while sum(len(part) for part in axes) < num:
            axes.append(_axes(own_PK[rng.choice(len(own_PK), size=max(1, len(own_PK) // 2), replace=False)]))
        return np.concatenate(axes)[:num]


def _axes(own_PK: Floats) -> Floats:
    """(K, K) principal axes, the longest first. They are of the second moment, because the mean is informative too."""
    return np.asarray(np.linalg.eigh(own_PK.T @ own_PK)[1].T[::-1])


def _regressed(answers_PQ: Floats, own_PK: Floats, seen_NQ: Floats) -> tuple[Floats, float]:
    """(N, K) templates fitted to the answers seen, and the mean cosine at which held-out templates are recovered."""
    held = np.arange(len(own_PK)) % _HELD_OUT == 0
    scored = [
        float(np.einsum("pk,pk->p", _unit(rows_PK), own_PK[held]).mean())
        for rows_PK in _fitted(answers_PQ[~held], own_PK[~held], answers_PQ[held], _PENALTIES)
    ]
    best = int(np.argmax(scored))
    (found_NK,) = _fitted(answers_PQ, own_PK, seen_NQ, _PENALTIES[best : best + 1])
    return found_NK, scored[best]


def _fitted(answers_PQ: Floats, own_PK: Floats, seen_NQ: Floats, penalties: Sequence[float]) -> list[Floats]:
    """Ridge regression with an intercept, at each penalty (relative to the largest eigenvalue)."""
    mean_Q, mean_K = answers_PQ.mean(axis=0), own_PK.mean(axis=0)
    centred_PQ = answers_PQ - mean_Q
    value_Q, axes_QQ = np.linalg.eigh(centred_PQ.T @ centred_PQ)
    crossed_QK = axes_QQ.T @ (centred_PQ.T @ (own_PK - mean_K))
    turned_NQ = (seen_NQ - mean_Q) @ axes_QQ
    largest = max(float(value_Q[-1]), np.finfo(float).tiny)
    return [mean_K + (turned_NQ / (np.maximum(value_Q, 0) + penalty * largest)) @ crossed_QK for penalty in penalties]


def _unit(rows_NK: Floats) -> Floats:
    """Rows scaled to norm 1; a row of zeros becomes the first axis."""
    length_N1 = np.linalg.norm(rows_NK, axis=1, keepdims=True)
    first_K = np.eye(1, rows_NK.shape[1])
    return np.where(length_N1 > 0, rows_NK / np.where(length_N1 > 0, length_N1, 1.0), first_K)
