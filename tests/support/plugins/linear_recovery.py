from collections.abc import Mapping
from typing import Any, final

import torch

from ppfr.attacks import masked_images_threat
from ppfr.core import Attack, AttackResult, ImageMasker, ImageSet, ObservedImages, ThreatModel
from ppfr.data import float_images


@final
class LinearRecovery(Attack):
    """Recovers faces by ridge regression from masked values to pixels.

    Args:
        knows_secret: trains on the deployed masker; otherwise on simulations under secrets of its own.
        ridge: penalty, relative to the mean squared length of the centred masked images.

    Threat model:
        Sees masked images of the target subjects, knows the method, and has faces of other people.
    """

    def __init__(self, *, knows_secret: bool = True, ridge: float = 1e-4) -> None:
        self._knows_secret, self._ridge = knows_secret, ridge

    @property
    def name(self) -> str:
        return "linear-recovery"

    @property
    def needs(self) -> ThreatModel:
        return masked_images_threat(knows_secret=self._knows_secret, knows_recogniser=False)

    def public_config(self) -> Mapping[str, Any]:
        return {"knows_secret": self._knows_secret, "ridge": self._ridge}

    def fit(self, masker: ImageMasker, public: ImageSet, *, seed: int) -> Mapping[str, Any]:
        image_NCHW = float_images(public.read(range(len(public)))).contiguous()
        masked_NF = masker.mask(image_NCHW, rng=torch.Generator().manual_seed(seed)).flatten(1).double()
        self._shape = image_NCHW.shape[1:]
        self._mean_F, self._mean_CHW = masked_NF.mean(0), image_NCHW.mean(0).flatten().double()
        self._rows_NF = masked_NF - self._mean_F
        gram_NN = self._rows_NF @ self._rows_NF.T
        penalty = self._ridge * max(float(gram_NN.diagonal().mean()), 1e-12) * torch.eye(len(gram_NN))
        target_NP = image_NCHW.flatten(1).double() - self._mean_CHW
        self._weights_NP = torch.linalg.solve(gram_NN + penalty, target_NP)
        return {"num_images": len(public)}

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        rows_BF = seen.images_NKPQ.flatten(1).double() - self._mean_F
        recovered_BP = self._mean_CHW + rows_BF @ self._rows_NF.T @ self._weights_NP
        return AttackResult(recovered_NCHW=recovered_BP.clamp(0, 1).float().reshape(-1, *self._shape))
