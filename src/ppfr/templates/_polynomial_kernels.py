"""Compiled loops of the polynomials and their gradient. tests/reference/polynomials.py is the slow reference.

Suffixes: N rows, L padded embedding, K windows, m terms.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def evaluate(
    scaled_NL: NDArray[np.float64],
    coefficients_Nm: NDArray[np.int8],
    exponents_Nm: NDArray[np.uint8],
    step: int,
    out_NK: NDArray[np.float64],
) -> Any:
    """out[n, j] = sum_i c[n, i] * scaled[n, j * step + i] ** e[n, i]."""
    for n in range(len(out_NK)):
        out_NK[n] = 0.0
        for i in range(coefficients_Nm.shape[1]):
            coefficient, exponent = float(coefficients_Nm[n, i]), int(exponents_Nm[n, i])
            for j in range(out_NK.shape[1]):
                value = scaled_NL[n, j * step + i]
                power = value
                for _ in range(exponent - 1):
                    power *= value
                out_NK[n, j] += coefficient * power


@numba.njit(cache=True, nogil=True)
def pull_back(  # noqa: PLR0917 - compiled functions take no keywords
    scaled_NL: NDArray[np.float64],
    coefficients_Nm: NDArray[np.int8],
    exponents_Nm: NDArray[np.uint8],
    step: int,
    gradient_NK: NDArray[np.float64],
    out_NL: NDArray[np.float64],
) -> Any:
    """Gradient with respect to `scaled`: the transposed derivative, summed over windows."""
    for n in range(len(out_NL)):
        out_NL[n] = 0.0
        for i in range(coefficients_Nm.shape[1]):
            exponent = int(exponents_Nm[n, i])
            factor = float(coefficients_Nm[n, i]) * exponent
            for j in range(gradient_NK.shape[1]):
                value = scaled_NL[n, j * step + i]
                power = 1.0
                for _ in range(exponent - 1):
                    power *= value
                out_NL[n, j * step + i] += gradient_NK[n, j] * factor * power
