"""DCTDP (ECCV 2022): frequency channels without DC, with Laplace noise from a learned privacy budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import numpy as np
from torch import Generator, Tensor

from ppfr.core import MaskSpec
from ppfr.masking._checks import check_image
from ppfr.masking._dp_accountant import PrivacyStatement, state_privacy
from ppfr.masking._front_end import FrontEndName, check_choice
from ppfr.masking._grid_noise import SystemNoise
from ppfr.masking._laplace_budget import LaplaceBudget, Shares
from ppfr.masking._laplace_masker import LaplaceMasker
from ppfr.masking._noise import ImageNoise
from ppfr.masking._sensitivities import NoisyFrontEnd, Sensitivities

_EPS_MEAN = {"corrected": 0.5, "published": 4.0}
_PUBLISHED_IS_VOID = (
    "Sensitivity is set to 1, but coefficients range over [-1024, 1016] and are not clipped.",
    "All images of a call share one draw, so the differences between them contain no noise.",
)


@final
class Dctdp(LaplaceMasker):
    """All frequency channels of Y, Cb and Cr except DC leave the device, with Laplace noise on each value.

    The coefficients are divided by 1024, so that those of a face lie in [-1, 1]. One total privacy budget is divided
    among them by parameters that are trained with the recogniser (`ppfr.masking.LaplaceBudget`).

    Args:
        settings: "corrected": sensitivities measured on reference faces, values clipped to the measured ranges, noise
            with zero mean, and a separate draw for every image. "published": the settings of the authors' public code,
            which are sensitivity 1 on coefficients that range over [-1024, 1016], no clipping, a learned shift of each
            coefficient, and one draw that all images of a call share. No privacy guarantee follows from "published".
        eps_mean: mean privacy parameter of a coefficient. None means 0.5 (the paper's table), or 4 with
            settings="published" (the authors' code). Infinity means no noise.
        front_end: "upsampled" is the x8-upsampled block DCT (112x112 grid); "block" is a plain block DCT (28x28 grid
            for crops of 112x112).
        stride: step between blocks, front_end="block" only.
        num_channels: number of lowest frequencies of each colour, in zig-zag order after DC; at most 63.
        sensitivities: the result of `Sensitivities.measure`, or its `arrays()`. None means the built-in ones, which are
            measured on synthetic faces at first use (some seconds). Not used with settings="published".
        sensitivities_sha256: expected checksum of the sensitivities, as in `public_config`; others are rejected.
        shares: "coefficient": one share of the budget per coefficient, as in the paper. "channel": one share per
            channel, equal at all places, which a short training can learn.
        lr_scale: learning rate of the shares as a multiple of the recogniser's, for optimizers of the Adam family.
        learns: whether training changes the budget. The deployed form has False; see `frozen`.
        learned: learned parameters by name; None means an even budget.
        learned_sha256: expected checksum of the learned parameters; others are rejected.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument is outside its allowed range.
        ShapeError: the learned parameters have another shape.
        InvalidInputError: the sensitivities have another checksum or front end, or there are no built-in ones for this
            crop size.

    Privacy:
        With the corrected settings each coefficient on its own has local differential privacy at its eps_i. An image
        has 2.4 million coefficients. At the default their eps compose to 1.2 million, which is no meaningful guarantee.
        `privacy()` states the numbers. Without a generator delta is 0, since draws do not end. Draws of a generator
        end at 22.18 scales: no (eps_i, delta_i) with delta_i below 1/2 exp(-(22.18 - eps_i)) holds for them, and none
        at all above 22.18. Epochs compose if training images are sent masked. Who learns the budget holds clean
        coefficients. The learned parameters and the sensitivities are public. They do not protect the people in the
        training set.

    References:
        Ji et al.: "Privacy-Preserving Face Recognition with Learnable Privacy Budgets in Frequency Domain", ECCV 2022,
        arXiv 2207.07316. Deviations are listed in docs/methods/dctdp.md.
    """

    def __init__(
        self,
        *,
        settings: Literal["corrected", "published"] = "corrected",
        eps_mean: float | str | None = None,
        front_end: FrontEndName = "upsampled",
        stride: int = 4,
        num_channels: int = 63,
        sensitivities: Sensitivities | Mapping[str, np.ndarray] | None = None,
        sensitivities_sha256: str | None = None,
        shares: Shares = "coefficient",
        lr_scale: float = 1.0,
        learns: bool = True,
        learned: Mapping[str, np.ndarray] | None = None,
        learned_sha256: str | None = None,
        in_shape: tuple[int, int, int] = (3, 112, 112),
    ) -> None:
        super().__init__()
        check_choice("settings", settings, ("corrected", "published"))
        self.settings = settings
        self.front_end = NoisyFrontEnd(
            front_end=front_end, fuses=False, stride=stride, num_channels=num_channels, in_shape=in_shape
        )
        self.budget = LaplaceBudget(
            self.front_end,
            eps_mean=_EPS_MEAN[settings] if eps_mean is None else eps_mean,
            sensitivities=sensitivities,
            sensitivities_sha256=sensitivities_sha256,
            is_measured=settings == "corrected",
            shares=shares,
            lr_scale=lr_scale,
            learns=learns,
            learned=learned,
            learned_sha256=learned_sha256,
        )

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "dctdp"

    @property
    def spec(self) -> MaskSpec:
        """K channels on the grid. Noise is unbounded except for a clamp to the range of float16."""
        return self._spec()

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask a batch; see `ImageMasker.mask`. With settings="published" all images of the batch share one draw."""
        image_BCHW = check_image(image_BCHW, self.spec)
        values_BKPQ = self.front_end.coefficients(image_BCHW)
        if not self.budget.has_noise:
            return values_BKPQ
        num, is_shared = len(image_BCHW), self.settings == "published"
        if rng is None:
            return self.budget.add_noise(values_BKPQ, SystemNoise(num, is_shared=is_shared))
        return self.budget.add_noise(values_BKPQ, ImageNoise(num, rng=rng, is_shared=is_shared))

    def privacy(self, *, is_seeded: bool = False) -> PrivacyStatement:
        """The privacy guarantee under the current budget; none if `mask` was given a generator (`is_seeded`)."""
        void = _PUBLISHED_IS_VOID if self.settings == "published" else ()
        eps = self.budget.accounted_eps()
        return state_privacy(self.name, eps, self.front_end, reasons_void=void, is_seeded=is_seeded)

    def _arguments(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "front_end": self.front_end.front_end,
            "stride": self.front_end.stride,
            "num_channels": self.front_end.num_channels,
            **self.budget.config(),
            "in_shape": self.front_end.in_shape,
        }
