"""Mixing within a batch (MixUp, InstaHide), and the adversary's view of a mixed training set.

Shape suffixes: B batch, k images per mixture, K masked channels, P Q masked grid.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ppfr.core import (
    BatchMixer,
    Draws,
    ImageMasker,
    MaskSpec,
    MixedBatch,
    MixingMasker,
    RangeError,
    ShapeError,
    draws_from,
)

_MAX_DRAWS = 1 << 22


def draw_weights(num_rows: int, num_images: int, *, max_weight: float, rng: Generator | None = None) -> Tensor:
    """Draw positive mixing weights, at most `max_weight` each, whose rows sum to 1.

    As in InstaHide, the entries of a row are drawn from |N(0, 1)| and normalised; the row is rejected and drawn again
    while a weight is too large. With two images and a cap of 0.55 this rejects 87 % of the draws. The ratio of two
    half-normal variables is half-Cauchy, so the angle arctan(a/b) is uniform. For two images it is drawn directly from
    the allowed range, which gives the same distribution without rejections.

    Args:
        num_rows: B.
        num_images: k, 1 or more; with 1 every weight is 1.
        max_weight: cap, from 1/k to 1. At exactly 1/k all weights are equal.
        rng: None for randomness of the operating system; a CPU generator for a repeatable experiment.

    Returns:
        (B, k) float32 on the CPU.

    Raises:
        RangeError: k is below 1, or no row, or almost no draw, satisfies the cap.

    Examples:
        >>> weights = draw_weights(1000, 2, max_weight=0.55)
        >>> bool(weights.max() <= 0.55), bool((weights.sum(dim=1) - 1).abs().max() < 1e-6)
        (True, True)
    """
    check_cap(num_images, max_weight)
    if math.isclose(num_images * max_weight, 1.0, rel_tol=1e-9) or num_images == 1:
        return torch.full((num_rows, num_images), 1.0 / num_images)
    if num_images == 2:
        half_width = math.atan(min(max_weight / max(1.0 - max_weight, 1e-12), 1e12)) - math.pi / 4
        angle_B = math.pi / 4 + half_width * (2 * draws_from(rng).uniform(num_rows) - 1)
        pair_B2 = torch.stack([angle_B.sin(), angle_B.cos()], dim=1)
        return _rounded_down(pair_B2 / pair_B2.sum(dim=1, keepdim=True), max_weight)
    return _rounded_down(_rejection_sampled(num_rows, num_images, max_weight, draws_from(rng)), max_weight)


def check_cap(num_images: int, max_weight: float) -> None:
    """Check the number of images per mixture and the cap on their weights.

    Raises:
        RangeError: k is below 1, or the cap is outside [1/k, 1].
    """
    if num_images < 1:
        raise RangeError(f"num_images is {num_images}; a mixture needs 1 image or more")
    if not max_weight <= 1 or num_images * max_weight < 1 - 1e-9:
        raise RangeError(
            f"max_weight is {max_weight}; {num_images} weights that sum to 1 need a cap from "
            f"{1 / num_images:.4g} to 1: raise it, or mix more images"
        )


def _rejection_sampled(num_rows: int, num_images: int, max_weight: float, draws: Draws) -> Tensor:
    """Draw rows in growing batches until `num_rows` of them satisfy the cap."""
    found, missing, drawn, at_once = [], num_rows, 0, max(2 * num_rows, 64)
    while missing > 0:
        if drawn >= _MAX_DRAWS:
            raise RangeError(
                f"max_weight {max_weight} for {num_images} images is met by fewer than {num_rows} of {drawn} draws: "
                f"raise it, or use 1/{num_images} for equal weights"
            )
        rows = draws.normal(at_once, num_images).abs_()
        rows /= rows.sum(dim=1, keepdim=True)
        kept = rows[rows.amax(dim=1) <= max_weight][:missing]
        found.append(kept)
        missing -= len(kept)
        drawn += at_once
        at_once = min(2 * at_once, 1 << 18)
    return torch.cat(found) if found else torch.empty(0, num_images, dtype=torch.float64)


def _rounded_down(weights_Bk: Tensor, max_weight: float) -> Tensor:
    """Convert to float32 so that rounding lifts no weight above the cap."""
    cap = torch.tensor(max_weight, dtype=torch.float64).float()
    if float(cap) > max_weight:
        cap = torch.nextafter(cap, torch.zeros_like(cap))
    return weights_Bk.float().clamp_max(cap)


def draw_partners(num_rows: int, num_images: int, *, rng: Generator | None = None) -> Tensor:
    """(B, k) int64: column 0 is the row itself, each other column an independent permutation of the batch.

    A row may therefore be mixed with itself, or twice with the same other row, as in the paper's index matrix.
    """
    own_B, draws = torch.arange(num_rows), draws_from(rng)
    others = [draws.permutation(num_rows) for _ in range(num_images - 1)]
    return torch.stack([own_B, *others], dim=1)


def blend(values_BN: Tensor, partners_Bk: Tensor, weights_Bk: Tensor) -> Tensor:
    """Weighted sums of rows: out_b = sum_j weights[b, j] * values[partners[b, j]], for values of any shape (B, ...)."""
    device = values_BN.device
    flat = functional.embedding_bag(
        partners_Bk.to(device),
        values_BN.flatten(1).float(),
        mode="sum",
        per_sample_weights=weights_Bk.to(device).float(),
    )
    return flat.view(values_BN.shape)


class _Mixture:
    """The common part of MixUp and InstaHide."""

    def __init__(self, *, num_images: int, max_weight: float) -> None:
        if num_images < 2:
            raise RangeError(f"num_images is {num_images}; mix 2 images or more, or train without a mixer")
        check_cap(num_images, max_weight)
        self._num_images, self._max_weight = num_images, max_weight

    @property
    def num_images(self) -> int:
        """Number of images per mixture, k."""
        return self._num_images

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments; there is no secret. Weights and partners are drawn anew for every batch."""
        return {"num_images": self._num_images, "max_weight": self._max_weight}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_images={self._num_images}, max_weight={self._max_weight})"

    def _mixed(self, masked_BKPQ: Tensor, labels_B: Tensor, *, rng: Generator | None) -> MixedBatch:
        num = len(masked_BKPQ)
        if labels_B.shape != (num,):
            raise ShapeError(f"labels have shape {tuple(labels_B.shape)}; pass one label per image, ({num},)")
        if num < self._num_images:
            raise ShapeError(
                f"a batch of {num} images is below num_images={self._num_images}; use a larger batch or mix fewer"
            )
        partners_Bk = draw_partners(num, self._num_images, rng=rng)
        weights_Bk = draw_weights(num, self._num_images, max_weight=self._max_weight, rng=rng)
        return MixedBatch(
            values_BKPQ=blend(masked_BKPQ, partners_Bk, weights_Bk),
            labels_Bk=labels_B[partners_Bk.to(labels_B.device)],
            weights_Bk=weights_Bk.to(masked_BKPQ.device),
            partners_Bk=partners_Bk.to(masked_BKPQ.device),
        )


@final
class MixUp(_Mixture, BatchMixer):
    """Each row becomes a weighted mean of k masked images of the batch, and its label the same mean of their labels.

    Args:
        num_images: k, 2 or more.
        max_weight: largest weight of an image, from 1/k to 1, so that no single image dominates.

    Raises:
        RangeError: k is below 2, or k weights cannot satisfy the cap.

    Privacy:
        Claims that a recovered mixture does not show one particular person. An adversary who sees many mixtures of the
        same images can solve for the images (Carlini et al., arXiv 2011.05315). Only the training set is mixed. An
        image to be recognised is masked, but not mixed.

    References:
        Zhang et al., ICLR 2018; weights and cap as in AdaMixUp (arXiv 2403.10558), section A.2 of the experiment.
    """

    def __init__(self, *, num_images: int = 2, max_weight: float = 0.55) -> None:
        super().__init__(num_images=num_images, max_weight=max_weight)

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return f"mixup-{self._num_images}"

    def mix(self, masked_BKPQ: Tensor, labels_B: Tensor, *, rng: Generator | None = None) -> MixedBatch:
        """See `BatchMixer.mix`."""
        return self._mixed(masked_BKPQ, labels_B, rng=rng)

    def mixed_range(self, low: float, high: float) -> tuple[float, float]:
        """The range of the masked images: a weighted mean stays within it."""
        return low, high


@final
class InstaHide(_Mixture, BatchMixer):
    """MixUp, after which the sign of every value is flipped with probability 1/2, independently.

    Args:
        num_images: k, 2 or more; 4 in the paper, 2 in the tables of face recognition.
        max_weight: from 1/k to 1.

    Raises:
        RangeError: k is below 2, or k weights cannot satisfy the cap.

    Privacy:
        Makes the claim of MixUp, and claims that the random signs hide the mixture. They do not: magnitudes do not
        depend on the signs, so an adversary can take the magnitudes and continue as with MixUp (Carlini et al.).

    References:
        Huang et al., "InstaHide", ICML 2020 (inside-dataset variant).
    """

    def __init__(self, *, num_images: int = 2, max_weight: float = 0.65) -> None:
        super().__init__(num_images=num_images, max_weight=max_weight)

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return f"instahide-{self._num_images}"

    def mix(self, masked_BKPQ: Tensor, labels_B: Tensor, *, rng: Generator | None = None) -> MixedBatch:
        """See `BatchMixer.mix`."""
        mixed = self._mixed(masked_BKPQ, labels_B, rng=rng)
        flips = draws_from(rng).bits(*mixed.values_BKPQ.shape)
        signs = flips.to(masked_BKPQ.device).mul_(2).sub_(1)
        return dataclasses.replace(mixed, values_BKPQ=mixed.values_BKPQ * signs)

    def mixed_range(self, low: float, high: float) -> tuple[float, float]:
        """A range that is symmetric around zero."""
        largest = max(abs(low), abs(high))
        return -largest, largest


@final
class MixedMasker(MixingMasker):
    """The adversary's view of a mixed training set: each image is masked and mixed with others of its batch.

    A device does not send this at recognition, where a single image is masked but not mixed. Attacks on a mixed
    training set are run against it. Row by row, the first image of a mixture is the row's own. Its weight is drawn like
    that of the others, so one mixture does not tell which image is the first.

    Over several epochs, each image is mixed anew in each of them and the mixtures are averaged, so that the row's own
    image remains and the others fade. This adversary knows which mixtures have an image in common: their labels tell,
    or a network that compares mixtures (Carlini et al.). Of InstaHide's encodings it averages the magnitudes.

    Args:
        masker: applied to each image before mixing.
        mixers: one mixer, or the candidates of a strategy.
        shares: probability of each mixer, drawn for every image; None for equal shares.
        num_epochs: number of mixtures of each image that are averaged.

    Raises:
        RangeError: there is no mixer, or the shares are negative, all zero, or not one per mixer, or `num_epochs` is
            below 1.
    """

    def __init__(
        self,
        masker: ImageMasker,
        mixers: Sequence[BatchMixer],
        *,
        shares: Sequence[float] | None = None,
        num_epochs: int = 1,
    ) -> None:
        if num_epochs < 1:
            raise RangeError(f"num_epochs is {num_epochs}; give 1 or more")
        self._num_epochs = num_epochs
        weights = [1.0] * len(mixers) if shares is None else [float(share) for share in shares]
        if not mixers or len(weights) != len(mixers) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise RangeError(
                f"{len(mixers)} mixers with shares {weights}; pass at least one mixer and one share >= 0 each"
            )
        self._masker, self._mixers = masker, tuple(mixers)
        self._shares = tuple(weight / sum(weights) for weight in weights)
        low, high = masker.spec.value_range
        ranges = [mixer.mixed_range(low, high) for mixer in mixers]
        self._spec = dataclasses.replace(
            masker.spec,
            value_range=(min(low for low, _ in ranges), max(high for _, high in ranges)),
            is_stochastic=True,
            is_trainable=False,
        )

    @property
    def name(self) -> str:
        """The names of the masker and the mixers, and the number of epochs if there are several."""
        mixed = f"{self._masker.name} + {'/'.join(mixer.name for mixer in self._mixers)}"
        return mixed if self._num_epochs == 1 else f"{mixed}, {self._num_epochs} epochs averaged"

    @property
    def spec(self) -> MaskSpec:
        """The spec of the masker, marked as stochastic, with the range after mixing."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask, then mix within the batch; a batch smaller than k is repeated first."""
        return self.mask_and_mix(image_BCHW, rng=rng).values_BKPQ

    def mask_and_mix(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> MixedBatch:
        """See `MixingMasker.mask_and_mix`; averaged mixtures have the images of all epochs, with the mean weights."""
        if self._num_epochs == 1:
            return self._one_epoch(image_BCHW, rng=rng)
        epochs = [self._one_epoch(image_BCHW, rng=rng) for _ in range(self._num_epochs)]
        has_signs = any(isinstance(mixer, InstaHide) for mixer in self._mixers)
        values = [epoch.values_BKPQ.abs() if has_signs else epoch.values_BKPQ for epoch in epochs]
        partners_Bk = torch.cat([epoch.partners_Bk for epoch in epochs], dim=1)
        return MixedBatch(
            values_BKPQ=torch.stack(values).mean(dim=0),
            labels_Bk=partners_Bk,
            weights_Bk=torch.cat([epoch.weights_Bk for epoch in epochs], dim=1) / self._num_epochs,
            partners_Bk=partners_Bk,
        )

    def _one_epoch(self, image_BCHW: Tensor, *, rng: Generator | None) -> MixedBatch:
        masked_BKPQ = self._masker.mask(image_BCHW, rng=rng)
        num, most = len(masked_BKPQ), max(mixer.num_images for mixer in self._mixers)
        mixed_BKPQ = torch.empty_like(masked_BKPQ)
        # A place that a mixer of fewer images leaves free holds the row itself, at weight 0.
        partners_Bk = torch.arange(num, device=masked_BKPQ.device)[:, None].repeat(1, most)
        weights_Bk = torch.zeros(num, most, device=masked_BKPQ.device)
        if num > 0:
            pool = masked_BKPQ.repeat(math.ceil(most / num), 1, 1, 1) if num < most else masked_BKPQ
            labels = torch.zeros(len(pool), dtype=torch.int64)
            chosen_B = draws_from(rng).choices(self._shares, num)
            for number, mixer in enumerate(self._mixers):
                rows = (chosen_B == number).nonzero()[:, 0].to(pool.device)
                if len(rows):
                    mixed = mixer.mix(pool, labels, rng=rng)
                    mixed_BKPQ[rows] = mixed.values_BKPQ[rows]
                    partners_Bk[rows, : mixer.num_images] = mixed.partners_Bk[rows] % num
                    weights_Bk[rows, : mixer.num_images] = mixed.weights_Bk[rows]
        return MixedBatch(values_BKPQ=mixed_BKPQ, labels_Bk=partners_Bk, weights_Bk=weights_Bk, partners_Bk=partners_Bk)

    def over_epochs(self, num_epochs: int) -> Self:
        """See `MixingMasker.over_epochs`."""
        return type(self)(self._masker, self._mixers, shares=self._shares, num_epochs=num_epochs)

    def with_new_secret(self, *, rng: Generator | None = None) -> Self:
        """The same mixers on the masker with a new secret; see `ImageMasker.with_new_secret`."""
        masker = self._masker.with_new_secret(rng=rng)
        return type(self)(masker, self._mixers, shares=self._shares, num_epochs=self._num_epochs)

    def public_config(self) -> Mapping[str, Any]:
        """The public configurations of the masker and the mixers."""
        return {
            "masker": self._masker.name,
            "config": dict(self._masker.public_config()),
            "mixers": [{"name": mixer.name, **mixer.public_config()} for mixer in self._mixers],
            "shares": list(self._shares),
            **({} if self._num_epochs == 1 else {"num_epochs": self._num_epochs}),
        }

    def __repr__(self) -> str:
        epochs = "" if self._num_epochs == 1 else f", num_epochs={self._num_epochs}"
        return f"MixedMasker({self._masker!r}, {list(self._mixers)!r}, shares={self._shares}{epochs})"
