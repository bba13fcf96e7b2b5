"""Outcome of an attack on masked images, compared with the chance level and with plain images.

Suffixes: N images of target subjects, M gallery, D embedding, C H W image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np

from ppfr.core import AttackResult, RangeError, ShapeError, result_row
from ppfr.evaluation._attack_plan import ControlRule
from ppfr.evaluation.measures._mixture_outcome import MixtureReIdentificationRow, mixture_row
from ppfr.evaluation.measures._verification import VerificationRow
from ppfr.metrics import (
    Comparisons,
    Estimate,
    chance_rate,
    identity_cosine,
    inversion_success,
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

    Of an adversary who sees mixed images this counts the first person of each mixture alone. If nothing distinguishes
    the first of k people, a perfect adversary finds it in one of k cases: see `MixtureReIdentificationRow`.

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
    """Acceptance of faces by the evaluation recogniser at one threshold.

    Attributes:
        same_image: accepted as the attacked image; None for the attacked image itself.
        other_image: accepted as another image of the subject (impersonation success rate).
        other_subject: accepted as other target subjects.
        accuracy: mean of `other_image` and 1 - `other_subject`.
    """

    same_image: Estimate | None
    other_image: Estimate
    other_subject: Estimate
    accuracy: Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Similarity of faces to the attacked images; `lpips` is None if its network is absent."""

    ssim: Estimate
    psnr: Estimate
    lpips: Estimate | None
    identity_cosine: Estimate
    at_far: Acceptance
    at_folds: Acceptance


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlainAcceptance:
    """Acceptance of the attacked images themselves."""

    at_far: Acceptance
    at_folds: Acceptance


@result_row("image_recovery")
class ImageRecoveryRow:
    """Similarity of recovered faces to the attacked images.

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


@result_row("masked_picture")
class MaskedPictureRow:
    """Similarity of masked images to the plain ones under a rendering other than that of `ImageRecoveryRow.masked`.

    Attributes:
        attack: its name.
        rendering: how masked channels became one picture.
        lpips: None if its network is absent.
        identity_cosine: by the evaluation recogniser.
    """

    attack: str
    rendering: str
    lpips: Estimate | None
    identity_cosine: Estimate


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageAttackRule(ControlRule):
    """When a control counts as passed. Rates are lower ends of intervals, so a chance result does not pass.

    Attributes:
        min_share_of_plain: a positive control re-identifies at least this share of the subjects that plain images
            re-identify, and more than chance. If the evaluation recogniser itself is at the chance level, the control
            therefore fails.
        min_ssim: if it recovers faces, their mean SSIM must exceed this.
        max_pairs_accuracy: a negative control re-identifies at most at the chance level, and its 1:1 accuracy is at
            most this. Above 0.5, because in LFW the people of genuine and of impostor pairs differ, so the plain image
            alone is slightly informative.
    """

    min_share_of_plain: float = 0.5
    min_ssim: float = 0.9
    max_pairs_accuracy: float = 0.55

    def win_in_words(self) -> str:
        """What a positive control must show."""
        return (
            f"re-identifies more target subjects than chance, and at least {100 * self.min_share_of_plain:g} % of "
            "those that plain images do (lower ends of the intervals); if it recovers pictures, their mean SSIM is "
            f"above {self.min_ssim:g}"
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
        """Whether a control passed."""
        if role == "positive control":
            is_enough = found.rank_1.low >= self.min_share_of_plain * found.plain_rank_1.value
            is_above_chance = min(found.rank_1.low, found.plain_rank_1.low) > found.chance_rank_1
            return bool(
                is_enough and is_above_chance and (recovery is None or recovery.recovered.ssim.value > self.min_ssim)
            )
        lows = [row.accuracy.low for row in pairs if row.accuracy is not None]
        return bool(found.rank_1.low <= found.chance_rank_1 and all(low <= self.max_pairs_accuracy for low in lows))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Thresholds of the evaluation recogniser: at a false accept rate, and the mean of its folds."""

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
    """Plain images of the target subjects: the attacked ones, and another image of each as the gallery.

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
    """Computes rows from the output of an attack on the target subjects."""

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

    def estimates(self, result: AttackResult) -> np.ndarray:
        """(N, D) estimated identities: the attack's embeddings, or the recogniser's embeddings of recovered faces.

        Raises:
            ShapeError: embeddings of another length than the recogniser's.
        """
        if result.embeddings_ND is None:
            assert result.recovered_NCHW is not None
            return self._embed(np.asarray(result.recovered_NCHW.detach().cpu().numpy(), dtype=np.float32))
        estimate_ND = np.asarray(result.embeddings_ND, dtype=np.float64)
        dim = self._targets.gallery_ND.shape[1]
        if estimate_ND.ndim != 2 or estimate_ND.shape[1] != dim:
            raise ShapeError(
                f"The attack estimates embeddings of shape {estimate_ND.shape}; the evaluation recogniser's have "
                f"length {dim}. Set `recogniser` to the one whose embeddings the attack was trained to estimate."
            )
        return estimate_ND

    def re_identification(self, attack: str, estimate_ND: np.ndarray) -> ReIdentificationRow:
        """Rank-1 and rank-5 rates in the gallery, with chance level and upper bound."""
        size = len(self._targets.gallery_ND)
        found, plain = self._ranks(estimate_ND), self._ranks(self._targets.seen_ND)
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

    def mixtures(
        self, attack: str, estimate_ND: np.ndarray, share_NN: np.ndarray, *, num_epochs: int
    ) -> MixtureReIdentificationRow:
        """Rates at which the people of each mixture are found in the gallery."""
        gallery_DN = self._targets.gallery_ND.T
        return mixture_row(
            attack,
            estimate_ND @ gallery_DN,
            self._targets.seen_ND @ gallery_DN,
            share_NN,
            subjects=self._targets.subjects,
            num_epochs=num_epochs,
            seed=self._seed,
            num_resamples=self._num_resamples,
        )

    def recovery(self, attack: str, recovered_NCHW: np.ndarray, masked_NCHW: np.ndarray) -> ImageRecoveryRow:
        """Similarity of the recovered faces, of the average face and of the masked images to the plain images."""
        seen_NCHW = self._targets.seen_NCHW
        if recovered_NCHW.shape != seen_NCHW.shape:
            raise ShapeError(f"The attack recovered shape {recovered_NCHW.shape}, expected {seen_NCHW.shape}.")
        if not np.isfinite(recovered_NCHW).all() or recovered_NCHW.min() < 0 or recovered_NCHW.max() > 1:
            raise RangeError("The attack recovered values outside [0, 1] or not finite. Clamp its output.")
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

    def masked_picture(self, attack: str, rendering: str, picture_NCHW: np.ndarray) -> MaskedPictureRow:
        """Similarity of rendered masked images to the plain images."""
        found = self._likeness(picture_NCHW, self._embed(picture_NCHW))
        return MaskedPictureRow(
            attack=attack, rendering=rendering, lpips=found.lpips, identity_cosine=found.identity_cosine
        )

    def _ranks(self, estimate_ND: np.ndarray) -> Mapping[int, Estimate]:
        return rank_k(
            estimate_ND @ self._targets.gallery_ND.T,
            self._targets.subjects,
            self._targets.subjects,
            ranks=(1, 5),
            seed=self._seed,
            num_resamples=self._num_resamples,
        )

    def _likeness(self, face_NCHW: np.ndarray, face_ND: np.ndarray) -> Likeness:
        seen_NCHW, network = self._targets.seen_NCHW, self._lpips
        face_NCHW = np.ascontiguousarray(face_NCHW, dtype=np.float32)
        return Likeness(
            ssim=self._mean(ssim(face_NCHW, seen_NCHW)),
            psnr=self._mean(psnr(face_NCHW, seen_NCHW)),
            lpips=None if network is None else self._mean(lpips(face_NCHW, seen_NCHW, network)),
            identity_cosine=self._mean(identity_cosine(face_ND, self._targets.seen_ND)),
            at_far=self._acceptance(face_ND, self._thresholds.far),
            at_folds=self._acceptance(face_ND, self._thresholds.folds),
        )

    def _acceptance(self, face_ND: np.ndarray, threshold: float, *, is_plain: bool = False) -> Acceptance:
        targets = self._targets
        found = inversion_success(
            face_ND,
            targets.subjects,
            targets.gallery_ND,
            targets.subjects,
            threshold=threshold,
            seed=self._seed,
            num_resamples=self._num_resamples,
        )
        assert found.other_subject is not None and found.accuracy is not None  # there are at least two subjects
        same_N = np.einsum("nd,nd->n", face_ND, targets.seen_ND) >= threshold
        return Acceptance(
            same_image=None if is_plain else self._mean(same_N.astype(np.float64), is_share=True),
            other_image=found.success,
            other_subject=found.other_subject,
            accuracy=found.accuracy,
        )

    def _mean(self, values_N: np.ndarray, *, is_share: bool = False) -> Estimate:
        return mean_with_interval(
            values_N,
            self._targets.subjects,
            seed=self._seed,
            num_resamples=self._num_resamples,
            is_share=is_share,
        )
