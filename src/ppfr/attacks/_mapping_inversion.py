"""Inversion of protected templates by a numerical solver that knows the algorithm and, if granted, the keys.

Suffixes: N target subjects, D embedding, K template values, P public embeddings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import (
    AttackResult,
    RangeError,
    ShapeError,
    TemplateAttack,
    TemplateMapping,
    Templates,
    ThreatModel,
    ThreatModelError,
    derive_seed,
)

Floats = NDArray[np.float64]


def templates_threat(*, knows_keys: bool, has_public_faces: bool = False) -> ThreatModel:
    """An adversary who has templates and knows the algorithm.

    Args:
        knows_keys: it also has the subjects' keys, from the key store or as the operator of keyed identification.
        has_public_faces: it has embeddings of other people by the same network, and starts from them.
    """
    return ThreatModel(
        name="thief of templates and keys" if knows_keys else "thief of templates",
        sees=Templates,
        knows_secret=knows_keys,
        knows_recogniser=has_public_faces,
        has_public_faces=has_public_faces,
    )


@final
class MappingInversion(TemplateAttack):
    """Searches an embedding that is mapped to the template: L-BFGS-B on 1 - cosine, several starts, exact gradients.

    The result that fits the template best is kept, because the adversary cannot see which one is closest to the target
    subject's embedding. A row counts as solved if 1 - cosine is at most `solved_below`. Other rows are failures of the
    solver, and success rates count them as failures (`ppfr.metrics.inversion_success`).

    Args:
        knows_keys: `run` takes the deployment's mapping. Otherwise it takes one under drawn keys: this is the control,
            in which the solver finds another embedding.
        num_starts: starts per template; 5 is usual.
        max_iterations: of each start.
        solved_below: largest 1 - cosine of the mapped result and the template at which a row counts as solved.
        compression: None is the authors' objective, 1 - cosine of the values themselves, which a few large values
            dominate. With a number, arsinh(value / (compression * median magnitude of the template)) is compared
            instead, so that small values count as well. 0.1 recovers more if the mapping's values are heavy-tailed
            (a scale of sqrt(n)). Whether a row is solved always depends on the values themselves.
        public_PD: embeddings of other people to start from, drawn with replacement. None starts from random
            directions.

    Raises:
        RangeError: an argument outside what is stated.

    Threat model:
        `templates_threat(...)`. With keys and algorithm this is the fully informed adversary of PolyProtect's authors.

    References:
        V. Krivokuca Hahn, J. Maceiras, S. Marcel, arXiv 2605.03857: cosine rather than Euclidean objective, L-BFGS-B,
        5 starts. Templates are solved one after another; the mapping and its gradient are compiled.
    """

    def __init__(
        self,
        *,
        knows_keys: bool,
        num_starts: int = 5,
        max_iterations: int = 500,
        solved_below: float = 1e-3,
        compression: float | None = None,
        public_PD: ArrayLike | None = None,
    ) -> None:
        if num_starts < 1 or max_iterations < 1:
            raise RangeError(f"num_starts={num_starts} and max_iterations={max_iterations}; give at least 1 of each")
        if not 0 < solved_below < 2:
            raise RangeError(f"solved_below={solved_below} is not in (0, 2), where 1 - cosine lies")
        if compression is not None and not (compression > 0 and np.isfinite(compression)):
            raise RangeError(f"compression={compression} is not positive; None compares the values themselves")
        self._compression = compression
        self._num_starts, self._max_iterations, self._solved_below = num_starts, max_iterations, solved_below
        self._public_PD = None if public_PD is None else _public(public_PD)
        self._threat = templates_threat(knows_keys=knows_keys, has_public_faces=public_PD is not None)

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "mapping-inversion"

    @property
    def needs(self) -> ThreatModel:
        """Templates, the algorithm, and the keys if `knows_keys`."""
        return self._threat

    def public_config(self) -> Mapping[str, int | float | str | None]:
        """Constructor arguments, for the record."""
        return {
            "num_starts": self._num_starts,
            "max_iterations": self._max_iterations,
            "solved_below": self._solved_below,
            "compression": self._compression,
            "num_public": 0 if self._public_PD is None else len(self._public_PD),
        }

    def run(self, seen: Templates, mapping: TemplateMapping, *, seed: int) -> AttackResult:
        """Recover one embedding for each template; see `TemplateAttack.run`.

        Returns:
            `embeddings_ND` of norm 1; `solved_N`; notes with the share solved, iterations and seconds.
        """
        template_NK = self._checked(seen, mapping)
        begun = time.perf_counter()
        found_ND = np.empty((len(template_NK), mapping.in_dim))
        residual_N = np.empty(len(template_NK))
        num_iterations = 0
        for row, template_K in enumerate(template_NK):
            rng = np.random.default_rng(derive_seed(seed, "mapping inversion", row))
            found_ND[row], residual_N[row], used = self._solve(template_K, mapping.rows([row]), rng)
            num_iterations += used
        solved_N = residual_N <= self._solved_below
        return AttackResult(
            embeddings_ND=found_ND / np.linalg.norm(found_ND, axis=1, keepdims=True),
            solved_N=solved_N,
            notes={
                "solved": float(solved_N.mean()),
                "median_residual": float(np.median(residual_N)),
                "iterations_per_start": num_iterations / (len(template_NK) * self._num_starts),
                "num_starts": self._num_starts,
                "seconds_per_victim": (time.perf_counter() - begun) / len(template_NK),
            },
        )

    def invert(self, template_1K: ArrayLike, mapping: TemplateMapping, *, seed: int) -> Floats:
        """(1, D) from one template. With the seed bound, this is a solver for `ppfr.templates.select_key`."""
        templates_1K = np.asarray(template_1K, dtype=np.float32)
        result = self.run(Templates(templates_NK=templates_1K), mapping, seed=seed)
        assert result.embeddings_ND is not None  # it always gives embeddings
        return np.asarray(result.embeddings_ND, dtype=np.float64)

    def _checked(self, seen: Templates, mapping: TemplateMapping) -> Floats:
        self._threat.check(seen, attack=self.name)
        if mapping.is_deployed and not self._threat.knows_secret:
            raise ThreatModelError(
                f"{self.name} does not know the keys (knows_keys=False), but was given the deployment's mapping; give "
                "it scheme.guessed_mapping(N)"
            )
        if not mapping.is_deployed and self._threat.knows_secret:
            raise ThreatModelError(
                f"{self.name} knows the keys (knows_keys=True), but was given a guessed mapping; give it "
                "scheme.mapping(keys), or make the attack with knows_keys=False"
            )
        template_NK = np.asarray(seen.templates_NK, dtype=np.float64)
        if template_NK.shape != (mapping.num_rows, mapping.out_dim):
            raise ShapeError(
                f"the observation has shape {template_NK.shape}, but the mapping returns ({mapping.num_rows}, "
                f"{mapping.out_dim}); give one template per key"
            )
        if self._public_PD is not None and self._public_PD.shape[1] != mapping.in_dim:
            raise ShapeError(
                f"public embeddings have {self._public_PD.shape[1]} values, the mapping takes {mapping.in_dim}"
            )
        return _normalised(template_NK, "templates")

    def _solve(self, target_K: Floats, mapping: TemplateMapping, rng: np.random.Generator) -> tuple[Floats, float, int]:
        """The point that fits best, its 1 - cosine to the template, and the number of iterations."""
        from scipy.optimize import minimize

        size = None if self._compression is None else self._compression * float(np.median(np.abs(target_K)))
        objective = _Objective(target_K, mapping, size=size or None)
        options = {"maxiter": self._max_iterations, "maxfun": 2 * self._max_iterations, "ftol": 1e-12, "gtol": 1e-9}
        best_D, best, used = self._start(mapping.in_dim, rng), np.inf, 0
        for number in range(self._num_starts):
            start_D = best_D if number == 0 else self._start(mapping.in_dim, rng)
            result: Any = minimize(objective, start_D, jac=True, method="L-BFGS-B", options=options)
            used += int(result.nit)
            if result.fun < best and np.isfinite(result.x).all() and np.linalg.norm(result.x) > 0:
                best_D, best = np.asarray(result.x), float(result.fun)
        return best_D, _Objective(target_K, mapping, size=None)(best_D)[0], used

    def _start(self, dim: int, rng: np.random.Generator) -> Floats:
        """A starting point of norm sqrt(D), so that elements and the solver's steps have similar magnitudes."""
        if self._public_PD is None:
            return rng.standard_normal(dim)
        return np.asarray(self._public_PD[rng.integers(len(self._public_PD))] * np.sqrt(dim))


class _Objective:
    """1 - cosine of mapped and target values, both of norm 1 and, if `size` is given, compressed by arsinh."""

    def __init__(self, target_K: Floats, mapping: TemplateMapping, *, size: float | None) -> None:
        self._mapping, self._size = mapping, size
        compressed_K = target_K if size is None else np.arcsinh(target_K / size)
        self._target_K = compressed_K / np.linalg.norm(compressed_K)

    def __call__(self, point_D: Floats) -> tuple[float, Floats]:
        mapped_K = self._mapping.apply(point_D[None])[0]
        length = float(np.linalg.norm(mapped_K))
        if length == 0:
            return 1.0, np.zeros_like(point_D)
        unit_K = mapped_K / length
        compared_K = unit_K if self._size is None else np.arcsinh(unit_K / self._size)
        compared_length = float(np.linalg.norm(compared_K))
        cosine = float(compared_K @ self._target_K) / compared_length
        gradient_K = (cosine / compared_length * compared_K - self._target_K) / compared_length
        if self._size is not None:
            gradient_K = gradient_K / np.hypot(self._size, unit_K)
        gradient_K = (gradient_K - (gradient_K @ unit_K) * unit_K) / length
        return 1 - cosine, self._mapping.pullback(point_D[None], gradient_K[None])[0]


def _public(public_PD: ArrayLike) -> Floats:
    array_PD = np.asarray(public_PD, dtype=np.float64)
    if array_PD.ndim != 2 or len(array_PD) == 0:
        raise ShapeError(f"public embeddings have shape {array_PD.shape}; give (P, D) with P >= 1")
    return _normalised(array_PD, "public embeddings")


def _normalised(rows_ND: Floats, what: str) -> Floats:
    """Rows of norm 1, from rows of any norm but zero."""
    norm_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    if not (np.isfinite(norm_N1).all() and (norm_N1 > 0).all()):
        raise RangeError(f"{what} contain values that are not finite, or rows of zeros; check how they were computed")
    return np.asarray(rows_ND / norm_N1)
