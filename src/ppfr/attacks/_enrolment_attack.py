"""The server's own recogniser, turned on its users: enrol masked gallery photos and search with observed masks.

Shape suffixes: B observed images, M gallery, D embedding, C colour, H W pixels, K P Q masked image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch.nn import functional

from ppfr.attacks._gallery_attack import GalleryAttack, Knowledge, cosines, draws, mask_draw
from ppfr.attacks._threats import check_observation, masked_images_threat
from ppfr.core import Embedder, InvalidInputError, MaskedImages, PpfrError, RangeError, ThreatModel, UnsupportableError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Averaged = Literal["embeddings", "masked images"]
_AT_ONCE = 32


@final
class EnrolmentAttack(GalleryAttack):
    """Mask a plain photo of each candidate, embed it with the deployed recogniser, and search with the observation.

    A server that can verify people can do this: it holds the recogniser, and it can mask. Nothing is trained.

    Args:
        num_masks: times that each gallery photo is masked; 1 suffices for maskers that are not stochastic.
        averages: "embeddings": average the embeddings of masked images. "masked images": average the masked images, of
            the gallery and of the observations, and embed the mean.

    Threat model:
        The server. It has the deployed recogniser and can mask photos of its choice, under the deployment's secret if
        there is one. It has a plain photo of each candidate.
    """

    def __init__(self, *, num_masks: int = 16, averages: Averaged = "embeddings") -> None:
        if num_masks < 1:
            raise RangeError(f"num_masks is {num_masks}; it must be at least 1")
        if averages not in ("embeddings", "masked images"):
            raise InvalidInputError(f"averages={averages!r}; use 'embeddings' or 'masked images'")
        self._num_masks, self._averages = int(num_masks), averages
        self._embedder: Embedder | None = None

    @property
    def name(self) -> str:
        """Name for records."""
        return "enrolment"

    @property
    def label(self) -> str:
        """Name in tables."""
        return "Enrolment attack" if self._averages == "embeddings" else "Enrolment attack, masked images averaged"

    @property
    def needs(self) -> ThreatModel:
        """The server, with its recogniser."""
        return masked_images_threat(knows_secret=True, knows_recogniser=True, has_public_faces=False)

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments."""
        return {"attack": self.name, "level": self.level, "num_masks": self._num_masks, "averages": self._averages}

    def enrol(self, knowledge: Knowledge, gallery_MCHW: Tensor, *, seed: int) -> None:
        """Mask and embed the gallery; see `GalleryAttack.enrol`."""
        masker = knowledge.masker
        if knowledge.deployed_recogniser is None:
            raise UnsupportableError(
                f"there is no deployed recogniser of images masked by {masker.name}; give the system a training, or "
                "leave the enrolment attack out"
            )
        self._embedder, self._device = knowledge.deployed_recogniser, knowledge.device
        self._shape = masker.spec.out_shape
        num_masks = self._num_masks if masker.spec.is_stochastic else 1
        rows = []
        for place, part_BCHW in enumerate(gallery_MCHW.split(_AT_ONCE)):
            total = sum(
                self._evidence(mask_draw(masker, part_BCHW, rng=draws(seed, "enrol", place, number)))
                for number in range(num_masks)
            )
            assert isinstance(total, torch.Tensor)
            rows.append(self._embedded(total / num_masks))
        self._gallery_MD = torch.cat(rows)

    def evidence(self, seen: MaskedImages) -> Tensor:
        """(B, D) embeddings or (B, K, P, Q) masked images.

        Raises:
            PpfrError: before `enrol`.
            ThreatModelError: another type of observation than the threat model grants.
            ShapeError: not the shape of the masker's output.
        """
        if self._embedder is None:
            raise PpfrError(f"{self.name} has no gallery; call enrol(knowledge, gallery, seed=...) first")
        check_observation(seen, self.needs, self._shape, attack=self.name)
        return self._evidence(seen.images_NKPQ)

    def scores(self, evidence: Tensor, *, num_averaged: int) -> np.ndarray:
        """(B, M) cosine similarities."""
        return cosines(self._embedded(evidence), self._gallery_MD)

    def _evidence(self, masked_BKPQ: Tensor) -> Tensor:
        return masked_BKPQ if self._averages == "masked images" else self._embed(masked_BKPQ)

    def _embedded(self, mean: Tensor) -> Tensor:
        """(B, D) unit rows from averaged evidence."""
        return functional.normalize(self._embed(mean) if self._averages == "masked images" else mean, dim=1)

    def _embed(self, masked_BKPQ: Tensor) -> Tensor:
        assert self._embedder is not None
        parts = [self._embedder.embed(part.to(self._device)) for part in masked_BKPQ.split(_AT_ONCE)]
        return torch.cat(parts).double().cpu()
