"""Inversion of protected templates by a numerical solver that knows the algorithm and, if granted, the keys.

Suffixes: N target subjects, R templates of one subject, D embedding, K template values, P public embeddings.
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

    With `num_templates` R > 1, R templates of one embedding under R keys are solved together (record multiplicity): the
    objective is the mean of the R objectives. Each template adds K equations to the D unknowns.

    Args:
        knows_keys: `run` takes the deployment's mapping. Otherwise it takes one under drawn keys: this is the control,
            in which the solver finds another embedding.
        num_templates: R, consecutive templates that belong to one subject.
        num_starts: starts per subject; 5 is usual.
        max_iterations: of each start.
        solved_below: largest 1 - cosine of the mapped result and each of the R templates at which a row counts as
            solved.
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
        num_templates: int = 1,
        num_starts: int = 5,
        max_iterations: int = 500,
        solved_below: float = 1e-3,
        compression: float | None = None,
        public_PD: ArrayLike | None = None,
    ) -> None:
        if min(num_templates, num_starts, max_iterations) < 1:
            raise RangeError(
                f"num_templates={num_templates}, num_starts={num_starts} and max_iterations={max_iterations}; give at "
                "least 1 of each"
            )
        if not 0 < solved_below < 2:
            raise RangeError(f"solved_below={solved_below} is not in (0, 2), where 1 - cosine lies")
        if compression is not None and not (compression > 0 and np.isfinite(compression)):
            raise RangeError(f"compression={compression} is not positive; None compares the values themselves")
        self._compression, self._num_templates = compression, num_templates
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

    @property
    def num_templates(self) -> int:
        """R."""
        return self._num_templates

    def public_config(self) -> Mapping[str, int | float | str | None]:
        """Constructor arguments, for the record."""
        return {
            "num_templates": self._num_templates,
            "num_starts": self._num_starts,
            "max_iterations": self._max_iterations,
            "solved_below": self._solved_below,
            "compression": self._compression,
            "num_public": 0 if self._public_PD is None else len(self._public_PD),
        }

    def run(self, seen: Templates, mapping: TemplateMapping, *, seed: int) -> AttackResult:
        """Recover one embedding for every R templates; see `TemplateAttack.run`.

        Returns:
            `embeddings_ND` of norm 1; `solved_N`; notes with the share solved, iterations and seconds.
        """
        template_NK = self._checked(seen, mapping)
        begun = time.perf_counter()
        num_targets = len(template_NK) // self._num_templates
        found_ND = np.empty((num_targets, mapping.in_dim))
        residual_N = np.empty(num_targets)
        num_iterations = 0
        for target in range(num_targets):
            rng = np.random.default_rng(derive_seed(seed, "mapping inversion", target))
            rows = range(target * self._num_templates, (target + 1) * self._num_templates)
            found_ND[target], residual_N[target], used = self._solve(template_NK[rows], mapping.rows(rows), rng)
            num_iterations += used
        solved_N = residual_N <= self._solved_below
        return AttackResult(
            embeddings_ND=found_ND / np.linalg.norm(found_ND, axis=1, keepdims=True),
            solved_N=solved_N,
            notes={
                "solved": float(solved_N.mean()),
                "median_residual": float(np.median(residual_N)),
                "iterations_per_start": num_iterations / (num_targets * self._num_starts),
                "num_starts": self._num_starts,
                "num_templates": self._num_templates,
                "seconds_per_victim": (time.perf_counter() - begun) / num_targets,
            },
        )

    def invert(self, template_RK: ArrayLike, mapping: TemplateMapping, *, seed: int) -> Floats:
        """(1, D) from one template, or from the R templates of one subject.

        With the seed bound, this is a solver for `ppfr.templates.select_key`.
        """
        seen = Templates(templates_NK=np.asarray(template_RK, dtype=np.float32))
        result = self.run(seen, mapping, seed=seed)
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
        if len(template_NK) % self._num_templates:
            raise ShapeError(
                f"{len(template_NK)} templates cannot be divided into groups of num_templates={self._num_templates}; "
                "give this many of each subject, one subject after another"
            )
        if self._public_PD is not None and self._public_PD.shape[1] != mapping.in_dim:
            raise ShapeError(
                f"public embeddings have {self._public_PD.shape[1]} values, the mapping takes {mapping.in_dim}"
            )
        return _normalised(template_NK, "templates")

    def _solve(
        self, target_RK: Floats, mapping: TemplateMapping, rng: np.random.Generator
    ) -> tuple[Floats, float, int]:
        """The point that fits best, its largest 1 - cosine to a template, and the number of iterations."""
        from scipy.optimize import minimize

        size_R1 = None
        if self._compression is not None:
            median_R1 = np.median(np.abs(target_RK), axis=1, keepdims=True)
            size_R1 = self._compression * median_R1 if (median_R1 > 0).all() else None
        objective = _Objective(target_RK, mapping, size_R1=size_R1)
        options = {"maxiter": self._max_iterations, "maxfun": 2 * self._max_iterations, "ftol": 1e-12, "gtol": 1e-9}
        best_D, best, used = self._start(mapping.in_dim, rng), np.inf, 0
        for number in range(self._num_starts):
            start_D = best_D if number == 0 else self._start(mapping.in_dim, rng)
            result: Any = minimize(objective, start_D, jac=True, method="L-BFGS-B", options=options)
            used += int(result.nit)
            if result.fun < best and np.isfinite(result.x).all() and np.linalg.norm(result.x) > 0:
                best_D, best = np.asarray(result.x), float(result.fun)
        return best_D, float(_Objective(target_RK, mapping, size_R1=None).misfits(best_D).max()), used

    def _start(self, dim: int, rng: np.random.Generator) -> Floats:
        """A starting point of norm sqrt(D), so that elements and the solver's steps have similar magnitudes."""
        if self._public_PD is None:
            return rng.standard_normal(dim)
        return np.asarray(self._public_PD[rng.integers(len(self._public_PD))] * np.sqrt(dim))


class _Objective:
    """Mean of 1 - cosine of mapped and target values over R templates.

    Values have norm 1 in each template and, if `size_R1` is given, are compressed by arsinh.
    """

    def __init__(self, target_RK: Floats, mapping: TemplateMapping, *, size_R1: Floats | None) -> None:
        self._mapping, self._size_R1 = mapping, size_R1
        compressed_RK = target_RK if size_R1 is None else np.arcsinh(target_RK / size_R1)
        self._target_RK = compressed_RK / _norms(compressed_RK)

    def __call__(self, point_D: Floats) -> tuple[float, Floats]:
        point_RD, unit_RK, length_R1 = self._mapped(point_D)
        if (length_R1 == 0).any():
            return 1.0, np.zeros_like(point_D)
        compared_RK, compared_length_R1, cosine_R1 = self._compared(unit_RK)
        gradient_RK = (cosine_R1 / compared_length_R1 * compared_RK - self._target_RK) / compared_length_R1
        if self._size_R1 is not None:
            gradient_RK = gradient_RK / np.hypot(self._size_R1, unit_RK)
        gradient_RK = (gradient_RK - _dots(gradient_RK, unit_RK) * unit_RK) / length_R1
        return float(1 - cosine_R1.mean()), self._mapping.pullback(point_RD, gradient_RK).mean(axis=0)

    def misfits(self, point_D: Floats) -> Floats:
        """(R,) 1 - cosine to each template."""
        _, unit_RK, length_R1 = self._mapped(point_D)
        result: Floats = np.where(length_R1 == 0, 1.0, 1 - self._compared(unit_RK)[2])[:, 0]
        return result

    def _mapped(self, point_D: Floats) -> tuple[Floats, Floats, Floats]:
        """The point once per template, its values of norm 1, and their norms."""
        point_RD = np.repeat(point_D[None], len(self._target_RK), axis=0)
        mapped_RK = self._mapping.apply(point_RD)
        length_R1 = _norms(mapped_RK)
        return point_RD, mapped_RK / np.where(length_R1 == 0, 1.0, length_R1), length_R1

    def _compared(self, unit_RK: Floats) -> tuple[Floats, Floats, Floats]:
        """Compressed values, their norms, and the cosines to the targets."""
        compared_RK = unit_RK if self._size_R1 is None else np.arcsinh(unit_RK / self._size_R1)
        length_R1 = _norms(compared_RK)
        return compared_RK, length_R1, _dots(compared_RK, self._target_RK) / np.where(length_R1 == 0, 1.0, length_R1)


def _norms(rows_NK: Floats) -> Floats:
    return np.asarray(np.linalg.norm(rows_NK, axis=1, keepdims=True))


def _dots(a_NK: Floats, b_NK: Floats) -> Floats:
    return np.asarray(np.einsum("nk,nk->n", a_NK, b_NK)[:, None])


def _public(public_PD: ArrayLike) -> Floats:
    array_PD = np.asarray(public_PD, dtype=np.float64)
    if array_PD.ndim != 2 or len(array_PD) == 0:
        raise ShapeError(f"public embeddings have shape {array_PD.shape}; give (P, D) with P >= 1")
    return _normalised(array_PD, "public embeddings")


def _normalised(rows_ND: Floats, what: str) -> Floats:
    """Rows of norm 1, from rows of any norm but zero."""
    norm_N1 = _norms(rows_ND)
    if not (np.isfinite(norm_N1).all() and (norm_N1 > 0).all()):
        raise RangeError(f"{what} contain values that are not finite, or rows of zeros; check how they were computed")
    return np.asarray(rows_ND / norm_N1)
