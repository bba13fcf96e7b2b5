"""What an attack got: recovered faces and guessed identities, judged against a guess and against plain images.

Suffixes: N victims' images, M gallery, D embedding, C H W image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ppfr.core import AttackResult, InvalidInputError, RangeError, ShapeError, derive_seed
from ppfr.evaluation._experiment import ControlRule, Experiment
from ppfr.metrics import (
    Comparisons,
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
"""(N, 3, H, W) float32 in [0, 1] -> (N, D) unit rows by the judge."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where the judge accepts: at the false accept rate of `Experiment.judge_far`, and at the mean of its folds."""

    far: float
    folds: float


def thresholds_of(experiment: Experiment, plain: Comparisons) -> Thresholds:
    """The judge's thresholds from its own scores on plain pairs."""
    score_N, genuine_N = np.asarray(plain.scores), np.asarray(plain.is_genuine)
    assert plain.fold is not None
    folds = ten_fold_accuracy(score_N, genuine_N, plain.fold)
    far = threshold_at_far(score_N[genuine_N], score_N[~genuine_N], experiment.judge_far)
    return Thresholds(far=far, folds=float(folds.threshold_F.mean()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class VictimFaces:
    """The victims, plain: the images that are attacked, and another image of each as the gallery.

    Attributes:
        seen_NCHW: the attacked images, float32 in [0, 1].
        subjects: the subject of each row, also of the gallery's rows.
        seen_ND: the judge's embeddings of the attacked images.
        gallery_ND: of the other images.
        average_CHW: the mean of the adversary's own faces.
    """

    seen_NCHW: np.ndarray
    subjects: Sequence[str]
    seen_ND: np.ndarray
    gallery_ND: np.ndarray
    average_CHW: np.ndarray


class OutcomeJudge:
    """Turns what an attack made of the victims into figures."""

    def __init__(
        self, experiment: Experiment, victims: VictimFaces, *, embed: EmbedFaces, thresholds: Thresholds
    ) -> None:
        self._experiment, self._victims, self._embed, self._thresholds = experiment, victims, embed, thresholds
        self._seed = derive_seed(experiment.seed, "bootstrap")

    def guesses(self, result: AttackResult) -> np.ndarray:
        """(N, D) the attack's guess of each identity: its embeddings, or the judge's of its pictures.

        Raises:
            ShapeError: not one row for each image seen, or embeddings of another length than the judge's.
        """
        if result.embeddings_ND is None:
            assert result.recovered_NCHW is not None
            return self._embed(np.asarray(result.recovered_NCHW.detach().cpu().numpy(), dtype=np.float32))
        guess_ND = np.asarray(result.embeddings_ND, dtype=np.float64)
        dim = self._victims.gallery_ND.shape[1]
        if guess_ND.ndim != 2 or guess_ND.shape[1] != dim:
            raise ShapeError(
                f"the attack guesses embeddings of shape {guess_ND.shape}, the judge's have length {dim}; "
                "name the judge whose embeddings the attack was trained to guess"
            )
        return guess_ND

    def linkage(self, guess_ND: np.ndarray) -> dict[str, Any]:
        """Top-1 and top-5 in the gallery, beside chance and what plain images get."""
        size = len(self._victims.gallery_ND)
        found, plain = self._ranks(guess_ND), self._ranks(self._victims.seen_ND)
        return {
            "gallery_size": size,
            "top1": found[1].to_dict(),
            "top5": found[5].to_dict(),
            "chance_top1": chance_rate(1, size),
            "chance_top5": chance_rate(5, size),
            "plain_top1": plain[1].to_dict(),
            "plain_top5": plain[5].to_dict(),
        }

    def recovery(self, recovered_NCHW: np.ndarray, masked_NCHW: np.ndarray) -> dict[str, Any]:
        """Likeness of the recovered faces, of the average face, of what the adversary saw, and of the plain images."""
        seen_NCHW = self._victims.seen_NCHW
        if recovered_NCHW.shape != seen_NCHW.shape:
            raise ShapeError(f"the attack recovered shape {recovered_NCHW.shape}, the victims are {seen_NCHW.shape}")
        if not np.isfinite(recovered_NCHW).all() or recovered_NCHW.min() < 0 or recovered_NCHW.max() > 1:
            raise RangeError("the attack recovered values outside [0, 1] or not finite; clamp what it returns")
        average_NCHW = np.broadcast_to(self._victims.average_CHW, seen_NCHW.shape)
        original_ND = self._victims.seen_ND
        return {
            "far": self._experiment.judge_far,
            "recovered": self._likeness(recovered_NCHW, self._embed(recovered_NCHW)),
            "guess": self._likeness(
                average_NCHW, np.broadcast_to(self._embed(average_NCHW[:1].copy()), original_ND.shape)
            ),
            "masked": self._likeness(masked_NCHW, self._embed(masked_NCHW)),
            "original": {
                "at_far": self._acceptance(original_ND, self._thresholds.far, is_original=True),
                "at_folds": self._acceptance(original_ND, self._thresholds.folds, is_original=True),
            },
        }

    def _ranks(self, guess_ND: np.ndarray) -> Mapping[int, Any]:
        return rank_k(
            guess_ND @ self._victims.gallery_ND.T,
            self._victims.subjects,
            self._victims.subjects,
            ranks=(1, 5),
            seed=self._seed,
            num_resamples=self._experiment.num_resamples,
        )

    def _likeness(self, picture_NCHW: np.ndarray, picture_ND: np.ndarray) -> dict[str, Any]:
        seen_NCHW, network = self._victims.seen_NCHW, self._experiment.lpips
        picture_NCHW = np.ascontiguousarray(picture_NCHW, dtype=np.float32)
        return {
            "ssim": self._mean(ssim(picture_NCHW, seen_NCHW)),
            "psnr": self._mean(psnr(picture_NCHW, seen_NCHW)),
            "lpips": None if network is None else self._mean(lpips(picture_NCHW, seen_NCHW, network)),
            "identity_cosine": self._mean(identity_cosine(picture_ND, self._victims.seen_ND)),
            "at_far": self._acceptance(picture_ND, self._thresholds.far),
            "at_folds": self._acceptance(picture_ND, self._thresholds.folds),
        }

    def _acceptance(self, picture_ND: np.ndarray, threshold: float, *, is_original: bool = False) -> dict[str, Any]:
        victims = self._victims
        accepted_NM = picture_ND @ victims.gallery_ND.T >= threshold
        own_N = np.diagonal(accepted_NM).astype(np.float64)
        others_N = (accepted_NM.sum(axis=1) - own_N) / (len(accepted_NM) - 1)
        same_N = np.einsum("nd,nd->n", picture_ND, victims.seen_ND) >= threshold
        return {
            "same_image": None if is_original else self._mean(same_N.astype(np.float64), is_share=True),
            "other_image": self._mean(own_N, is_share=True),
            "other_subject": self._mean(others_N, is_share=True),
            "accuracy": self._mean((own_N + 1 - others_N) / 2, is_share=True),
        }

    def _mean(self, values_N: np.ndarray, *, is_share: bool = False) -> dict[str, Any]:
        estimate = mean_with_interval(
            values_N,
            self._victims.subjects,
            seed=self._seed,
            num_resamples=self._experiment.num_resamples,
            is_share=is_share,
        )
        return estimate.to_dict()


def control_rule_in_words(role: str, rule: ControlRule) -> dict[str, Any]:
    """What a control must show, before it has."""
    if role == "positive control":
        words = (
            f"names at least {100 * rule.least_share_of_plain:g} % of the victims that plain images name (lower end of "
            f"the interval); if it recovers pictures, their mean SSIM is above {rule.least_ssim:g}"
        )
        return {"expects": "win", "rule": words, "is_met": None}
    if role == "negative control":
        words = (
            "names no more victims than a guess, and tells no more than "
            f"{100 * rule.most_pairs_accuracy:g} % of pairs rightly (lower ends of the intervals)"
        )
        return {"expects": "chance", "rule": words, "is_met": None}
    raise InvalidInputError(f"role {role!r} is no control")


def control_verdict(outcome: Mapping[str, Any], role: str, rule: ControlRule) -> bool:
    """Whether a control came out as it must."""
    linkage, recovery = outcome["linkage"], outcome["recovery"]
    if role == "positive control":
        names_enough = linkage["top1"]["low"] >= rule.least_share_of_plain * linkage["plain_top1"]["value"]
        return bool(names_enough and (recovery is None or recovery["recovered"]["ssim"]["value"] > rule.least_ssim))
    pairs_low = [pairs["accuracy"]["low"] for pairs in outcome["pairs"] if pairs["accuracy"] is not None]
    return bool(
        linkage["top1"]["low"] <= linkage["chance_top1"] and all(low <= rule.most_pairs_accuracy for low in pairs_low)
    )
