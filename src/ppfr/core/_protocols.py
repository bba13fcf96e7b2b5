"""The contracts between packages. A method implements one of these; nothing looks it up by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from ppfr.core._errors import UnsupportableError

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

    from ppfr.core._observations import ObservedImages, ThreatModel
    from ppfr.core._types import AdditiveNoise, AttackResult, MaskSpec, MixedBatch


class ImageMasker(ABC):
    """Client side: turns an aligned face into the masked image that leaves the device.

    A masker is configured by its constructor's keyword arguments and keeps no state between calls. Its randomness comes
    from the operating system unless an experiment passes `rng`. Concrete classes are final; behaviour changes by
    wrapping.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records, as in "ppfr-fd"."""

    @property
    @abstractmethod
    def spec(self) -> MaskSpec:
        """Shape and range of the output, and the kinds of randomness and secrets in it."""

    @abstractmethod
    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask a batch.

        Args:
            image_BCHW: RGB in [0, 1], float32, `spec.in_shape` after the batch axis; not modified.
            rng: None for randomness of the operating system, which protects. A CPU generator makes an experiment
                repeatable; its draws protect nobody, because a generator of PyTorch keeps 32 bits of its seed. Drawn
                from anew for every image of the batch. Unused if not `spec.is_stochastic`.

        Returns:
            (B, K, P, Q) float32 on the image's device, K, P, Q = `spec.out_shape`.

        Raises:
            ShapeError: not of shape `spec.in_shape`.
            RangeError: values outside [0, 1] or not finite.
        """

    def mirrored(self, masked_BKPQ: Tensor) -> Tensor | None:
        """The masks of the mirrored images, computed from the masked images alone, without the secret.

        A server that has one masked image of a face can then embed the mirrored face too, as is usual for verification.
        No second masked image is drawn or sent.

        Args:
            masked_BKPQ: outputs of `mask`; not modified.

        Returns:
            (B, K, P, Q): what `mask` outputs for the same images mirrored left to right, up to rounding. None, for any
            input, if the masker does not support it, which is the default.
        """
        return None

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready constructor arguments without the secrets; an adversary knows them."""

    def public_arrays(self) -> Mapping[str, np.ndarray]:
        """Constructor arguments that are too large for JSON, without the secrets; an adversary knows them too.

        An array has the name of its argument. If an argument consists of several arrays, each is named "argument.part",
        and the constructor also accepts a mapping from parts to arrays for that argument.
        """
        return {}

    def guarantee(self, *, is_seeded: bool = False) -> Mapping[str, Any] | None:
        """What is proven about the masked image, JSON-ready and with an entry "in_words"; None if nothing is.

        Call it after training: learned parameters may change the guarantee.

        Args:
            is_seeded: whether `mask` was given a generator. No guarantee follows from seeded noise.
        """
        return None

    def noise(self) -> AdditiveNoise | None:
        """The law of additive noise in the output, which adversaries know; None if there is none.

        Call it after training: learned parameters may change the noise.
        """
        return None

    def frozen(self) -> Self:
        """The masker as deployed: the same output, with learned parameters that no training changes.

        Maskers without learned parameters return themselves.
        """
        return self

    def with_new_secret(self, *, rng: Generator | None = None) -> Self:
        """The same method and parameters with another secret, drawn from `rng` or, if it is None, the operating system.

        An adversary who does not know the deployment's secret simulates the deployment in this way. A deployment draws
        its secret from the operating system (see each masker's `secret` argument).

        Raises:
            UnsupportableError: the masker has no secret (`spec.is_keyed` is false).
        """
        raise UnsupportableError(f"{self.name} has no secret parameters to draw again")


class MixingMasker(ImageMasker):
    """Masks images and mixes them with each other: a training set as an adversary sees it.

    An adversary gets `mask`. An evaluation takes `mask_and_mix`, the same images with what each of them consists of.
    """

    @abstractmethod
    def mask_and_mix(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> MixedBatch:
        """Mask and mix a batch. Arguments and errors as in `mask`; equal generators give equal images.

        Returns:
            The mixtures, with `labels_Bk` equal to `partners_Bk`: rows of `image_BCHW`.
        """

    @abstractmethod
    def over_epochs(self, num_epochs: int) -> Self:
        """The same for an adversary who averages the mixtures that several epochs of training made of each image.

        Raises:
            RangeError: `num_epochs` is below 1.
        """


class BatchMixer(ABC):
    """Training side: mixes a masked batch and its labels (MixUp, InstaHide)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records."""

    @property
    @abstractmethod
    def num_images(self) -> int:
        """k, number of images that are mixed into a row."""

    @abstractmethod
    def mixed_range(self, low: float, high: float) -> tuple[float, float]:
        """The range of mixed values if masked values lie in [low, high]."""

    @abstractmethod
    def mix(self, masked_BKPQ: Tensor, labels_B: Tensor, *, rng: Generator | None = None) -> MixedBatch:
        """Mix within the batch, with k labels and k weights per row.

        Args:
            masked_BKPQ: masked images; not modified.
            labels_B: their classes, int64.
            rng: None for randomness of the operating system; a CPU generator for a repeatable experiment.

        Raises:
            ShapeError: another number of labels than images, or a batch smaller than k.
        """

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready constructor arguments; an adversary knows them."""


@runtime_checkable
class Embedder(Protocol):
    """Computes unit-norm embeddings of masked or plain images."""

    @property
    def dim(self) -> int:
        """D, the embedding's length."""
        ...

    def embed(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, D) float32 with L2 norm 1, without gradient, in evaluation mode."""
        ...


@runtime_checkable
class ImageSet(Protocol):
    """Aligned crops with subjects, read by index. Training, attacks and evaluation get all images from image sets."""

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
    """An adversary that trains on faces of other people and then attacks images of the target subjects.

    `needs` states what the attack must know. A run is refused if its plan grants less.
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
        """Train on `public`, masked by `masker`.

        Args:
            masker: the deployed masker if the adversary knows its secret. Otherwise a simulation that draws a new
                secret for every batch (`ppfr.attacks.FreshSecret`). The attack need not distinguish the two.
            public: faces of people who are not target subjects.
            seed: root of every draw of the training.

        Returns:
            JSON-ready facts of the training for the record; "curve", if present, is a list of [step, loss].
        """

    @abstractmethod
    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        """Attack the observed images; the result has one row per image."""
