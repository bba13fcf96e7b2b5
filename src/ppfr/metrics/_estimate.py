"""A measured value with its sample size and its confidence interval."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ppfr.core import InvalidInputError

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value, its confidence interval, its sample size and the method of the interval.

    >>> print(Estimate(value=0.9937, low=0.9913, high=0.9958, n=6000, method="bootstrap over 4281 subjects"))
    0.9937 [0.9913, 0.9958] (95 %, n = 6,000, bootstrap over 4281 subjects)

    Attributes:
        value: the estimate from the whole sample.
        low: lower end of the interval; never above `value`.
        high: upper end of the interval; never below `value`.
        n: number of observations (comparisons, searches or images, as documented by the function).
        level: confidence level of the interval, in (0, 1).
        method: how the interval was computed.
        caveat: why the value is unreliable; "" if it is not.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95
    method: str
    caveat: str = ""

    def __str__(self) -> str:
        tail = f"; {self.caveat}" if self.caveat else ""
        return (
            f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] "
            f"({100 * self.level:g} %, n = {self.n:,}, {self.method}{tail})"
        )

    def as_percent(self, digits: int = 2) -> str:
        """The value and its interval in %, for a table cell.

        >>> Estimate(value=0.9937, low=0.9913, high=0.9958, n=6000, method="bootstrap").as_percent()
        '99.37 [99.13, 99.58]'
        """
        value, low, high = (f"{100 * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def to_dict(self) -> dict[str, float | int | str]:
        """JSON-ready, fields in order."""
        return dataclasses.asdict(self)


def wilson(share: float, n: int, *, level: float) -> tuple[float, float]:
    """Wilson score interval of a share of `n` independent trials.

    Unlike a bootstrap interval, it has a width above zero if only one of the two outcomes was observed.

    References:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def estimate_from(
    value: float,
    resampled_R: Floats,
    *,
    n: int,
    level: float,
    method: str,
    num_independent: int | None,
    caveat: str = "",
) -> Estimate:
    """Percentile interval from bootstrap values, widened to include the value itself.

    Args:
        value: the estimate from the whole sample.
        resampled_R: its bootstrap values; NaN where the statistic is undefined on a resample.
        n: sample size to report.
        level: confidence level.
        method: what was resampled.
        num_independent: for a share in [0, 1], the number of independent units. If the value is 0 or 1, so is every
            resample, and Wilson's interval over these units is used instead. None if the value is not a share.
        caveat: caveat of the estimate.
    """
    usable = resampled_R[np.isfinite(resampled_R)]
    if usable.size == 0:
        raise InvalidInputError(
            "no resample contained both kinds of observation; use more subjects or more comparisons"
        )
    low, high = (float(q) for q in np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]))
    if num_independent is not None and min(value, 1 - value) < 1e-12:
        wilson_low, wilson_high = wilson(value, num_independent, level=level)
        low, high = min(low, wilson_low), max(high, wilson_high)
        method = f"Wilson, {num_independent} independent units, nothing but one outcome seen"
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=n,
        level=level,
        method=method,
        caveat=caveat,
    )
