"""Ridge regression from masked images to identity embeddings, in closed form.

Shape suffixes: B observed images, N public faces, M gallery, D embedding, F values of one masked image, C colour, H W.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch.nn import functional

from ppfr.attacks._gallery_attack import GalleryAttack, Knowledge, cosines, draws
from ppfr.attacks._matched_filter import noise_of
from ppfr.attacks._threats import check_observation, masked_images_threat
from ppfr.core import MaskedImages, PpfrError, RangeError, ThreatModel
from ppfr.data import float_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_AT_ONCE = 32
_VALUES_AT_ONCE = 1 << 16
_NOISE_VARIANCE = {"laplace": 2.0, "gaussian": 1.0}  # of noise of scale 1


@final
class IdentityRegression(GalleryAttack):
    """A linear map from masked images to the embeddings of a public recogniser, fitted on masked public faces.

    Each value is divided by the scale of its noise, so values under much noise hardly count. The map minimises the
    expected error over the noise, which for noise of variance v is ridge regression with penalty N * v. For the mean of
    n observations v is divided by n. `ridge` is added, as a share of the mean diagonal of the kernel.

    Args:
        num_faces: N, number of public faces.
        ridge: relative penalty without noise.

    Threat model:
        A reader of masked images who can mask faces of other people, under the deployment's secret if there is one, and
        has a public recogniser of plain photos. Not the deployed recogniser.
    """

    min_share_of_plain: ClassVar[float] = 0.0  # a linear map is a weak recogniser of plain photos too

    def __init__(self, *, num_faces: int = 1024, ridge: float = 1e-3) -> None:
        if num_faces < 2:
            raise RangeError(f"num_faces is {num_faces}; it must be at least 2")
        if not 0 < ridge < float("inf"):
            raise RangeError(f"ridge is {ridge}; it must be above 0 and finite")
        self._num_faces, self._ridge = int(num_faces), float(ridge)
        self._public_NF: Tensor | None = None

    @property
    def name(self) -> str:
        """Name for records."""
        return "identity-regression"

    @property
    def label(self) -> str:
        """Name in tables."""
        return "Ridge regression to identity"

    @property
    def needs(self) -> ThreatModel:
        """The method, the secret and faces of other people."""
        return masked_images_threat(knows_secret=True)

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments."""
        return {"attack": self.name, "level": self.level, "num_faces": self._num_faces, "ridge": self._ridge}

    def enrol(self, knowledge: Knowledge, gallery_MCHW: Tensor, *, seed: int) -> None:
        """Fit the map on public faces and embed the gallery; see `GalleryAttack.enrol`."""
        masker, device = knowledge.masker, knowledge.device
        self._shape, self._noise = masker.spec.out_shape, noise_of(knowledge, seed=seed)
        recogniser, public = knowledge.public_recogniser, knowledge.public_images
        order = torch.randperm(len(public), generator=draws(seed, "public"))[: self._num_faces].tolist()
        values, targets = [], []
        for start in range(0, len(order), _AT_ONCE):
            image_BCHW = float_images(public.read(order[start : start + _AT_ONCE]))
            # Half precision, because a thousand masked images fill memory otherwise; noise is far above its rounding.
            values.append(self._noise.centre(image_BCHW).half())
            targets.append(recogniser.embed(image_BCHW.to(device)).double().cpu())
        self._fit_features(torch.cat(values))
        target_ND = torch.cat(targets)
        self._mean_D = target_ND.mean(dim=0)
        self._target_ND = target_ND - self._mean_D
        kernel_NN = torch.cat(
            [self._kernel(part.float()) for part in self._public_NF.split(_AT_ONCE)]  # type: ignore[union-attr]
        )
        self._kernel_NN = kernel_NN
        self._maps: dict[int, Tensor] = {}
        parts = [recogniser.embed(part.to(device)).double().cpu() for part in gallery_MCHW.split(_AT_ONCE)]
        self._gallery_MD = functional.normalize(torch.cat(parts) - self._mean_D, dim=1)

    def evidence(self, seen: MaskedImages) -> Tensor:
        """(B, N) products with the public faces.

        Raises:
            PpfrError: before `enrol`.
            ThreatModelError: another type of observation than the threat model grants.
            ShapeError: not the shape of the masker's output.
        """
        if self._public_NF is None:
            raise PpfrError(f"{self.name} is not fitted; call enrol(knowledge, gallery, seed=...) first")
        check_observation(seen, self.needs, self._shape, attack=self.name)
        values_BF = self._noise.values(seen.images_NKPQ).float()
        return self._kernel((values_BF - self._mean_F) * self._weight_F)

    def scores(self, evidence: Tensor, *, num_averaged: int) -> np.ndarray:
        """(B, M) cosine similarities of estimated and gallery embeddings, both around the mean of public faces."""
        estimate_BD = evidence @ self._map(num_averaged)
        return cosines(functional.normalize(estimate_BD, dim=1), self._gallery_MD)

    def _fit_features(self, values_NF: Tensor) -> None:
        """Centre the values and divide them by the scale of their noise, or by their deviation without noise."""
        scale_F = self._noise.scale_F
        self._mean_F, deviation_F = torch.empty_like(scale_F), torch.empty_like(scale_F)
        for part in _parts(values_NF.shape[1]):
            block_NV = values_NF[:, part].float()
            self._mean_F[part], deviation_F[part] = block_NV.mean(dim=0), block_NV.std(dim=0)
        # The bound keeps weights under little noise within half precision.
        usual = torch.where(scale_F > 0, torch.maximum(scale_F, 1e-3 * deviation_F), deviation_F)
        self._weight_F = torch.where(usual > 0, 1 / usual, 0.0)
        for part in _parts(values_NF.shape[1]):
            values_NF[:, part] = ((values_NF[:, part].float() - self._mean_F[part]) * self._weight_F[part]).half()
        self._public_NF = values_NF
        self._variance = _NOISE_VARIANCE[self._noise.law] if bool((scale_F > 0).any()) else 0.0

    def _kernel(self, features_BF: Tensor) -> Tensor:
        assert self._public_NF is not None
        total_BN = torch.zeros(len(features_BF), len(self._public_NF), dtype=torch.float64)
        for part in _parts(features_BF.shape[1]):
            total_BN += features_BF[:, part] @ self._public_NF[:, part].float().mT
        return total_BN

    def _map(self, num_averaged: int) -> Tensor:
        """(N, D) from products to embeddings, for the mean of that many observations."""
        if num_averaged not in self._maps:
            num = len(self._kernel_NN)
            base = self._ridge * float(self._kernel_NN.diagonal().mean()) + 1e-12
            penalty = base + num * self._variance / num_averaged
            ridge_NN = self._kernel_NN + penalty * torch.eye(num, dtype=torch.float64)
            self._maps[num_averaged] = torch.linalg.solve(ridge_NN, self._target_ND)
        return self._maps[num_averaged]


def _parts(num: int) -> Iterator[slice]:
    for start in range(0, num, _VALUES_AT_ONCE):
        yield slice(start, min(start + _VALUES_AT_ONCE, num))
