"""HFCF (VISAPP 2024), input side: fused frequency channels with learned Laplace noise, and sparse colour channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Generator, Tensor

from ppfr.core import MaskSpec
from ppfr.masking._checks import check_image
from ppfr.masking._dp_accountant import PrivacyStatement, state_privacy
from ppfr.masking._front_end import FrontEndName
from ppfr.masking._grid_noise import SystemNoise
from ppfr.masking._laplace_budget import LaplaceBudget, Shares
from ppfr.masking._laplace_masker import LaplaceMasker
from ppfr.masking._local_binary_patterns import ColourChannels, ColourName
from ppfr.masking._noise import ImageNoise
from ppfr.masking._sensitivities import NoisyFrontEnd, Sensitivities


@final
class Hfcf(LaplaceMasker):
    """One noisy channel per frequency without DC, and local binary patterns of the colours, leave the device.

    For each frequency at each place of the grid, the coefficient of Y, Cb or Cr with the largest magnitude is kept with
    its sign and divided by 1024. Laplace noise is added. One total privacy budget is divided among the coefficients by
    parameters that are trained with the recogniser (`ppfr.masking.LaplaceBudget`). The colour channels follow the
    frequency channels.

    Args:
        eps_mean: mean privacy parameter of a coefficient; infinity means no noise.
        front_end: "upsampled" is the x8-upsampled block DCT (112x112 grid); "block" is a plain block DCT (28x28 grid
            for crops of 112x112).
        stride: step between blocks, front_end="block" only.
        num_channels: number of lowest frequencies of each colour, in zig-zag order after DC; at most 63.
        fuses: keep one coefficient of the three colours. False keeps all three, which gives three times as many
            channels.
        colour: "lbp" for code maps of Cb and Cr (the default, which is an assumption about the paper); "none";
            "lbp-ycbcr" for Y as well; "lbp-difference" for R - G, G - B and B - R; "lbp-bits" for the bits of Cb and Cr
            as separate channels.
        colour_eps: privacy parameter of one bit of the patterns under randomised response; None leaves the patterns
            unchanged.
        sensitivities: the result of `Sensitivities.measure`, or its `arrays()`. None means the built-in ones, which are
            measured on synthetic faces at first use (some seconds).
        sensitivities_sha256: expected checksum of the sensitivities, as in `public_config`; others are rejected.
        shares: "coefficient": one share of the budget per coefficient, as in DCTDP's paper. "channel": one share per
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
        Each noisy coefficient on its own has local differential privacy at its eps_i. Unless `colour_eps` is given, the
        local binary patterns leave the device unchanged and have no guarantee. The output as a whole then has no
        guarantee either. With colour="none", the eps of 790,272 coefficients compose to 395,136 at the default, which
        is no meaningful guarantee. `privacy()` states the numbers. Without a generator delta is 0, since draws do not
        end. Draws of a generator end at 22.18 scales: no (eps_i, delta_i) with delta_i below
        1/2 exp(-(22.18 - eps_i)) holds for them, and none at all above 22.18. Epochs compose if training images are
        sent masked. Who learns the budget holds clean coefficients. The learned parameters and the sensitivities are
        public. They do not protect the people in the training set.

    References:
        Han, Li, Denzler: "Privacy-Preserving Face Recognition in Hybrid Frequency-Color Information Domain", VISAPP
        2024, arXiv 2401.13386. Details that the paper does not state, and our assumptions, are listed in
        docs/methods/hfcf.md.
    """

    def __init__(
        self,
        *,
        eps_mean: float | str = 0.5,
        front_end: FrontEndName = "upsampled",
        stride: int = 4,
        num_channels: int = 63,
        fuses: bool = True,
        colour: ColourName = "lbp",
        colour_eps: float | None = None,
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
        self.front_end = NoisyFrontEnd(
            front_end=front_end, fuses=bool(fuses), stride=stride, num_channels=num_channels, in_shape=in_shape
        )
        self.colour = ColourChannels(kind=colour, eps=colour_eps)
        self.budget = LaplaceBudget(
            self.front_end,
            eps_mean=eps_mean,
            sensitivities=sensitivities,
            sensitivities_sha256=sensitivities_sha256,
            shares=shares,
            lr_scale=lr_scale,
            learns=learns,
            learned=learned,
            learned_sha256=learned_sha256,
        )

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "hfcf"

    @property
    def spec(self) -> MaskSpec:
        """Frequency channels, then colour channels in [0, 1]. Noisy values are clamped to the range of float16."""
        return self._spec(num_more=self.colour.num_channels, is_stochastic=self.colour.is_stochastic)

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask a batch; see `ImageMasker.mask`. No gradient passes through the colour channels."""
        spec = self.spec
        image_BCHW = check_image(image_BCHW, spec)
        num = self.front_end.out_shape[0]
        num_drawn = len(image_BCHW) if spec.is_stochastic else 0
        noise = SystemNoise(num_drawn) if rng is None else ImageNoise(num_drawn, rng=rng)
        if torch.is_grad_enabled() and (image_BCHW.requires_grad or spec.is_trainable):
            noisy_BKPQ = self.budget.add_noise(self.front_end.coefficients(image_BCHW), noise)
            colour_BKPQ = noisy_BKPQ.new_empty(len(image_BCHW), self.colour.num_channels, *spec.out_shape[1:])
            self.colour.write(image_BCHW, colour_BKPQ, noise)
            return torch.cat([noisy_BKPQ, colour_BKPQ], 1)
        out_BKPQ = self.front_end.coefficients(image_BCHW, num_spare=self.colour.num_channels)
        self.budget.add_noise(out_BKPQ[:, :num], noise)
        self.colour.write(image_BCHW, out_BKPQ[:, num:], noise)
        return out_BKPQ

    def privacy(self, *, is_seeded: bool = False) -> PrivacyStatement:
        """The privacy guarantee under the current budget; none if `mask` was given a generator (`is_seeded`)."""
        eps = self.budget.accounted_eps()
        return state_privacy(self.name, eps, self.front_end, colour=self.colour, is_seeded=is_seeded)

    def _further_scales(self) -> Tensor:
        """Colour channels are sent as they are, or their bits are flipped, which is not additive."""
        _, *grid = self.front_end.out_shape
        num = self.colour.num_channels * math.prod(grid)
        return torch.full((num,), 0.0 if self.colour.eps is None else math.inf)

    @torch.no_grad()
    def _centre(self, image_BCHW: Tensor) -> Tensor:
        """(B, F): the values without noise and without flipped bits."""
        noisy_BF = super()._centre(image_BCHW)
        colour_BKPQ = noisy_BF.new_empty(len(image_BCHW), self.colour.num_channels, *self.front_end.out_shape[1:])
        self.colour.write(image_BCHW, colour_BKPQ, None)
        return torch.cat([noisy_BF, colour_BKPQ.flatten(1)], 1)

    def _arguments(self) -> dict[str, Any]:
        return {
            "front_end": self.front_end.front_end,
            "stride": self.front_end.stride,
            "num_channels": self.front_end.num_channels,
            "fuses": self.front_end.fuses,
            "colour": self.colour.kind,
            "colour_eps": self.colour.eps,
            **self.budget.config(),
            "in_shape": self.front_end.in_shape,
        }
