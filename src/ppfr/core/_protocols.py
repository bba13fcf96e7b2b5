"""The contracts by which packages meet. A method plugs in by satisfying one of these; nothing looks it up by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from ppfr.core._errors import UnsupportableError

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

    from ppfr.core._observations import ObservedImages, ThreatModel
    from ppfr.core._types import AttackResult, MaskSpec, MixedBatch


class ImageMasker(ABC):
    """Client side: an aligned face goes in, what leaves the device comes out.

    A masker is configured by its constructor's keyword arguments, is stateless between calls, and takes all randomness
    from `rng`. Concrete classes are final; behaviour changes by wrapping.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records, as in "ppfr-fd"."""

    @property
    @abstractmethod
    def spec(self) -> MaskSpec:
        """What the output looks like and which kinds of randomness and secrets are in it."""

    @abstractmethod
    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """Mask a batch.

        Args:
            image_BCHW: RGB in [0, 1], float32, `spec.in_shape` after the batch axis; never changed in place.
            rng: CPU generator; a fresh draw for every image of the batch. Unused if not `spec.is_stochastic`.

        Returns:
            (B, K, P, Q) float32 on the image's device, K, P, Q = `spec.out_shape`.

        Raises:
            ShapeError: another shape than `spec.in_shape`.
            RangeError: values outside [0, 1] or not finite.
        """

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready constructor arguments, less the secrets: what an adversary is told."""

    def public_arrays(self) -> Mapping[str, np.ndarray]:
        """Constructor arguments that are too large for JSON, less the secrets; an adversary is told them too.

        An array goes by the name of its argument. Where an argument consists of several arrays, each is named
        "argument.part", and the constructor takes a mapping from parts to arrays for that argument as well.
        """
        return {}

    def guarantee(self) -> Mapping[str, Any] | None:
        """What is proven of what leaves the device, JSON-ready, "in_words" among it; None if nothing is.

        Whoever trained the masker asks afterwards: what it learned may have moved the guarantee.
        """
        return None

    def frozen(self) -> Self:
        """The masker as deployed: the same output, and learned parameters that no training moves.

        Maskers without learned parameters return themselves.
        """
        return self

    def with_new_secret(self, *, rng: Generator) -> Self:
        """The same method and parameters under another secret, drawn from `rng`.

        An adversary who does not know the deployment's secret simulates it with these. A deployment draws its own from
        the operating system (see each masker's `secret` argument).

        Raises:
            UnsupportableError: the masker has no secret (`spec.is_keyed` is false).
        """
        raise UnsupportableError(f"{self.name} has no secret parameters, so there is none to draw anew")


class BatchMixer(ABC):
    """Training side: mixes a masked batch and its labels (MixUp, InstaHide)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records."""

    @property
    @abstractmethod
    def num_images(self) -> int:
        """k, how many images are mixed into a row."""

    @abstractmethod
    def mixed_range(self, low: float, high: float) -> tuple[float, float]:
        """The range of mixed values where masked ones lie in [low, high]."""

    @abstractmethod
    def mix(self, masked_BKPQ: Tensor, labels_B: Tensor, *, rng: Generator) -> MixedBatch:
        """Mix within the batch: k labels and k weights a row.

        Args:
            masked_BKPQ: masked images; never changed in place.
            labels_B: their classes, int64.
            rng: CPU generator.

        Raises:
            ShapeError: labels that do not belong to the images, or a batch smaller than k.
        """

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready constructor arguments: what an adversary is told."""


@runtime_checkable
class Embedder(Protocol):
    """Masked or plain image -> unit-norm embedding."""

    @property
    def dim(self) -> int:
        """D, the embedding's length."""
        ...

    def embed(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, D) float32 with L2 norm 1, without gradient, in evaluation mode."""
        ...


@runtime_checkable
class ImageSet(Protocol):
    """Aligned crops with subjects, read by index; the one way images reach training, attacks and evaluation."""

    def __len__(self) -> int: ...

    @property
    def name(self) -> str:
        """Short name for tables and records, as in "lfw"."""
        ...

    @property
    def subject_ids(self) -> Sequence[str]:
        """The subject of each image."""
        ...

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB crops, in the order of `indices`."""
        ...


class Attack(ABC):
    """An adversary: trains on faces of other people, then acts on what it sees of the victims.

    `needs` states what the attack must know; the benchmark refuses to run it where the deployment grants less.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for records, as in "unet-recovery"."""

    @property
    def label(self) -> str:
        """Name for people, as in "U-Net recovery"; by default the short name."""
        return self.name

    @property
    @abstractmethod
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""

    @abstractmethod
    def fit(self, masker: ImageMasker, public: ImageSet, *, seed: int) -> Mapping[str, Any]:
        """Train on `public` as seen through `masker`.

        Args:
            masker: the deployed masker if the adversary knows its secret; otherwise a simulation that draws a new
                secret for every batch (`ppfr.attacks.FreshSecret`). The attack need not know which.
            public: faces of people disjoint from the victims.
            seed: root of every draw of the training.

        Returns:
            JSON-ready facts of the training for the record; "curve", if there, is [step, loss] by step.
        """

    @abstractmethod
    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        """Act on the observation of the victims; one row of the result for each row seen."""
