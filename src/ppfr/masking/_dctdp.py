"""DCTDP (ECCV 2022): frequency channels less DC, with Laplace noise whose budget is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self, final

import numpy as np
from torch import Generator, Tensor, nn

from ppfr.core import ImageMasker, MaskSpec
from ppfr.masking._checks import check_image
from ppfr.masking._dp_accountant import PrivacyStatement, state_privacy
from ppfr.masking._front_end import FrontEndName, check_word
from ppfr.masking._laplace_budget import LARGEST_OUTPUT, LaplaceBudget, Shares
from ppfr.masking._noise import ImageNoise
from ppfr.masking._sensitivities import NoisyFrontEnd, Sensitivities

_EPS_MEAN = {"corrected": 0.5, "published": 4.0}
_ROUNDING = 1e-4
_PUBLISHED_IS_VOID = (
    "Sensitivity is set to 1, but coefficients range over [-1024, 1016] and are not clipped.",
    "All images of a call share one draw, so that their differences carry no noise at all.",
)


@final
class Dctdp(ImageMasker, nn.Module):
    """What leaves the device is every frequency channel but DC of Y, Cb and Cr, with Laplace noise on each value.

    The coefficients are divided by 1024, so that those of a face lie in [-1, 1]. How much noise each gets is shared out
    from one total budget by parameters that a recogniser's training moves (`ppfr.masking.LaplaceBudget`).

    Args:
        settings: "corrected": sensitivities measured on reference faces, values clipped to them, zero mean, a draw for
            every image. "published": what the authors' public code does: sensitivity 1 on coefficients that range over
            [-1024, 1016], no clipping, a learned shift of each coefficient, and one draw that all images of a call
            share. No privacy guarantee follows from the latter.
        eps_mean: mean privacy parameter of a coefficient; None for 0.5 (the paper's table), or 4 if published (its
            code). Infinity is no noise.
        front_end: "upsampled" is the x8-upsampled one (112x112 grid); "block" a plain block DCT (28x28 grid at 112).
        stride: step between blocks, front_end="block" only.
        num_channels: lowest frequencies of each colour in zig-zag order after DC, 63 at most.
        sensitivities: from `Sensitivities.measure`, or their `arrays()`; None for built-in ones, which are measured on
            synthetic faces when they are first needed (some seconds). Not used by
            settings="published".
        sensitivities_sha256: refuse other sensitivities than those of this name, as `public_config` gives it.
        shares: "coefficient", a share for each as in DCTDP's paper; "channel", one for all places of a channel, which a
            short training can learn.
        lr_scale: the shares learn at so many times the rate of the recogniser's optimiser (Adam's kind).
        learns: whether a training moves the budget. False is the deployed form; `frozen` makes it.
        learned: what a training left, by name; None for an even budget.
        learned_sha256: refuse another.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument outside what is stated.
        ShapeError: learned values of another shape.
        InvalidInputError: sensitivities of another data set or front end, or none for such a crop.

    Privacy:
        With the corrected settings each coefficient by itself has local differential privacy at its eps_i; an image has
        2.4 million coefficients, for which that composes to 1.2 million at the default, which promises nothing.
        `privacy()` says so in numbers. What a training learned, and the sensitivities, are public and protect nobody in
        the training set.

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
        check_word("settings", settings, ("corrected", "published"))
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
        """K channels on the grid; noise is unbounded but for a clamp to what float16 holds."""
        has_noise, out_shape = self.budget.has_noise, self.front_end.out_shape
        bound = LARGEST_OUTPUT if has_noise else 1.0 + _ROUNDING
        return MaskSpec(
            in_shape=self.front_end.in_shape,
            out_shape=out_shape,
            value_range=(-bound, bound),
            is_stochastic=has_noise,
            is_keyed=False,
            is_trainable=self.budget.learns and has_noise,
            is_differentiable=True,
            bytes_per_face=2 * math.prod(out_shape),
        )

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """Mask a batch; see `ImageMasker.mask`. With settings="published" all images of the batch share a draw."""
        image_BCHW = check_image(image_BCHW, self.spec)
        values_BKPQ = self.front_end.coefficients(image_BCHW)
        if not self.budget.has_noise:
            return values_BKPQ
        noise = ImageNoise(len(image_BCHW), rng=rng, is_shared=self.settings == "published")
        return self.budget.add_noise(values_BKPQ, noise)

    def privacy(self) -> PrivacyStatement:
        """What is guaranteed, with the budget as it is now."""
        void = _PUBLISHED_IS_VOID if self.settings == "published" else ()
        return state_privacy(self.name, self.budget.accounted_eps(), self.front_end, reasons_void=void)

    def guarantee(self) -> Mapping[str, Any]:
        """`privacy()` for a record."""
        return self.privacy().as_dict()

    def frozen(self) -> Self:
        """The deployed form: the same budget, which no training moves."""
        return type(self)(**{**self._arguments(), **self.budget.deployed()})

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments but for the arrays, which `public_arrays` gives; here are their names."""
        return {**self._arguments(), "in_shape": list(self.front_end.in_shape)}

    def public_arrays(self) -> Mapping[str, np.ndarray]:
        """The sensitivities, and what was learned."""
        return self.budget.arrays()

    def _arguments(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "front_end": self.front_end.front_end,
            "stride": self.front_end.stride,
            "num_channels": self.front_end.num_channels,
            **self.budget.config(),
            "in_shape": self.front_end.in_shape,
        }

    def __repr__(self) -> str:
        return f"Dctdp({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"
