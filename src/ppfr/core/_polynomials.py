"""Polynomials over windows of an embedding: their shape, and packed keys of many subjects.

Template schemes and matchers share these types, because neither may import the other.
Suffixes: M subjects, m terms of a window.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NoReturn

from ppfr.core._errors import RangeError, ShapeError, UnsupportableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TERMS = 16
MAX_COEFFICIENT = 127
_LARGEST_SUM = 1e37


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolynomialShape:
    """How an embedding is divided into windows: p_j = sum_i c_i * (scale * v[j * (m - o) + i]) ** e_i, i in 0..m-1.

    The embedding v has L2 norm 1 and is padded with zeros at its end if the last window needs it.

    >>> [PolynomialShape(dim=512, num_terms=5, overlap=o).num_windows for o in range(5)]
    [103, 128, 170, 255, 508]

    Attributes:
        dim: n, length of the embedding.
        num_terms: m, elements in a window, in 2..16 and at most n.
        overlap: o, elements that neighbouring windows share, in 0..m-1.
        scale: factor that the embedding is multiplied by. None is sqrt(n): elements then have a magnitude of about 1,
            so that their powers do not underflow.
    """

    dim: int
    num_terms: int
    overlap: int
    scale: float | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.num_terms <= min(MAX_TERMS, self.dim):
            raise RangeError(
                f"num_terms={self.num_terms} is not in 2..{min(MAX_TERMS, self.dim)} for embeddings of {self.dim}; "
                "5 is usual"
            )
        if not 0 <= self.overlap < self.num_terms:
            raise RangeError(f"overlap={self.overlap} is not in 0..{self.num_terms - 1}, less than num_terms")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise RangeError(f"scale={self.scale} is not positive and finite; leave it out for sqrt(dim)")
        # An element of a unit vector is at most 1: squared sums of the largest values must stay within float32.
        largest = max(1.0, self.factor) ** self.num_terms * MAX_COEFFICIENT * self.num_terms
        if largest**2 * self.num_windows > _LARGEST_SUM or min(1.0, self.factor) ** self.num_terms < 1e-12:
            raise RangeError(
                f"scale {self.factor:g} to the power {self.num_terms} exceeds the range of single precision; "
                "use fewer terms, or a scale closer to 1"
            )

    @property
    def factor(self) -> float:
        """`scale`, or sqrt(n) if it is None."""
        return math.sqrt(self.dim) if self.scale is None else float(self.scale)

    @property
    def step(self) -> int:
        """Distance between windows: m - o."""
        return self.num_terms - self.overlap

    @property
    def num_windows(self) -> int:
        """K = ceil((n - m) / (m - o)) + 1, length of the template."""
        return -(-(self.dim - self.num_terms) // self.step) + 1

    @property
    def padded_dim(self) -> int:
        """Length of the embedding including the zeros at its end."""
        return (self.num_windows - 1) * self.step + self.num_terms


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PolynomialKeys:
    """Packed keys of M subjects, 2 m bytes each. They cannot be printed or pickled.

    Attributes:
        coefficients_Mm: int8; c_i, not zero, distinct within a row.
        exponents_Mm: uint8; e_i, a permutation of 1..m in each row.
    """

    coefficients_Mm: NDArray[np.int8]
    exponents_Mm: NDArray[np.uint8]

    def __post_init__(self) -> None:
        import numpy as np

        shapes = self.coefficients_Mm.shape, self.exponents_Mm.shape
        if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
            raise ShapeError(f"coefficients and exponents have shapes {shapes[0]} and {shapes[1]}; give (M, m) of both")
        if self.coefficients_Mm.dtype != np.int8 or self.exponents_Mm.dtype != np.uint8:
            raise RangeError("packed keys are int8 coefficients and uint8 exponents")

    def check(self) -> None:
        """Reject rows that are not keys; with them, a kernel would read outside its tables.

        Raises:
            RangeError: a coefficient of 0, equal coefficients in a row, or exponents that are no permutation of 1..m.
        """
        import numpy as np

        sorted_Mm = np.sort(self.coefficients_Mm, axis=1)
        is_bad_M = (self.coefficients_Mm == 0).any(axis=1) | (sorted_Mm[:, 1:] == sorted_Mm[:, :-1]).any(axis=1)
        in_order = np.arange(1, self.exponents_Mm.shape[1] + 1, dtype=np.uint8)
        is_bad_M |= (np.sort(self.exponents_Mm, axis=1) != in_order).any(axis=1)
        if is_bad_M.any():
            raise RangeError(
                f"{int(is_bad_M.sum())} of {len(is_bad_M)} packed keys are invalid: coefficients must be distinct and "
                "not zero, exponents a permutation of 1..m; draw keys with the scheme"
            )

    def __len__(self) -> int:
        return len(self.coefficients_Mm)

    def __repr__(self) -> str:
        return f"PolynomialKeys(num={len(self)}, values=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError(
            "packed keys cannot be pickled or copied; keep them in a KeyStore or a gallery's key file"
        )
