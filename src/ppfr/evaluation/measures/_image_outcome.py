"""What an attack on masked images achieved, measured against chance and against plain images.

Suffixes: N images of target subjects, M gallery, D embedding, C H W image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np

from ppfr.core import AttackResult, RangeError, ShapeError, result_row
from ppfr.evaluation._attack_plan import ControlRule
from ppfr.evaluation.measures._verification import VerificationRow
from ppfr.metrics import (
    Comparisons,
    Estimate,
    chance_rate,
    identity_cosine,
    lpips,
    mean_with_interval,
    psnr,
    rank_k,
    ssim,
    ten_fold_accuracy,
    threshold_at_far,
)

EmbedFaces = Callable[[np.ndarray], np.ndarray]
"""(N, 3, H, W) float32 in [0, 1] -> (N, D) unit rows by the evaluation recogniser."""


@result_row("re_identification")
class ReIdentificationRow:
    """Re-identification of target subjects in a gallery of plain images.

    Attributes:
        attack: its name.
        gallery_size: people in the gallery.
        rank_1: share of target subjects found at rank 1.
        rank_5: found among the first five.
        chance_rank_1: chance level.
        chance_rank_5: chance level.
        plain_rank_1: upper bound: the same with plain images.
        plain_rank_5: upper bound.
    """

    attack: str
    gallery_size: int
    rank_1: Estimate
    rank_5: Estimate
    chance_rank_1: float
    chance_rank_5: float
    plain_rank_1: Estimate
    plain_rank_5: Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """How the evaluation recogniser takes a picture at one threshold.

    Attributes:
        same_image: accepted as the attacked image; None for the attacked image itself.
        other_image: accepted as another image of the subject (impersonation success rate).
        other_subject: accepted as other target subjects.
        accuracy: mean of `other_image` and one less `other_subject`.
    """

    same_image: Estimate | None
    other_image: Estimate
    other_subject: Estimate
    accuracy: Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How alike a picture is to the attacked image; `lpips` is None where its network is absent."""

    ssim: Estimate
    psnr: Estimate
    lpips: Estimate | None
    identity_cosine: Estimate
    at_far: Acceptance
    at_folds: Acceptance


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlainAcceptance:
    """How the attacked images themselves are accepted."""

    at_far: Acceptance
    at_folds: Acceptance


@result_row("image_recovery")
class ImageRecoveryRow:
    """Likeness of recovered faces to the attacked images.

    Attributes:
        attack: its name.
        far: the evaluation recogniser's false accept rate at `at_far`; `at_folds` is at its folds' mean threshold.
        recovered: the recovered faces.
        average: the average face of the adversary, for comparison.
        masked: pictures of what the adversary saw; None in records of the first version.
        plain: the attacked images themselves.
    """

    attack: str
    far: float
    recovered: Likeness
    average: Likeness
    masked: Likeness | None
    plain: PlainAcceptance


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageAttackRule(ControlRule):
    """When a control counts as passed. Rates are the lower ends of intervals, so chance does not pass.

    Attributes:
        min_share_of_plain: a positive control re-identifies at least this share of the subjects that plain images do.
        min_ssim: and, if it recovers pictures, exceeds this mean SSIM.
        max_pairs_accuracy: a negative control re-identifies no more than chance, and its 1:1 accuracy is not above
            this. Not 0.5: in LFW the people of genuine and of impostor pairs differ, so the plain image alone says a
            little.
    """

    min_share_of_plain: float = 0.5
    min_ssim: float = 0.9
    max_pairs_accuracy: float = 0.55

    def win_in_words(self) -> str:
        """What a positive control must show."""
        return (
            f"re-identifies at least {100 * self.min_share_of_plain:g} % of the target subjects that plain images do "
            f"(lower end of the interval); if it recovers pictures, their mean SSIM is above {self.min_ssim:g}"
        )

    def chance_in_words(self) -> str:
        """What a negative control must show."""
        return (
            "re-identifies no more target subjects than chance, and decides no more than "
            f"{100 * self.max_pairs_accuracy:g} % of pairs correctly (lower ends of the intervals)"
        )

    def is_met(
        self,
        role: str,
        found: ReIdentificationRow,
        recovery: ImageRecoveryRow | None,
        pairs: Sequence[VerificationRow],
    ) -> bool:
        """Whether a control came out as it must."""
        if role == "positive control":
            is_enough = found.rank_1.low >= self.min_share_of_plain * found.plain_rank_1.value
            return bool(is_enough and (recovery is None or recovery.recovered.ssim.value > self.min_ssim))
        lows = [row.accuracy.low for row in pairs if row.accuracy is not None]
        return bool(found.rank_1.low <= found.chance_rank_1 and all(low <= self.max_pairs_accuracy for low in lows))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where the evaluation recogniser accepts: at a false accept rate, and at the mean of its folds."""

    rate: float
    far: float
    folds: float


def thresholds_of(plain: Comparisons, far: float) -> Thresholds:
    """The recogniser's thresholds from its own scores on plain pairs."""
    score_N, genuine_N = np.asarray(plain.scores), np.asarray(plain.is_genuine)
    assert plain.fold is not None
    folds = ten_fold_accuracy(score_N, genuine_N, plain.fold)
    at_far = threshold_at_far(score_N[genuine_N], score_N[~genuine_N], far)
    return Thresholds(rate=far, far=float(at_far), folds=float(folds.threshold_F.mean()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TargetFaces:
    """The target subjects, plain: the images that are attacked, and another image of each as the gallery.

    Attributes:
        seen_NCHW: the attacked images, float32 in [0, 1].
        subjects: the subject of each row, also of the gallery's rows.
        seen_ND: the recogniser's embeddings of the attacked images.
        gallery_ND: of the other images.
        average_CHW: the mean of the adversary's own faces.
    """

    seen_NCHW: np.ndarray
    subjects: Sequence[str]
    seen_ND: np.ndarray
    gallery_ND: np.ndarray
    average_CHW: np.ndarray


class OutcomeEvaluation:
    """Turns what an attack made of the target subjects into rows."""

    def __init__(
        self,
        targets: TargetFaces,
        *,
        embed: EmbedFaces,
        thresholds: Thresholds,
        lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
        seed: int,
        num_resamples: int,
    ) -> None:
        self._targets, self._embed, self._thresholds, self._lpips = targets, embed, thresholds, lpips
        self._seed, self._num_resamples = seed, num_resamples

    def guesses(self, result: AttackResult) -> np.ndarray:
        """(N, D) the attack's estimate of each identity: its embeddings, or the recogniser's of its pictures.

        Raises:
            ShapeError: embeddings of another length than the recogniser's.
        """
        if result.embeddings_ND is None:
            assert result.recovered_NCHW is not None
            return self._embed(np.asarray(result.recovered_NCHW.detach().cpu().numpy(), dtype=np.float32))
        guess_ND = np.asarray(result.embeddings_ND, dtype=np.float64)
        dim = self._targets.gallery_ND.shape[1]
        if guess_ND.ndim != 2 or guess_ND.shape[1] != dim:
            raise ShapeError(
                f"the attack estimates embeddings of shape {guess_ND.shape}, the evaluation recogniser's have length "
                f"{dim}; name the recogniser whose embeddings the attack was trained to estimate"
            )
        return guess_ND

    def re_identification(self, attack: str, guess_ND: np.ndarray) -> ReIdentificationRow:
        """Rank-1 and rank-5 in the gallery, beside chance and the upper bound of plain images."""
        size = len(self._targets.gallery_ND)
        found, plain = self._ranks(guess_ND), self._ranks(self._targets.seen_ND)
        return ReIdentificationRow(
            attack=attack,
            gallery_size=size,
            rank_1=found[1],
            rank_5=found[5],
            chance_rank_1=chance_rate(1, size),
            chance_rank_5=chance_rate(5, size),
            plain_rank_1=plain[1],
            plain_rank_5=plain[5],
        )

    def recovery(self, attack: str, recovered_NCHW: np.ndarray, masked_NCHW: np.ndarray) -> ImageRecoveryRow:
        """Likeness of the recovered faces, of the average face, of what the adversary saw, and of the plain images."""
        seen_NCHW = self._targets.seen_NCHW
        if recovered_NCHW.shape != seen_NCHW.shape:
            raise ShapeError(f"the attack recovered shape {recovered_NCHW.shape}, the targets are {seen_NCHW.shape}")
        if not np.isfinite(recovered_NCHW).all() or recovered_NCHW.min() < 0 or recovered_NCHW.max() > 1:
            raise RangeError("the attack recovered values outside [0, 1] or not finite; clamp what it returns")
        average_NCHW = np.broadcast_to(self._targets.average_CHW, seen_NCHW.shape)
        original_ND = self._targets.seen_ND
        return ImageRecoveryRow(
            attack=attack,
            far=self._thresholds.rate,
            recovered=self._likeness(recovered_NCHW, self._embed(recovered_NCHW)),
            average=self._likeness(
                average_NCHW, np.broadcast_to(self._embed(average_NCHW[:1].copy()), original_ND.shape)
            ),
            masked=self._likeness(masked_NCHW, self._embed(masked_NCHW)),
            plain=PlainAcceptance(
                at_far=self._acceptance(original_ND, self._thresholds.far, is_plain=True),
                at_folds=self._acceptance(original_ND, self._thresholds.folds, is_plain=True),
            ),
        )

    def _ranks(self, guess_ND: np.ndarray) -> Mapping[int, Estimate]:
        return rank_k(
            guess_ND @ self._targets.gallery_ND.T,
            self._targets.subjects,
            self._targets.subjects,
            ranks=(1, 5),
            seed=self._seed,
            num_resamples=self._num_resamples,
        )

    def _likeness(self, picture_NCHW: np.ndarray, picture_ND: np.ndarray) -> Likeness:
        seen_NCHW, network = self._targets.seen_NCHW, self._lpips
        picture_NCHW = np.ascontiguousarray(picture_NCHW, dtype=np.float32)
        return Likeness(
            ssim=self._mean(ssim(picture_NCHW, seen_NCHW)),
            psnr=self._mean(psnr(picture_NCHW, seen_NCHW)),
            lpips=None if network is None else self._mean(lpips(picture_NCHW, seen_NCHW, network)),
            identity_cosine=self._mean(identity_cosine(picture_ND, self._targets.seen_ND)),
            at_far=self._acceptance(picture_ND, self._thresholds.far),
            at_folds=self._acceptance(picture_ND, self._thresholds.folds),
        )

    def _acceptance(self, picture_ND: np.ndarray, threshold: float, *, is_plain: bool = False) -> Acceptance:
        targets = self._targets
        accepted_NM = picture_ND @ targets.gallery_ND.T >= threshold
        own_N = np.diagonal(accepted_NM).astype(np.float64)
        others_N = (accepted_NM.sum(axis=1) - own_N) / (len(accepted_NM) - 1)
        same_N = np.einsum("nd,nd->n", picture_ND, targets.seen_ND) >= threshold
        return Acceptance(
            same_image=None if is_plain else self._mean(same_N.astype(np.float64), is_share=True),
            other_image=self._mean(own_N, is_share=True),
            other_subject=self._mean(others_N, is_share=True),
            accuracy=self._mean((own_N + 1 - others_N) / 2, is_share=True),
        )

    def _mean(self, values_N: np.ndarray, *, is_share: bool = False) -> Estimate:
        return mean_with_interval(
            values_N,
            self._targets.subjects,
            seed=self._seed,
            num_resamples=self._num_resamples,
            is_share=is_share,
        )
