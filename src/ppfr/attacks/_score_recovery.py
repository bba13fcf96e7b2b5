"""Templates from the answers to chosen probes, where answers say more than yes or no.

Suffixes: N targets, Q probes, K template values, P the adversary's own templates, L budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.attacks._query_threats import check_queries, queries_threat
from ppfr.core import (
    InvalidInputError,
    MatchInterface,
    QueryAttack,
    QueryResult,
    ThreatModel,
    check_budgets,
    derive_seed,
)

Floats = NDArray[np.float64]
Simulate = Callable[[Floats, Floats], Floats]
"""((Q, K) probes, (P, K) templates) -> (P, Q) what the matcher would answer, were these enrolled."""

_PENALTIES = tuple(10.0**power for power in range(-13, 1))
_HELD_OUT = 5
_LEAST_PER_VALUE = 4


def cosine_scores(probes_QK: Floats, templates_PK: Floats) -> Floats:
    """(P, Q) scores of a matcher that tells them as they are."""
    return templates_PK @ probes_QK.T


@final
class ScoreRecovery(QueryAttack):
    """Ask every target the same probes; the map from answers to templates is learned on templates of one's own.

    The adversary knows the scheme, so it enrols its own templates in a copy of the matcher, sees what that answers, and
    fits templates to answers by ridge regression. That is the linear system of exact scores, solved exactly from K
    independent probes on; with fewer it is the most likely template given what faces are like, rather than the shortest
    one in the probes' span; and for scores that are rounded or noisy, or ranks, it is calibrated without a word about
    them. The penalty is the one under which held-out templates of its own come out best. Where there are fewer than 4 K
    of these, random directions fill up, so that no direction is left out.

    Args:
        simulate: the copy of the matcher.
        probes: "faces" presents its own templates, the most independent ones first; "directions" the principal axes
            of them, of norm 1, which no face has: an adversary who injects embeddings. Beyond K, the axes of random
            halves.
        has_faces: without faces of its own it enrols as many random directions in their place, and gets the shortest
            solution.

    Raises:
        InvalidInputError: another kind of probes, or "faces" without faces.

    Threat model:
        `queries_threat(sees="scores")`.

    References:
        A. Bassit et al., 2025: templates from 50 to 192 exposed scores, found by least squares on faces of others.
        Here the population of faces enters through the regression, not through the probes' span alone.
    """

    def __init__(
        self,
        *,
        simulate: Simulate = cosine_scores,
        probes: Literal["faces", "directions"] = "directions",
        has_faces: bool = True,
    ) -> None:
        if probes not in ("faces", "directions"):
            raise InvalidInputError(f"probes={probes!r} is not faces or directions")
        if probes == "faces" and not has_faces:
            raise InvalidInputError("an adversary without faces has directions alone; give probes='directions'")
        self._simulate, self._probes, self._has_faces = simulate, probes, has_faces

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "score-recovery"

    @property
    def needs(self) -> ThreatModel:
        """Scores of chosen probes."""
        return queries_threat(sees="scores", has_public_faces=self._has_faces)

    def public_config(self) -> Mapping[str, Any]:
        """Its dials, for the record."""
        return {"probes": self._probes, "has_faces": self._has_faces}

    def run(
        self,
        interface: MatchInterface,
        own_PK: ArrayLike,
        *,
        starts_NK: ArrayLike | None = None,
        budgets: Sequence[int],
        seed: int,
    ) -> QueryResult:
        """Recover every target's template; see `QueryAttack.run`.

        All of a budget is asked, of every target alike; `starts_NK` is of no use. `notes` holds the mean cosine that
        held-out templates of its own come out with at the last budget.
        """
        own_PK = check_queries(interface, own_PK, self.needs, attack=self.name)
        asked = check_budgets(budgets)
        rng = np.random.default_rng(derive_seed(seed, "score recovery"))
        num_filled = max(0, _LEAST_PER_VALUE * interface.dim - len(own_PK))
        random_PK = _unit(
            rng.standard_normal((num_filled if self._has_faces else len(own_PK) + num_filled, own_PK.shape[1]))
        )
        probes_QK = self._chosen(own_PK if self._has_faces else random_PK, asked[-1], rng)
        own_PK = np.concatenate([own_PK, random_PK]) if self._has_faces else random_PK
        own_PK = own_PK[rng.permutation(len(own_PK))]
        seen_NQ = interface.ask_all(probes_QK).astype(np.float64)
        simulated_PQ = np.asarray(self._simulate(probes_QK, own_PK), dtype=np.float64)
        found = [_regressed(simulated_PQ[:, :num], own_PK, seen_NQ[:, :num]) for num in asked]
        return QueryResult(
            budgets=asked,
            templates_LNK=np.stack([_unit(templates_NK) for templates_NK, _ in found]),
            num_asked_LN=np.repeat(np.array(asked)[:, None], interface.num_targets, axis=1),
            notes={"cosine_held_out_at_last_budget": found[-1][1]},
        )

    def _chosen(self, own_PK: Floats, num: int, rng: np.random.Generator) -> Floats:
        if self._probes == "faces":
            from scipy.linalg import qr

            order = qr(own_PK.T, mode="r", pivoting=True)[1]
            return np.asarray(own_PK[np.resize(order, num)])
        axes = [_axes(own_PK)]
        while sum(len(part) for part in axes) < num:
            axes.append(_axes(own_PK[rng.choice(len(own_PK), size=max(1, len(own_PK) // 2), replace=False)]))
        return np.concatenate(axes)[:num]


def _axes(own_PK: Floats) -> Floats:
    """(K, K) principal axes, the longest first; of the second moment, since a mean tells as well."""
    return np.asarray(np.linalg.eigh(own_PK.T @ own_PK)[1].T[::-1])


def _regressed(answers_PQ: Floats, own_PK: Floats, seen_NQ: Floats) -> tuple[Floats, float]:
    """(N, K) templates that go with the answers seen, and the mean cosine that held-out ones come out with."""
    held = np.arange(len(own_PK)) % _HELD_OUT == 0
    scored = [
        float(np.einsum("pk,pk->p", _unit(rows_PK), own_PK[held]).mean())
        for rows_PK in _fitted(answers_PQ[~held], own_PK[~held], answers_PQ[held], _PENALTIES)
    ]
    best = int(np.argmax(scored))
    (found_NK,) = _fitted(answers_PQ, own_PK, seen_NQ, _PENALTIES[best : best + 1])
    return found_NK, scored[best]


def _fitted(answers_PQ: Floats, own_PK: Floats, seen_NQ: Floats, penalties: Sequence[float]) -> list[Floats]:
    """Ridge regression with an intercept, at each penalty (a share of the largest eigenvalue)."""
    mean_Q, mean_K = answers_PQ.mean(axis=0), own_PK.mean(axis=0)
    centred_PQ = answers_PQ - mean_Q
    value_Q, axes_QQ = np.linalg.eigh(centred_PQ.T @ centred_PQ)
    crossed_QK = axes_QQ.T @ (centred_PQ.T @ (own_PK - mean_K))
    turned_NQ = (seen_NQ - mean_Q) @ axes_QQ
    largest = max(float(value_Q[-1]), np.finfo(float).tiny)
    return [mean_K + (turned_NQ / (np.maximum(value_Q, 0) + penalty * largest)) @ crossed_QK for penalty in penalties]


def _unit(rows_NK: Floats) -> Floats:
    """Rows of norm 1; one of zeros becomes the first axis."""
    length_N1 = np.linalg.norm(rows_NK, axis=1, keepdims=True)
    first_K = np.eye(1, rows_NK.shape[1])
    return np.where(length_N1 > 0, rows_NK / np.where(length_N1 > 0, length_N1, 1.0), first_K)
