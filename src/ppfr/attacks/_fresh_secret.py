"""Maskers as adversaries use them: with fresh secrets, with frozen parameters, or without signs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from ppfr.core import ImageMasker, MaskSpec, UnsupportableError, derive_seed

if TYPE_CHECKING:
    from torch import Generator, Tensor


@final
class FreshSecret(ImageMasker):
    """The same protection with a newly drawn secret for every call.

    An attack trained on it must succeed for any secret. No reference to the deployed masker is kept: the wrapped masker
    has a secret that was never deployed.

    Args:
        masker: a masker with secret parameters (`spec.is_keyed`).
        per_image: draw a new secret for every image instead of every batch. A batch under one secret corresponds to a
            deployment (many faces, one secret). One secret per image additionally requires invariance within a batch,
            and is as slow as masking image by image.

    Raises:
        UnsupportableError: the masker has no secret; attack it directly.

    Example:
        >>> import torch
        >>> from ppfr.masking import PpfrFd
        >>> deployed = PpfrFd(secret=PpfrFd.new_secret())
        >>> simulated = FreshSecret(deployed)
        >>> rng = torch.Generator().manual_seed(0)
        >>> face = torch.rand(1, 3, 112, 112, generator=rng)
        >>> bool(torch.equal(simulated.mask(face, rng=rng), simulated.mask(face, rng=rng)))
        False
    """

    def __init__(self, masker: ImageMasker, *, per_image: bool = False) -> None:
        if not masker.spec.is_keyed:
            raise UnsupportableError(
                f"{masker.name} has no secret to draw again. Attack it directly, with knows_secret=True or False."
            )
        # Never used to mask: it only holds the method. Its seed may therefore be public.
        placeholder = torch.Generator().manual_seed(derive_seed(0, "fresh-secret", "placeholder"))
        self._method = masker.with_new_secret(rng=placeholder)
        self._per_image = per_image

    @property
    def name(self) -> str:
        """The masker's name, with a note on its secrets."""
        return f"{self._method.name} under fresh secrets"

    @property
    def spec(self) -> MaskSpec:
        """The masker's specification, but without a secret and stochastic."""
        return dataclasses.replace(self._method.spec, is_keyed=False, is_stochastic=True)

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask with a secret drawn from `rng`; see `ImageMasker.mask`."""
        if not self._per_image:
            return self.draw(rng=rng).mask(image_BCHW, rng=rng)
        rows = [self.draw(rng=rng).mask(one_1CHW, rng=rng) for one_1CHW in image_BCHW.split(1)]
        return torch.cat(rows) if rows else self._method.mask(image_BCHW, rng=rng)

    def draw(self, *, rng: Generator | None = None) -> ImageMasker:
        """One simulated deployment: the method with one secret; `rng` as in `ImageMasker.with_new_secret`."""
        return self._method.with_new_secret(rng=rng)

    def public_config(self) -> Mapping[str, Any]:
        """The method's public configuration and how the secrets are drawn."""
        return {
            "masker": self._method.name,
            "config": dict(self._method.public_config()),
            "secrets": "one for each image" if self._per_image else "one for each batch",
        }

    def __repr__(self) -> str:
        return f"FreshSecret({self._method.name}, per_image={self._per_image})"


@final
class FrozenMasker(ImageMasker):
    """A masker with learned parameters (`spec.is_trainable`), which the attack's training does not change.

    It keeps a copy in evaluation mode and moves it to the device of the images.

    Args:
        masker: a masker that is also a `torch.nn.Module`.
    """

    def __init__(self, masker: ImageMasker) -> None:
        assert isinstance(masker, nn.Module)
        self._spec = dataclasses.replace(masker.spec, is_trainable=False)
        self._network: Any = copy.deepcopy(masker).eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """The masker's."""
        return str(self._network.name)

    @property
    def spec(self) -> MaskSpec:
        """The masker's specification, but not trainable."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """The output of the deployed masker; see `ImageMasker.mask`."""
        masked: Tensor = self._network.to(image_BCHW.device).mask(image_BCHW, rng=rng)
        return masked.detach()

    def public_config(self) -> Mapping[str, Any]:
        """The masker's."""
        config: Mapping[str, Any] = self._network.public_config()
        return config


@final
class MagnitudeMasker(ImageMasker):
    """The magnitudes of a masker's output. If signs are flipped at random, only magnitudes carry information.

    Args:
        masker: the masker whose output is observed.
    """

    def __init__(self, masker: ImageMasker) -> None:
        self._masker = masker
        low, high = masker.spec.value_range
        self._spec = dataclasses.replace(masker.spec, value_range=(0.0, max(abs(low), abs(high))))

    @property
    def name(self) -> str:
        """The masker's name, with a note on magnitudes."""
        return f"{self._masker.name}, magnitudes"

    @property
    def spec(self) -> MaskSpec:
        """The masker's specification, without negative values."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """See `ImageMasker.mask`."""
        return self._masker.mask(image_BCHW, rng=rng).abs()

    def public_config(self) -> Mapping[str, Any]:
        """The masker's."""
        return self._masker.public_config()
