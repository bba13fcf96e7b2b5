"""Mixing as a value that can be named in an experiment, on the command line and in a record."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ppfr.core import BatchMixer, ImageMasker, InvalidInputError, derive_seed
from ppfr.masking import InstaHide, MixedMasker, MixUp
from ppfr.models import StrategyNetwork
from ppfr.training import AdaptiveMixingObjective, Objective, RecogniserObjective, StrategySettings

_MIXERS: Mapping[str, type[MixUp] | type[InstaHide]] = {"mixup": MixUp, "instahide": InstaHide}
_WORDS = "mixup:K, instahide:K (as in mixup:2) and adamixup:LOW-HIGH (as in adamixup:2-5)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedMixing:
    """The same number of images for every batch.

    Attributes:
        method: "mixup" or "instahide".
        num_images: k.
        max_weight: cap of a weight; None for the method's own.
    """

    method: str
    num_images: int = 2
    max_weight: float | None = None

    def mixers(self) -> tuple[BatchMixer, ...]:
        """The one mixer."""
        if self.method not in _MIXERS:
            raise InvalidInputError(f"no mixing is named {self.method!r}; there are {', '.join(_MIXERS)}")
        cap = {} if self.max_weight is None else {"max_weight": self.max_weight}
        return (_MIXERS[self.method](num_images=self.num_images, **cap),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveMixing:
    """AdaMixUp: a strategy network chooses the number of images for each batch.

    Attributes:
        candidates: the numbers to choose from.
        max_weight: cap of a weight.
        strategy_width: channels of the strategy network's first stage; 64 is ResNet-18.
        settings: how it learns.
    """

    candidates: tuple[int, ...] = (2, 3, 4, 5)
    max_weight: float = 0.55
    strategy_width: int = 64
    settings: StrategySettings = StrategySettings()  # noqa: RUF009

    def mixers(self) -> tuple[BatchMixer, ...]:
        """One for each candidate.

        Raises:
            InvalidInputError: the same number twice.
        """
        if len(set(self.candidates)) != len(self.candidates):
            raise InvalidInputError(f"candidates are {self.candidates}; name each number of images once")
        return tuple(MixUp(num_images=k, max_weight=self.max_weight) for k in self.candidates)


Mixing = FixedMixing | AdaptiveMixing


def read_mixing(word: str | None) -> Mixing | None:
    """Mixing by the word that a person gives.

    Args:
        word: mixup:K, instahide:K, adamixup:LOW-HIGH; or None for none.

    Raises:
        InvalidInputError: anything else.

    Examples:
        >>> read_mixing("mixup:3")
        FixedMixing(method='mixup', num_images=3, max_weight=None)
        >>> read_mixing("adamixup:2-5").candidates
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
            raise InvalidInputError(f"no mixing is named {word!r}; there are {_WORDS}")
        low, high = int(adaptive[1]), int(adaptive[2])
        if low >= high:
            raise InvalidInputError(f"{word!r} names no range of two numbers or more; say mixup:{low}, or adamixup:2-5")
        found = AdaptiveMixing(candidates=tuple(range(low, high + 1)))
    found.mixers()  # refuses numbers that cannot be mixed
    return found


def check_batch(mixing: Mixing | None, num_images: int) -> None:
    """Refuse batches that cannot be mixed, before anything is trained.

    Args:
        mixing: as it was asked for.
        num_images: images that one process has at a step.

    Raises:
        InvalidInputError: fewer images than the largest mixture takes.
    """
    most = 1 if mixing is None else max(mixer.num_images for mixer in mixing.mixers())
    if num_images < most:
        raise InvalidInputError(
            f"{num_images} images at a time cannot be mixed {most} at a time; use a larger batch_size (each of several "
            "devices has its share of it), or mix fewer"
        )


def fixed_mixer(mixing: Mixing | None) -> BatchMixer | None:
    """What an objective is given as its mixer; adaptive mixing goes around the objective instead."""
    return mixing.mixers()[0] if isinstance(mixing, FixedMixing) else None


def with_strategy(
    objective: RecogniserObjective, mixing: Mixing | None, masker: ImageMasker, *, seed: int
) -> Objective:
    """The objective itself, or under a strategy that chooses its mixtures."""
    if not isinstance(mixing, AdaptiveMixing):
        return objective
    strategy = StrategyNetwork(
        masker.spec.out_shape,
        len(mixing.candidates),
        width=mixing.strategy_width,
        seed=derive_seed(seed, "strategy"),
    )
    return AdaptiveMixingObjective(objective, mixing.mixers(), strategy, settings=mixing.settings)


def exposed_by(masker: ImageMasker, mixing: Mixing | None, outcome: Mapping[str, Any]) -> ImageMasker | None:
    """The training set as it was trained on; adaptive mixing with the shares that the training realised."""
    if mixing is None:
        return None
    shares = outcome.get("shares") if isinstance(mixing, AdaptiveMixing) else None
    return MixedMasker(masker, mixing.mixers(), shares=shares)
