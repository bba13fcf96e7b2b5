"""Keyed polynomials of many embeddings at once, with the gradient that an adversary uses.

Suffixes: N rows, D embedding, L padded embedding, K windows, m terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, final

import numpy as np
from numpy.typing import NDArray

from ppfr.core import PolynomialKeys, PolynomialShape, RangeError, ShapeError, UnsupportableError

Floats = NDArray[np.float64]


@final
class PolynomialMapping:
    """`TemplateMapping` of polynomials: row i of the input is mapped by the polynomial of key i.

    Embeddings are normalised and scaled first, so inputs of any non-zero norm are accepted.

    Args:
        shape: windows and scale.
        keys: one key per row.
        is_deployed: see `TemplateMapping.is_deployed`.
    """

    def __init__(self, shape: PolynomialShape, keys: PolynomialKeys, *, is_deployed: bool) -> None:
        keys.check()
        if keys.coefficients_Mm.shape[1] != shape.num_terms:
            raise ShapeError(
                f"the keys have {keys.coefficients_Mm.shape[1]} terms, but the polynomials have {shape.num_terms}; "
                "use keys of the same scheme"
            )
        self._shape, self._keys, self._is_deployed = shape, keys, is_deployed

    @property
    def num_rows(self) -> int:
        """N, the number of keys."""
        return len(self._keys)

    @property
    def in_dim(self) -> int:
        """D."""
        return self._shape.dim

    @property
    def out_dim(self) -> int:
        """K."""
        return self._shape.num_windows

    @property
    def is_deployed(self) -> bool:
        """Whether the keys are those of the deployment, rather than drawn by an adversary."""
        return self._is_deployed

    def apply(self, embeddings_ND: Floats) -> Floats:
        """(N, D) of any non-zero norm -> (N, K), not normalised.

        Raises:
            ShapeError: the shape is not (N, D) with one row per key.
            RangeError: values are not finite, or a row is zero.
        """
        from ppfr.templates._polynomial_kernels import evaluate

        scaled_NL, _ = self._scaled(embeddings_ND)
        out_NK = np.empty((self.num_rows, self.out_dim))
        evaluate(scaled_NL, self._keys.coefficients_Mm, self._keys.exponents_Mm, self._shape.step, out_NK)
        return out_NK

    def pullback(self, embeddings_ND: Floats, gradient_NK: Floats) -> Floats:
        """(N, D): gradient with respect to the embeddings, through normalisation and scaling. Errors as for `apply`."""
        from ppfr.templates._polynomial_kernels import pull_back

        scaled_NL, norm_N1 = self._scaled(embeddings_ND)
        gradient_NK = np.ascontiguousarray(gradient_NK, dtype=np.float64)
        if gradient_NK.shape != (self.num_rows, self.out_dim):
            raise ShapeError(
                f"the gradient has shape {gradient_NK.shape}; this mapping outputs ({self.num_rows}, {self.out_dim})"
            )
        out_NL = np.empty_like(scaled_NL)
        keys = self._keys
        pull_back(scaled_NL, keys.coefficients_Mm, keys.exponents_Mm, self._shape.step, gradient_NK, out_NL)
        unit_ND = scaled_NL[:, : self.in_dim] / self._shape.factor
        along_ND = out_NL[:, : self.in_dim] * self._shape.factor
        radial_N1 = (along_ND * unit_ND).sum(axis=1, keepdims=True)
        return np.asarray((along_ND - radial_N1 * unit_ND) / norm_N1)

    def rows(self, indices: Sequence[int]) -> PolynomialMapping:
        """The mapping under the selected keys, in the given order."""
        index = np.asarray(indices, dtype=np.int64)
        kept = PolynomialKeys(
            coefficients_Mm=self._keys.coefficients_Mm[index], exponents_Mm=self._keys.exponents_Mm[index]
        )
        return PolynomialMapping(self._shape, kept, is_deployed=self._is_deployed)

    def _scaled(self, embeddings_ND: Floats) -> tuple[Floats, Floats]:
        array_ND = np.asarray(embeddings_ND, dtype=np.float64)
        if array_ND.shape != (self.num_rows, self.in_dim):
            raise ShapeError(
                f"embeddings have shape {array_ND.shape}; this mapping takes ({self.num_rows}, {self.in_dim}), "
                "one row per key"
            )
        norm_N1 = np.linalg.norm(array_ND, axis=1, keepdims=True)
        if not (np.isfinite(norm_N1).all() and (norm_N1 > 0).all()):
            raise RangeError(
                "embeddings have rows of zeros or non-finite values; every row must be finite and non-zero"
            )
        scaled_NL = np.zeros((self.num_rows, self._shape.padded_dim))
        scaled_NL[:, : self.in_dim] = array_ND * (self._shape.factor / norm_N1)
        return scaled_NL, norm_N1

    def __repr__(self) -> str:
        return f"PolynomialMapping(num_rows={self.num_rows}, keys=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("a mapping contains keys and cannot be pickled or copied")
