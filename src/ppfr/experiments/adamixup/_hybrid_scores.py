"""Composite scores of the AdaMixUp paper: privacy and accuracy, ranked among the compared methods."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ProblemsError, RangeError, ShapeError

# A spread below this share of the largest magnitude is due to rounding of the inputs.
_ROUNDING = 1e-9
# How far a mean cosine of float32 embeddings may be outside [-1, 1].
_COSINE_SLACK = 1e-5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyMeasures:
    """Measures of one protection. Higher values of the first four are more private.

    Attributes:
        s1: mean LPIPS between the original and its masked image, 0 or more.
        s2: 1 minus the mean cosine of the embeddings of these two, in [0, 2], by a recogniser trained on plain faces.
        s3: as `s1`, between the original and the image that the adversary recovers from the masked image.
        s4: as `s2`, between the original and the recovered image.
        s5: accuracy with the protection divided by accuracy without it, 0 or more; the paper measures both on LFW.
    """

    s1: float
    s2: float
    s3: float
    s4: float
    s5: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HybridScore:
    """Scores of one protection among those it was compared with. All but `fused` depend on `compared`.

    Attributes:
        fused: w1 (S1 + S2) + w2 (S3 + S4). It does not depend on the other methods.
        pp: `fused`, min-max normalised over the compared methods ("Score_pp"), in [0.5, 1].
        cls: S5, normalised in the same manner ("Score_cls"), in [0.5, 1].
        total_mean: mean of `pp` and `cls`, as printed in the table of the paper.
        total_product: their product, as defined in the text of the paper.
        compared: names of all compared methods, including this one, in the given order.
    """

    fused: float
    pp: float
    cls: float
    total_mean: float
    total_product: float
    compared: tuple[str, ...]

    def to_dict(self) -> dict[str, float | list[str]]:
        """The fields in order, ready for JSON."""
        return {**dataclasses.asdict(self), "compared": list(self.compared)}


def hybrid_scores(
    measures: Mapping[str, PrivacyMeasures], *, masked_weight: float = 0.4, recovered_weight: float = 0.6
) -> dict[str, HybridScore]:
    """Score_pp, Score_cls and both totals of every method, normalised over the given methods.

    The measures are first fused and then normalised. Scores depend on the set of methods: adding or removing a method
    changes the scores of the others. Scores of two tables are comparable only if both have the same set. The set of the
    paper is its twelve masked methods, without the unmasked recogniser.

    Args:
        measures: name of each method -> its measures; at least two methods.
        masked_weight: w1, weight of the masked image (S1, S2).
        recovered_weight: w2, weight of the recovered image (S3, S4).

    Returns:
        Name of each method -> its scores, in the given order. If all methods are equal in a measure, all get score 1
        (see `min_max_scores`).

    Raises:
        InvalidInputError: fewer than two methods.
        ProblemsError: lists all measures that are not finite or outside their range.
        RangeError: a weight is negative or not finite, or both weights are 0.

    References:
        AdaMixUp, arXiv 2403.10558, equations 9-11; methods A.6. The text of the paper multiplies the two scores, its
        Table 2 averages them; both are computed here. From the LFW accuracies of the paper, these functions reproduce
        its Table 2 to the last digit, except two entries: LFW of k:2-5 (98.20 for 98.10), and Score_cls of MixUp k=2
        (.999 for .99985).

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
            f"masked_weight={masked_weight}, recovered_weight={recovered_weight}: weights must be finite, 0 or more, "
            "and not both 0; the paper uses 0.4 and 0.6"
        )
    if len(measures) < 2:
        raise InvalidInputError(
            f"got {len(measures)} method(s); scores are normalised over the compared methods, so give at least two"
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
    """Values scaled linearly so that the smallest becomes `low` and the largest `high`.

    If all values are equal, up to a relative difference of 1e-9, all become `high`. The measure then does not affect
    the ranking. This is not an error: untrained recognisers are all at the chance level, and a long run must not fail
    because of that.

    Args:
        values: (N,), one per method, finite, N at least 2.
        low: score of the smallest value.
        high: score of the largest value; above `low`.

    Returns:
        (N,) float64 in [low, high], in the order of `values`.

    Raises:
        ShapeError: `values` does not have one axis, or is empty.
        InvalidInputError: a single value.
        RangeError: values that are not finite, or `low` is not below `high`.

    Examples:
        >>> min_max_scores([66.53, 98.93, 82.73]).round(3).tolist()
        [0.5, 1.0, 0.75]
        >>> min_max_scores([0.5, 0.5]).tolist()
        [1.0, 1.0]
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or len(values_N) == 0:
        raise ShapeError(f"expected values of shape (N,) with N >= 2, got {values_N.shape}")
    if not np.isfinite(values_N).all():
        raise RangeError("values contain entries that are not finite; measure them again, or omit the method")
    if len(values_N) < 2:
        raise InvalidInputError("got one value; min-max normalisation needs the values of at least two methods")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RangeError(f"low={low}, high={high}: both must be finite, and low below high; for example 0.5 and 1")
    # Scale first, so that the spread of values near the limits of float64 does not overflow.
    magnitude = float(np.abs(values_N).max()) or 1.0
    scaled_N = values_N / magnitude
    spread = float(scaled_N.max() - scaled_N.min())
    if spread <= _ROUNDING:
        return np.full(len(values_N), float(high))
    share_N = (scaled_N - scaled_N.min()) / spread
    # Unlike low + share * (high - low), this form is exact at both ends.
    return np.asarray(low * (1 - share_N) + high * share_N, dtype=np.float64)


def _check(measures: Mapping[str, PrivacyMeasures]) -> None:
    """Reject invalid measures; all are listed."""
    problems = []
    for name, of_method in measures.items():
        for field in dataclasses.fields(of_method):
            value = getattr(of_method, field.name)
            low, high = (-_COSINE_SLACK, 2 + _COSINE_SLACK) if field.name in ("s2", "s4") else (0.0, math.inf)
            if not (math.isfinite(value) and low <= value <= high):
                allowed = "in [0, 2]" if math.isfinite(high) else "0 or more"
                problems.append(f"{name}: {field.name}={value}; expected a finite value {allowed}")
    if problems:
        raise ProblemsError("invalid measures; measure again, or omit the methods", problems)
