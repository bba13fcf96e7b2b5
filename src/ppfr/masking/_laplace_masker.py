"""What DCTDP and HFCF share: a noisy front end, a privacy budget, and the description of both."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ppfr.core import AdditiveNoise, ImageMasker, MaskSpec
from ppfr.masking._dp_accountant import PrivacyStatement
from ppfr.masking._laplace_budget import LARGEST_OUTPUT, LaplaceBudget
from ppfr.masking._sensitivities import NoisyFrontEnd

_ROUNDING = 1e-4


class LaplaceMasker(ImageMasker, nn.Module):
    """A masker that adds Laplace noise to frequency channels.

    Attributes:
        front_end: computes the coefficients.
        budget: adds the noise.
    """

    front_end: NoisyFrontEnd
    budget: LaplaceBudget

    @abstractmethod
    def privacy(self, *, is_seeded: bool = False) -> PrivacyStatement:
        """The privacy guarantee under the current budget; none if `mask` was given a generator (`is_seeded`)."""

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """JSON-ready constructor arguments, with checksums in place of arrays."""

    def guarantee(self, *, is_seeded: bool = False) -> Mapping[str, Any]:
        """`privacy()` for a record."""
        return self.privacy(is_seeded=is_seeded).as_dict()

    def noise(self) -> AdditiveNoise | None:
        """The Laplace noise of the budget; see `ImageMasker.noise`."""
        if not self.spec.is_stochastic:
            return None
        with torch.no_grad():
            num = math.prod(self.front_end.out_shape)
            scale_F = self.budget.scale(torch.device("cpu")) if self.budget.has_noise else torch.zeros(num)
        return AdditiveNoise(
            law="laplace",
            scale_F=torch.cat([scale_F.expand(num), self._further_scales()]),
            values=lambda masked_BKPQ: masked_BKPQ.flatten(1),
            centre=self._centre,
        )

    def _further_scales(self) -> Tensor:
        """Scales of the values after those of the front end."""
        return torch.zeros(0)

    @torch.no_grad()
    def _centre(self, image_BCHW: Tensor) -> Tensor:
        """(B, F): the values without noise."""
        return self.budget.centre(self.front_end.coefficients(image_BCHW)).flatten(1)

    def frozen(self) -> Self:
        """The deployed form: the same budget, with its parameters fixed."""
        return type(self)(**{**self._arguments(), **self.budget.deployed()})

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments, with checksums in place of the arrays that `public_arrays` returns."""
        return {**self._arguments(), "in_shape": list(self.front_end.in_shape)}

    def public_arrays(self) -> Mapping[str, np.ndarray]:
        """The sensitivities and the learned parameters."""
        return self.budget.arrays()

    def _spec(self, *, num_more: int = 0, is_stochastic: bool = False) -> MaskSpec:
        """The spec with further channels after those of the front end, which may be stochastic themselves."""
        has_noise, (num, rows, columns) = self.budget.has_noise, self.front_end.out_shape
        out_shape = (num + num_more, rows, columns)
        bound = LARGEST_OUTPUT if has_noise else 1.0 + _ROUNDING
        return MaskSpec(
            in_shape=self.front_end.in_shape,
            out_shape=out_shape,
            value_range=(-bound, bound),
            is_stochastic=has_noise or is_stochastic,
            is_keyed=False,
            is_trainable=self.budget.learns and has_noise,
            is_differentiable=True,
            bytes_per_face=2 * math.prod(out_shape),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"
