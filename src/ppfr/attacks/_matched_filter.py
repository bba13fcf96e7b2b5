"""Is this the masked image of this photograph? The optimal test between candidate photos under known noise.

Shape suffixes: B observed images, M candidates, F values of one masked image, C colour, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from ppfr.attacks._gallery_attack import GalleryAttack, GalleryPhoto, Knowledge, draws
from ppfr.attacks._threats import check_observation, masked_images_threat
from ppfr.core import AdditiveNoise, MaskedImages, PpfrError, ThreatModel, UnsupportableError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_AT_ONCE = 32
_VALUES_AT_ONCE = 1 << 14
SMALLEST_SCALE = 1e-4
"""Values that are sent without noise are compared as if they had noise of this scale, which covers rounding."""


@final
class MatchedFilter(GalleryAttack):
    """Likelihood of the observation under each candidate photo, from the law of the masker's noise.

    For Laplace noise the log-likelihood is minus the L1 distance to the noise-free masked photo, for Gaussian noise
    minus half the squared L2 distance, each value divided by its scale. By the Neyman-Pearson lemma no test between two
    candidates is better. Coefficients under much noise get little weight, so a budget that is spent on useless channels
    protects nothing. Without noise it is the distance between masked images.

    Threat model:
        An adversary who has candidate photos, for example of a social network, and the method with its parameters,
        including the deployment's secret if there is one. It needs neither a recogniser nor other faces.
    """

    photo: ClassVar[GalleryPhoto] = "same photo"

    def __init__(self) -> None:
        self._centres_MF: Tensor | None = None

    @property
    def name(self) -> str:
        """Name for records."""
        return "matched-filter"

    @property
    def label(self) -> str:
        """Name in tables."""
        return "Matched filter"

    @property
    def needs(self) -> ThreatModel:
        """The method and the secret; no recogniser and no further faces."""
        return masked_images_threat(knows_secret=True, has_public_faces=False)

    def public_config(self) -> Mapping[str, Any]:
        """No arguments."""
        return {"attack": self.name, "level": self.level}

    def enrol(self, knowledge: Knowledge, gallery_MCHW: Tensor, *, seed: int) -> None:
        """Compute the noise-free masked image of each candidate; see `GalleryAttack.enrol`."""
        masker = knowledge.masker
        self._shape, self._noise = masker.spec.out_shape, noise_of(knowledge, seed=seed)
        scale_F = self._noise.scale_F.clamp(min=SMALLEST_SCALE)
        self._used_F = scale_F.isfinite().nonzero()[:, 0]
        self._scale_F = scale_F[self._used_F]
        self._centres_MF = torch.cat([self._scaled(self._noise.centre(part)) for part in gallery_MCHW.split(_AT_ONCE)])

    def evidence(self, seen: MaskedImages) -> Tensor:
        """(B, M) log-likelihood of each candidate, up to a constant of each observation.

        Raises:
            PpfrError: before `enrol`.
            ThreatModelError: another type of observation than the threat model grants.
            ShapeError: not the shape of the masker's output.
        """
        if self._centres_MF is None:
            raise PpfrError(f"{self.name} has no gallery; call enrol(knowledge, gallery, seed=...) first")
        check_observation(seen, self.needs, self._shape, attack=self.name)
        values_BF = self._scaled(self._noise.values(seen.images_NKPQ))
        likelihood_BM = torch.zeros(len(values_BF), len(self._centres_MF), dtype=torch.float64)
        # In parts, because a float32 sum over a million values loses the differences that decide.
        for values_BV, centre_MV in zip(
            values_BF.split(_VALUES_AT_ONCE, 1), self._centres_MF.split(_VALUES_AT_ONCE, 1), strict=True
        ):
            if self._noise.law == "laplace":
                likelihood_BM -= torch.cdist(values_BV, centre_MV, p=1)
            else:
                likelihood_BM -= 0.5 * torch.cdist(values_BV.double(), centre_MV.double()).square()
        return likelihood_BM

    def scores(self, evidence: Tensor, *, num_averaged: int) -> np.ndarray:
        """(B, M) log-likelihood ratio of each candidate to the mean over candidates."""
        total_BM = evidence * num_averaged
        return (total_BM - total_BM.mean(dim=1, keepdim=True)).numpy()

    def _scaled(self, values_BF: Tensor) -> Tensor:
        return values_BF.float()[:, self._used_F] / self._scale_F


def noise_of(knowledge: Knowledge, *, seed: int) -> AdditiveNoise:
    """The law of the masker's noise; for a masker without randomness, Gaussian noise of scale 0.

    Raises:
        UnsupportableError: the masker is stochastic and does not state the law of its noise.
    """
    masker = knowledge.masker
    noise = masker.noise()
    if noise is not None:
        return noise
    if masker.spec.is_stochastic:
        raise UnsupportableError(
            f"{masker.name} is stochastic and states no law of its noise; implement `noise()`, or leave this attack out"
        )
    num = masker.spec.out_shape[0] * masker.spec.out_shape[1] * masker.spec.out_shape[2]
    rng = draws(seed, "unused")

    def centre(image_BCHW: Tensor) -> Tensor:
        with torch.no_grad():
            return masker.mask(image_BCHW, rng=rng).flatten(1)

    return AdditiveNoise(
        law="gaussian", scale_F=torch.zeros(num), values=lambda masked_BKPQ: masked_BKPQ.flatten(1), centre=centre
    )
