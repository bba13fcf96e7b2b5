"""The AdaMixUp paper's measures of a protection: privacy against accuracy, ranked among the methods compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ProblemsError, RangeError, ShapeError

# Below this part of the largest magnitude a spread is the rounding of the inputs, not a difference of methods.
_ROUNDING = 1e-9
# How far a mean cosine of float32 embeddings may leave [-1, 1].
_COSINE_SLACK = 1e-5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyMeasures:
    """What was measured of one protection; of the first four, more is more private.

    Attributes:
        s1: mean LPIPS between the original and its masked image, 0 or more.
        s2: 1 less the mean cosine of the embeddings of the two, in [0, 2], by a recogniser trained on unmasked faces.
        s3: as `s1`, between the original and what the adversary's network recovered of the masked image.
        s4: as `s2`, between the original and what was recovered.
        s5: accuracy with the protection over accuracy without, 0 or more; the paper takes both on LFW.
    """

    s1: float
    s2: float
    s3: float
    s4: float
    s5: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HybridScore:
    """One protection's place among those it was compared with. No score means anything without `compared`.

    Attributes:
        fused: w1 (S1 + S2) + w2 (S3 + S4), as measured: the one figure here that no other method changes.
        pp: `fused`, min-max normalised over the methods compared ("Score_pp"), in [0.5, 1].
        cls: S5, normalised likewise ("Score_cls"), in [0.5, 1].
        total_mean: mean of `pp` and `cls`: what the paper's table prints.
        total_product: their product: what the paper's text says.
        compared: the normalisation set, the names of all methods compared, this one among them, in the order given.
    """

    fused: float
    pp: float
    cls: float
    total_mean: float
    total_product: float
    compared: tuple[str, ...]

    def to_dict(self) -> dict[str, float | list[str]]:
        """JSON-ready, fields in order."""
        return {**dataclasses.asdict(self), "compared": list(self.compared)}


def hybrid_scores(
    measures: Mapping[str, PrivacyMeasures], *, masked_weight: float = 0.4, recovered_weight: float = 0.6
) -> dict[str, HybridScore]:
    """Score_pp, Score_cls and both totals of every method, normalised over exactly the methods given.

    Fusion comes first, normalisation after it. A score is a rank within the set: adding or leaving out a method changes
    the others' scores, so the sets of two tables must agree before their scores may be compared. The paper's set is its
    twelve masked methods; the recogniser without mask is not in it.

    Args:
        measures: method's name -> what was measured of it; two methods or more.
        masked_weight: w1, of what the masked image itself shows (S1, S2).
        recovered_weight: w2, of what an adversary recovers from it (S3, S4).

    Returns:
        Method's name -> its scores, in the order given. A measure in which all methods are equal gives all of them 1
        (see `min_max_scores`).

    Raises:
        InvalidInputError: fewer than two methods.
        ProblemsError: measures that are not finite or outside their range, every one of them named.
        RangeError: a weight that is negative or not finite, or both weights 0.

    References:
        AdaMixUp, arXiv 2403.10558, equations 9-11; methods A.6. The paper's text multiplies the two scores, its Table 2
        averages them; both are given here. From its LFW accuracies these functions give its Table 2 back to the last
        place but for two entries: LFW of k:2-5 (98.20 for 98.10), Score_cls of MixUp k=2 (.999 for .99985).

    Examples:
        >>> table = hybrid_scores({
        ...     "open": PrivacyMeasures(s1=0.1, s2=0.1, s3=0.1, s4=0.1, s5=1.0),
        ...     "between": PrivacyMeasures(s1=0.5, s2=0.5, s3=0.5, s4=0.5, s5=0.9),
        ...     "closed": PrivacyMeasures(s1=0.9, s2=0.9, s3=0.9, s4=0.9, s5=0.6),
        ... })
        >>> [(name, round(row.pp, 3), round(row.cls, 3), round(row.total_mean, 3)) for name, row in table.items()]
        [('open', 0.5, 1.0, 0.75), ('between', 0.75, 0.875, 0.812), ('closed', 1.0, 0.5, 0.75)]
    """
    weights = (masked_weight, recovered_weight)
    if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) == 0:
        raise RangeError(
            f"masked_weight={masked_weight}, recovered_weight={recovered_weight}: weights are finite and 0 or more, "
            "and not both 0; the paper has 0.4 and 0.6"
        )
    if len(measures) < 2:
        raise InvalidInputError(
            f"{len(measures)} method(s) to compare: scores are normalised over those compared, so give two or more"
        )
    _check(measures)
    fused = [masked_weight * (m.s1 + m.s2) + recovered_weight * (m.s3 + m.s4) for m in measures.values()]
    pp_N = min_max_scores(fused)
    cls_N = min_max_scores([m.s5 for m in measures.values()])
    compared = tuple(measures)
    return {
        name: HybridScore(
            fused=float(value),
            pp=float(pp),
            cls=float(cls),
            total_mean=float(pp + cls) / 2,
            total_product=float(pp * cls),
            compared=compared,
        )
        for name, value, pp, cls in zip(compared, fused, pp_N, cls_N, strict=True)
    }


def min_max_scores(values: ArrayLike, *, low: float = 0.5, high: float = 1.0) -> NDArray[np.float64]:
    """Values of the methods compared, moved linearly so that the smallest becomes `low` and the largest `high`.

    Where all values are equal (but for rounding, a billionth of the largest magnitude) the quotient is 0/0. All of them
    then become `high`: no method is worse than the best, so none is marked down, and the measure, which tells no two of
    them apart, leaves their ranking to the others. It is no error, since untrained recognisers are all at chance and a
    long run must not end on that.

    Args:
        values: (N,), one for each method, finite, N at least 2.
        low: score of the smallest.
        high: score of the largest; above `low`.

    Returns:
        (N,) float64 in [low, high], with the order of `values` kept.

    Raises:
        ShapeError: not one axis, or nothing in it.
        InvalidInputError: a single value.
        RangeError: values that are not finite, or `low` not below `high`.

    Examples:
        >>> min_max_scores([66.53, 98.93, 82.73]).round(3).tolist()
        [0.5, 1.0, 0.75]
        >>> min_max_scores([0.5, 0.5]).tolist()
        [1.0, 1.0]
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or len(values_N) == 0:
        raise ShapeError(f"values have shape {values_N.shape}; give (N,), N >= 2")
    if not np.isfinite(values_N).all():
        raise RangeError("values hold entries that are not finite; measure them anew, or leave the method out")
    if len(values_N) < 2:
        raise InvalidInputError("min-max normalisation of one value says nothing; give those of two methods or more")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RangeError(f"low={low}, high={high}: both must be finite and low below high, as in 0.5 and 1")
    # Scaled first, or the spread of values near the ends of float64 would overflow.
    magnitude = float(np.abs(values_N).max()) or 1.0
    scaled_N = values_N / magnitude
    spread = float(scaled_N.max() - scaled_N.min())
    if spread <= _ROUNDING:
        return np.full(len(values_N), float(high))
    share_N = (scaled_N - scaled_N.min()) / spread
    # This form, unlike low + share * (high - low), meets both ends exactly.
    return np.asarray(low * (1 - share_N) + high * share_N, dtype=np.float64)


def _check(measures: Mapping[str, PrivacyMeasures]) -> None:
    """Refuse measures that cannot be, all of them in one message."""
    problems = []
    for name, of_method in measures.items():
        for field in dataclasses.fields(of_method):
            value = getattr(of_method, field.name)
            low, high = (-_COSINE_SLACK, 2 + _COSINE_SLACK) if field.name in ("s2", "s4") else (0.0, math.inf)
            if not (math.isfinite(value) and low <= value <= high):
                allowed = "in [0, 2]" if math.isfinite(high) else "0 or more"
                problems.append(f"{name}: {field.name}={value}; allowed is a finite value {allowed}")
    if problems:
        raise ProblemsError("measures to compare; measure anew, or leave the method out of the comparison", problems)
