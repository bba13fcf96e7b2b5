"""Configurations of image mixing, for experiments, the command line and records."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ppfr.core import BatchMixer, ImageMasker, InvalidInputError, derive_seed
from ppfr.masking import InstaHide, MixedMasker, MixUp
from ppfr.models import StrategyNetwork
from ppfr.training import AdaptiveMixingTask, RecogniserTask, StrategySettings, TrainingTask

_MIXERS: Mapping[str, type[MixUp] | type[InstaHide]] = {"mixup": MixUp, "instahide": InstaHide}
_WORDS = "mixup:K, instahide:K (as in mixup:2) and adamixup:LOW-HIGH (as in adamixup:2-5)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedMixing:
    """Mix the same number of images in every batch.

    Attributes:
        method: "mixup" or "instahide".
        num_images: k, the number of images per mixture.
        max_weight: maximum weight of an image; None for the default of the method.
    """

    method: str
    num_images: int = 2
    max_weight: float | None = None

    def mixers(self) -> tuple[BatchMixer, ...]:
        """The mixer, as a tuple of one."""
        if self.method not in _MIXERS:
            raise InvalidInputError(f"unknown mixing method {self.method!r}; available: {', '.join(_MIXERS)}")
        cap = {} if self.max_weight is None else {"max_weight": self.max_weight}
        return (_MIXERS[self.method](num_images=self.num_images, **cap),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveMixing:
    """AdaMixUp: a strategy network chooses the number of images for each batch.

    Attributes:
        candidates: the numbers of images to choose from.
        max_weight: maximum weight of an image.
        strategy_width: channels of the first stage of the strategy network; 64 is ResNet-18.
        settings: how the strategy network is trained.
    """

    candidates: tuple[int, ...] = (2, 3, 4, 5)
    max_weight: float = 0.55
    strategy_width: int = 64
    settings: StrategySettings = StrategySettings()  # noqa: RUF009

    def mixers(self) -> tuple[BatchMixer, ...]:
        """One mixer per candidate.

        Raises:
            InvalidInputError: a candidate appears twice.
        """
        if len(set(self.candidates)) != len(self.candidates):
            raise InvalidInputError(f"candidates={self.candidates}; give each number of images once")
        return tuple(MixUp(num_images=k, max_weight=self.max_weight) for k in self.candidates)


Mixing = FixedMixing | AdaptiveMixing


def parse_mixing(word: str | None) -> Mixing | None:
    """Parse a mixing configuration.

    Args:
        word: mixup:K, instahide:K or adamixup:LOW-HIGH; None for no mixing.

    Raises:
        InvalidInputError: anything else.

    Examples:
        >>> parse_mixing("mixup:3")
        FixedMixing(method='mixup', num_images=3, max_weight=None)
        >>> parse_mixing("adamixup:2-5").candidates
        (2, 3, 4, 5)
    """
    if word is None:
        return None
    fixed = re.fullmatch(r"(mixup|instahide):(\d{1,3})", word)
    if fixed:
        found: Mixing = FixedMixing(method=fixed[1], num_images=int(fixed[2]))
    else:
        adaptive = re.fullmatch(r"adamixup:(\d{1,3})-(\d{1,3})", word)
        if not adaptive:
            raise InvalidInputError(f"unknown mixing {word!r}; use {_WORDS}")
        low, high = int(adaptive[1]), int(adaptive[2])
        if low >= high:
            raise InvalidInputError(
                f"{word!r} is not a range of at least two numbers; use mixup:{low}, or a range such as adamixup:2-5"
            )
        found = AdaptiveMixing(candidates=tuple(range(low, high + 1)))
    found.mixers()  # raises for invalid numbers of images
    return found


def check_mixing_batch(mixing: Mixing | None, num_images: int) -> None:
    """Check that a batch has enough images to mix.

    Args:
        mixing: the mixing configuration, or None.
        num_images: images per step and process.

    Raises:
        InvalidInputError: the batch has fewer images than the largest mixture.
    """
    largest = 1 if mixing is None else max(mixer.num_images for mixer in mixing.mixers())
    if num_images < largest:
        raise InvalidInputError(
            f"a batch of {num_images} images per device is too small for mixtures of {largest}; use a larger "
            "batch_size, "
            "or mix fewer images"
        )


def fixed_mixer(mixing: Mixing | None) -> BatchMixer | None:
    """The mixer of a recogniser task; None for adaptive mixing, which wraps the task instead."""
    return mixing.mixers()[0] if isinstance(mixing, FixedMixing) else None


def with_adaptive_mixing(
    task: RecogniserTask, mixing: Mixing | None, masker: ImageMasker, *, seed: int
) -> TrainingTask:
    """The task itself, or wrapped by adaptive mixing."""
    if not isinstance(mixing, AdaptiveMixing):
        return task
    strategy = StrategyNetwork(
        masker.spec.out_shape,
        len(mixing.candidates),
        width=mixing.strategy_width,
        seed=derive_seed(seed, "strategy"),
    )
    return AdaptiveMixingTask(task, mixing.mixers(), strategy, settings=mixing.settings)


def training_set_masker(masker: ImageMasker, mixing: Mixing | None, outcome: Mapping[str, Any]) -> MixedMasker | None:
    """The masker and mixers of the training set; adaptive mixing uses the shares of choices of the training."""
    if mixing is None:
        return None
    shares = outcome.get("shares") if isinstance(mixing, AdaptiveMixing) else None
    return MixedMasker(masker, mixing.mixers(), shares=shares)
