"""Verification (1:1): EER, AUC, TAR@FAR, FMR and FNMR at a threshold, accuracy over folds; each with its interval.

Suffixes: N comparisons, R resamples, T thresholds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics._bootstrap import SubjectBootstrap, Weights, dyadic_shrink
from ppfr.metrics._estimate import Estimate, Floats, estimate_from
from ppfr.metrics._folds import FoldAccuracy, FoldSplit, checked_folds, ten_fold_accuracy
from ppfr.metrics._inputs import Labels, check_resampling, finite_scores, subject_index
from ppfr.metrics._roc import Roc, ScoreOrder, auc_of, eer_of, roc, tar_at

DEFAULT_FARS = (1e-2, 1e-3, 1e-4)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Comparisons:
    """Scored 1:1 comparisons with their subjects, checked at construction.

    Attributes:
        scores: (N,) similarity, higher means more similar; finite.
        is_genuine: (N,) true if both sides show one subject.
        subject_a: (N,) subject of the first side, or None if the protocol does not state it (as in InsightFace .bin
            files). Intervals then resample comparisons, which is too narrow if subjects repeat; `method` states it.
        subject_b: (N,) subject of the second side, or None with `subject_a`.
        fold: (N,) fold of each comparison, or None.
    """

    scores: ArrayLike
    is_genuine: ArrayLike
    subject_a: Labels | None = None
    subject_b: Labels | None = None
    fold: Labels | None = None

    def __post_init__(self) -> None:
        score_N = finite_scores(self.scores, "scores")
        genuine_N = np.asarray(self.is_genuine, dtype=bool)
        if genuine_N.shape != score_N.shape:
            raise ShapeError(f"is_genuine has shape {genuine_N.shape}, scores {score_N.shape}; they must be the same")
        if genuine_N.all() or not genuine_N.any():
            missing = "impostor" if genuine_N.all() else "genuine"
            raise InvalidInputError(f"there is no {missing} comparison among {len(score_N)}; include both kinds")
        if (self.subject_a is None) != (self.subject_b is None):
            raise InvalidInputError("only one of subject_a and subject_b was given; pass both or neither")
        object.__setattr__(self, "scores", score_N)
        object.__setattr__(self, "is_genuine", genuine_N)
        if self.subject_a is not None and self.subject_b is not None:
            for name in ("subject_a", "subject_b"):
                subject_index(getattr(self, name), len(score_N), name)
            is_same = np.asarray(self.subject_a) == np.asarray(self.subject_b)
            num_wrong = int((is_same != genuine_N).sum())
            if num_wrong:
                raise InvalidInputError(
                    f"{num_wrong} comparisons are genuine between two subjects or impostor within one; "
                    "is_genuine must equal subject_a == subject_b"
                )
        if self.fold is not None:
            checked_folds(self.fold, len(score_N))

    def __repr__(self) -> str:
        return f"Comparisons(num={len(np.asarray(self.scores))}, scores=<redacted>, subjects=<redacted>)"

    def roc(self) -> Roc:
        """The empirical ROC curve."""
        score_N, genuine_N = np.asarray(self.scores), np.asarray(self.is_genuine)
        return roc(score_N[genuine_N], score_N[~genuine_N])


class _Resampler:
    """The score order of some comparisons and the bootstrap over their subjects, in that order."""

    def __init__(self, comparisons: Comparisons, *, seed: int, num_resamples: int, level: float) -> None:
        score_N = np.asarray(comparisons.scores, dtype=np.float64)
        genuine_N: NDArray[np.bool_] = np.asarray(comparisons.is_genuine, dtype=bool)
        self.order = ScoreOrder(score_N, genuine_N)
        self.num_genuine, self.num_impostor = int(genuine_N.sum()), int((~genuine_N).sum())
        self.num, self.level = len(score_N), level
        sorting = self.order.order_N
        if comparisons.subject_a is None or comparisons.subject_b is None:
            subject_a, subject_b, num_subjects = sorting, None, self.num
            self.method = f"bootstrap over {self.num} comparisons, subjects unknown"
            self.independent_genuine = self.num_genuine
        else:
            both = np.concatenate([np.asarray(comparisons.subject_a), np.asarray(comparisons.subject_b)])
            index, num_subjects = subject_index(both, 2 * self.num, "subjects")
            subject_a, subject_b = index[: self.num][sorting], index[self.num :][sorting]
            self.method = f"bootstrap over {num_subjects} subjects"
            self.independent_genuine = len(np.unique(index[: self.num][genuine_N]))
        self.independent_impostor = min(self.num_impostor, num_subjects)
        check_resampling(num_resamples, level, num_subjects)
        self._bootstrap = SubjectBootstrap(
            subject_a,
            subject_b,
            num_subjects=num_subjects,
            num_resamples=num_resamples,
            seed=seed,
            shrink=1.0 if subject_b is None else self._shrink(score_N[sorting], subject_a, subject_b),
        )

    def _shrink(self, ordered_N: Floats, subject_a: NDArray[np.int64], subject_b: NDArray[np.int64]) -> float:
        """Shrinkage from false matches at the threshold of the EER, where both kinds of error are frequent enough."""
        tar_RT, fmr_RT = self.order.rates(np.ones((1, self.num), dtype=np.float32))
        threshold = self.order.threshold_T[np.argmax(fmr_RT[0] >= 1 - tar_RT[0])]
        impostor = ~self.order.is_genuine_N
        is_match = (ordered_N[impostor] >= threshold).astype(np.float64)
        return dyadic_shrink(is_match, subject_a[impostor], subject_b[impostor])

    def estimates(self, quantities: Sequence[_Quantity]) -> list[Estimate]:
        """Each quantity on the sample, with its interval from resamples that all quantities share."""

        def all_of(weight_RN: Weights) -> Floats:
            tar_RT, fmr_RT = self.order.rates(weight_RN)
            return np.stack([q.compute(tar_RT, fmr_RT, weight_RN) for q in quantities], axis=1)

        values = all_of(np.ones((1, self.num), dtype=np.float32))[0]
        resampled_RQ = self._bootstrap.resample(all_of)
        return [
            estimate_from(
                float(value),
                resampled_R,
                n=q.n,
                level=self.level,
                method=self.method,
                num_independent=q.num_independent,
                caveat=q.caveat,
            )
            for q, value, resampled_R in zip(quantities, values, resampled_RQ.T, strict=True)
        ]

    def eer(self) -> _Quantity:
        return _Quantity(lambda tar, fmr, _: eer_of(tar, fmr), self.num, self._fewest())

    def auc(self) -> _Quantity:
        return _Quantity(lambda tar, fmr, _: auc_of(tar, fmr), self.num, self._fewest())

    def tar(self, far: float) -> _Quantity:
        caveat = far_caveat(far, self.num_impostor)
        return _Quantity(
            lambda tar, fmr, _: tar_at(tar, fmr, far), self.num_genuine, self.independent_genuine, caveat=caveat
        )

    def fmr(self, threshold: float) -> _Quantity:
        at = int(self.order.index_of(threshold))
        return _Quantity(lambda _, fmr, __: fmr[:, at], self.num_impostor, self.independent_impostor)

    def fnmr(self, threshold: float) -> _Quantity:
        at = int(self.order.index_of(threshold))
        return _Quantity(lambda tar, _, __: 1 - tar[:, at], self.num_genuine, self.independent_genuine)

    def accuracy(self, fold: Labels) -> _Quantity:
        split = FoldSplit(self.order, *checked_folds(fold, self.num))

        def mean_over_folds(_: Floats, __: Floats, weight_RN: Weights) -> Floats:
            accuracy_RF, _ = split.evaluate(weight_RN)
            # A fold of few subjects may have no weight in a resample; the mean is then over the other folds.
            has_weight_RF = np.isfinite(accuracy_RF)
            return np.asarray(np.where(has_weight_RF, accuracy_RF, 0).sum(axis=1) / has_weight_RF.sum(axis=1))

        return _Quantity(mean_over_folds, self.num, self.independent_genuine + self.independent_impostor)

    def _fewest(self) -> int:
        return min(self.independent_genuine, self.independent_impostor)


@dataclasses.dataclass(frozen=True, slots=True)
class _Quantity:
    """A function of (R, T) TAR and FMR and (R, N) weights, and its sample size."""

    compute: Callable[[Floats, Floats, Weights], Floats]
    n: int
    num_independent: int
    caveat: str = ""


def far_caveat(far: float, num_impostor: int, *, name: str = "FAR", what: str = "impostor comparisons") -> str:
    """Why `num_impostor` comparisons are too few to estimate rates at `far`; "" if they are enough.

    Below one expected false match the rate is that of a threshold above every impostor score. Below thirty the rate
    itself is uncertain by more than 30 % (the "rule of 30").

    References:
        G. R. Doddington et al., "The NIST speaker recognition evaluation", Speech Communication 31, 2000.
    """
    if not 0 < far <= 1:
        raise RangeError(f"{name} {far} is not a rate; it must be in (0, 1], such as 1e-3")
    if num_impostor * far * (1 + 1e-9) < 1:
        return f"{num_impostor:,} {what} cannot show {name} {far:g}: the threshold lies above all of them"
    if num_impostor * far * (1 + 1e-9) < 30:
        return f"{name} {far:g} rests on {num_impostor * far:.3g} of {num_impostor:,} {what} (rule of 30)"
    return ""


def eer(comparisons: Comparisons, *, seed: int, num_resamples: int = 1000, level: float = 0.95) -> Estimate:
    """Equal error rate: where FMR equals FNMR on the empirical curve, interpolated linearly between thresholds."""
    sampler = _Resampler(comparisons, seed=seed, num_resamples=num_resamples, level=level)
    return sampler.estimates([sampler.eer()])[0]


def auc(comparisons: Comparisons, *, seed: int, num_resamples: int = 1000, level: float = 0.95) -> Estimate:
    """Area under the ROC curve; ties count one half."""
    sampler = _Resampler(comparisons, seed=seed, num_resamples=num_resamples, level=level)
    return sampler.estimates([sampler.auc()])[0]


def tar_at_far(
    comparisons: Comparisons,
    *,
    fars: Sequence[float] = DEFAULT_FARS,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> dict[float, Estimate]:
    """Share of genuine comparisons accepted at the lowest threshold whose empirical FMR is at most each FAR.

    Each resample chooses its own threshold, so the interval includes the uncertainty of the threshold. `n` counts
    genuine comparisons. `caveat` states if there are too few impostor comparisons for the FAR.

    Raises:
        RangeError: a FAR is outside (0, 1].
    """
    sampler = _Resampler(comparisons, seed=seed, num_resamples=num_resamples, level=level)
    return dict(zip(fars, sampler.estimates([sampler.tar(far) for far in fars]), strict=True))


def fmr(
    comparisons: Comparisons, threshold: float, *, seed: int, num_resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """False match rate at a fixed threshold: share of impostor comparisons with `score >= threshold`."""
    sampler = _Resampler(comparisons, seed=seed, num_resamples=num_resamples, level=level)
    return sampler.estimates([sampler.fmr(_checked(threshold))])[0]


def fnmr(
    comparisons: Comparisons, threshold: float, *, seed: int, num_resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """False non-match rate at a fixed threshold: share of genuine comparisons with `score < threshold`."""
    sampler = _Resampler(comparisons, seed=seed, num_resamples=num_resamples, level=level)
    return sampler.estimates([sampler.fnmr(_checked(threshold))])[0]


def _checked(threshold: float) -> float:
    if np.isnan(threshold):
        raise RangeError("the threshold is NaN; pass a score, or an infinity to accept none or all")
    return threshold


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """All verification rates of one set of comparisons, from the same resamples.

    Attributes:
        accuracy: accuracy over folds with its interval; None without folds.
        folds: per-fold figures, spread and thresholds; None without folds.
        eer: equal error rate.
        auc: area under the ROC curve.
        tar_at_far: TAR at each requested FAR.
        num_genuine: number of genuine comparisons.
        num_impostor: number of impostor comparisons.
        num_resamples: number of bootstrap resamples of every interval.
        seed: seed of the resamples.
    """

    accuracy: Estimate | None
    folds: FoldAccuracy | None
    eer: Estimate
    auc: Estimate
    tar_at_far: Mapping[float, Estimate]
    num_genuine: int
    num_impostor: int
    num_resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; FARs become keys like "0.001"."""
        return {
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
            "accuracy_std_over_folds": self.folds.std if self.folds else None,
            "accuracy_standard_error": self.folds.standard_error if self.folds else None,
            "num_folds": len(self.folds.accuracy_F) if self.folds else None,
            "eer": self.eer.to_dict(),
            "auc": self.auc.to_dict(),
            "tar_at_far": {f"{far:g}": estimate.to_dict() for far, estimate in self.tar_at_far.items()},
            "num_genuine": self.num_genuine,
            "num_impostor": self.num_impostor,
            "num_resamples": self.num_resamples,
            "seed": self.seed,
        }


def verification_report(
    comparisons: Comparisons,
    *,
    fars: Sequence[float] = DEFAULT_FARS,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> VerificationReport:
    """Accuracy over folds (if there are folds), EER, AUC and TAR at each FAR, with intervals over subjects.

    Args:
        comparisons: scores, truth, subjects and folds.
        fars: false accept rates at which TAR is reported.
        seed: root of the resamples.
        num_resamples: number of bootstrap resamples.
        level: confidence level of every interval.

    Raises:
        InvalidInputError: there are fewer than two subjects, or the folds other than one have no genuine or no impostor
            comparison.
        RangeError: a FAR is outside (0, 1].
    """
    sampler = _Resampler(comparisons, seed=seed, num_resamples=num_resamples, level=level)
    quantities = [sampler.eer(), sampler.auc(), *(sampler.tar(far) for far in fars)]
    folds = None
    if comparisons.fold is not None:
        folds = ten_fold_accuracy(comparisons.scores, comparisons.is_genuine, comparisons.fold)
        quantities.append(sampler.accuracy(comparisons.fold))
    found = sampler.estimates(quantities)
    return VerificationReport(
        accuracy=found[-1] if folds is not None else None,
        folds=folds,
        eer=found[0],
        auc=found[1],
        tar_at_far=dict(zip(fars, found[2 : 2 + len(fars)], strict=True)),
        num_genuine=sampler.num_genuine,
        num_impostor=sampler.num_impostor,
        num_resamples=num_resamples,
        seed=seed,
    )
