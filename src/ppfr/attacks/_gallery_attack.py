"""The contract of attacks that need no training: compare observed masked images with a gallery of plain photos.

Shape suffixes: B observed images, E values of evidence, M gallery, C colour, H W pixels.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from ppfr.core import Embedder, ImageMasker, ImageSet, MaskedImages, ThreatModel, derive_seed

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

GalleryPhoto = Literal["another photo", "same photo"]
"""Which plain photo of a target subject the gallery holds: another one, or the one that was masked."""

_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """Everything that an adversary may hold. An attack uses only what its threat model states.

    Attributes:
        masker: the deployed masker, with its secret.
        deployed_recogniser: the recogniser that the server uses on masked images; None if there is none.
        public_recogniser: a recogniser of plain photos.
        public_images: faces of people who are not target subjects.
        device: where recognisers run.
    """

    masker: ImageMasker
    deployed_recogniser: Embedder | None
    public_recogniser: Embedder
    public_images: ImageSet
    device: torch.device


class GalleryAttack(ABC):
    """An adversary who looks up observed masked images in a gallery of plain photos.

    Evidence from several observations of one person is averaged, so n observations cost no more memory than one.

    Attributes:
        level: strength of the attack. These attacks train nothing, which is the level "trivial".
        photo: which plain photo of each person the gallery must hold.
        min_share_of_plain: share of the subjects re-identified from plain photos that the attack must re-identify on an
            unprotected system; otherwise its figures show nothing.
    """

    level: ClassVar[str] = "trivial"
    photo: ClassVar[GalleryPhoto] = "another photo"
    min_share_of_plain: ClassVar[float] = 0.95

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for records."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in tables."""

    @property
    @abstractmethod
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready constructor arguments."""

    @abstractmethod
    def enrol(self, knowledge: Knowledge, gallery_MCHW: Tensor, *, seed: int) -> None:
        """Prepare the gallery.

        Args:
            knowledge: what the adversary holds.
            gallery_MCHW: one plain photo of each person, RGB in [0, 1], on the CPU.
            seed: root of the draws of the masker.

        Raises:
            UnsupportableError: the attack does not work on this masker or without a deployed recogniser.
        """

    @abstractmethod
    def evidence(self, seen: MaskedImages) -> Tensor:
        """(B, ...) evidence from one observation of each of B people, which may be averaged with that of others."""

    @abstractmethod
    def scores(self, evidence: Tensor, *, num_averaged: int) -> np.ndarray:
        """(B, M) similarity to each gallery photo, higher is more alike.

        Args:
            evidence: mean of the evidence of `num_averaged` observations.
            num_averaged: n.
        """


def cosines(rows_BD: Tensor, gallery_MD: Tensor) -> np.ndarray:
    """(B, M) cosine similarities of unit rows. They are rounded, so that equal images have equal scores."""
    return (rows_BD @ gallery_MD.mT).round(decimals=6).numpy()


def mask_draw(masker: ImageMasker, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
    """Mask images of the adversary's own, in parts, without gradient."""
    with torch.no_grad():
        return torch.cat([masker.mask(part, rng=rng) for part in image_BCHW.split(_AT_ONCE)])


def draws(seed: int, *labels: str | int) -> Generator:
    """The generator of one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, "gallery attack", *labels))
