"""Fixed-point representation of unit embeddings and thresholds, in the smallest ring where no score overflows.

Suffixes: D embedding, N rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, unit_rows

_RING_BITS = {"int8": 16, "int16": 32}
_MAX_DIM = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Conversion of embeddings to integers: scaled by one public factor and rounded to the nearest integer.

    A share is uniform in the ring, independent of the shared value, so costs depend on the width of the ring and not on
    that of the values: "int8" computes in Z_2^16 and "int16" in Z_2^32. Each uses the finest scale of its ring.

    No overflow, with k = `ring_bits` and B = 2^(k/2 - 1) - 1: the scale s is B - ceil(sqrt(D)/2). Rounding moves a unit
    row times s by at most sqrt(D)/2 in norm, so a rounded row has norm at most B, and by Cauchy-Schwarz an inner
    product lies in [-B^2, B^2]. A threshold in [-1, 1] is an integer in [-s^2, s^2]. Their difference, the only value
    whose sign is taken, is at most B^2 + s^2 < 2 B^2 < 2^(k-1) in magnitude: it is a signed number of k bits.

    Attributes:
        dim: D, 1..4096.
        values: "int8" or "int16", the type that a rounded coordinate fits in.

    Raises:
        RangeError: `dim` is out of range.
        InvalidInputError: `values` is neither "int8" nor "int16".
    """

    dim: int
    values: Literal["int8", "int16"] = "int16"

    def __post_init__(self) -> None:
        if self.values not in _RING_BITS:
            raise InvalidInputError(f"values must be 'int8' or 'int16', got {self.values!r}.")
        if not 1 <= self.dim <= _MAX_DIM:
            raise RangeError(f"dim must be in 1..{_MAX_DIM}, got {self.dim}.")

    @property
    def ring_bits(self) -> int:
        """k: all arithmetic is modulo 2^k."""
        return _RING_BITS[self.values]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a ring element."""
        return np.dtype(np.uint16 if self.ring_bits == 16 else np.uint32)

    @property
    def wide_dtype(self) -> np.dtype[Any]:
        """Type of a word of a client's input, in the ring of twice the width; see `SharedInputs`."""
        return np.dtype(np.uint32 if self.ring_bits == 16 else np.uint64)

    @property
    def scale(self) -> int:
        """s: a coordinate v becomes the integer nearest to s v; a score is scaled by s^2."""
        return (1 << (self.ring_bits // 2 - 1)) - 1 - math.ceil(math.sqrt(self.dim) / 2)

    @property
    def largest_error(self) -> float:
        """Bound on the difference between a score and the exact cosine: sqrt(D)/s + D/(4 s^2).

        With e, f the rounding errors of the scaled rows, s^2 times the error is s<u, f> + s<v, e> + <e, f>, and e and f
        have norm at most sqrt(D)/2.
        """
        return math.sqrt(self.dim) / self.scale + self.dim / (4 * self.scale**2)

    @property
    def typical_error(self) -> float:
        """Root mean square error of a score if rounding errors are independent and uniform: 1/(sqrt(6) s)."""
        return 1 / (math.sqrt(6) * self.scale)

    @property
    def squared_norm_bounds(self) -> tuple[int, int]:
        """Bounds on the squared norm of a rounded unit row: (2 s - B)^2 and B^2, since it is within B - s of s."""
        largest = (1 << (self.ring_bits // 2 - 1)) - 1
        return (2 * self.scale - largest) ** 2, largest**2

    @property
    def slack_weights(self) -> tuple[int, ...]:
        """P weights whose subset sums are exactly the integers from 0 to W, the distance of `squared_norm_bounds`.

        They are the powers of two whose sum does not exceed W, and the rest.
        """
        low, high = self.squared_norm_bounds
        num_powers = (high - low + 1).bit_length() - 1
        return (*(1 << i for i in range(num_powers)), high - low - ((1 << num_powers) - 1))

    def quantise(self, embeddings_ND: ArrayLike, what: str = "embeddings") -> NDArray[Any]:
        """Convert (N, D) rows of L2 norm 1 to (N, D) ring elements, in two's complement.

        Raises:
            ShapeError: not (N, D) with N >= 1.
            RangeError: not finite, or not of norm 1.
        """
        unit_ND = unit_rows(embeddings_ND, self.dim, what)
        return np.asarray(np.rint(unit_ND * self.scale).astype(np.int64).astype(self.dtype))

    def integer_threshold(self, threshold: float) -> int:
        """Smallest integer score that, divided by s^2, is at least the threshold; ties are accepted.

        Raises:
            RangeError: not in [-1, 1].
        """
        if not -1 <= threshold <= 1:
            raise RangeError(f"The threshold must be in [-1, 1], got {threshold}.")
        square = self.scale**2
        smallest = math.ceil(threshold * square)
        while (smallest - 1) / square >= threshold:
            smallest -= 1
        while smallest / square < threshold:
            smallest += 1
        return smallest

    def signed(self, words: NDArray[Any]) -> NDArray[np.int64]:
        """Convert ring elements to the signed numbers that they represent."""
        return words.astype(self.dtype).view(f"int{self.ring_bits}").astype(np.int64)
