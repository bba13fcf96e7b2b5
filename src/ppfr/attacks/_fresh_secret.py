"""Maskers as an adversary holds them: under secrets of his own, a trained one that he cannot move, signs left out."""

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
    """The same protection under a newly drawn secret for every call.

    An attack trained on it must succeed whatever the secret is. The deployed masker is let go at construction: what is
    kept is the method under a secret that was never deployed, so no attribute leads to the deployed one.

    Args:
        masker: a masker with secret parameters (`spec.is_keyed`).
        per_image: a new secret for every image of a batch instead of every batch. A batch under one secret is what a
            deployment shows (many faces, one secret); a secret an image asks for invariance within the batch too. As
            slow as masking image by image.

    Raises:
        UnsupportableError: the masker has no secret; attack it as it is.

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
                f"{masker.name} has no secret, so there is none to draw anew; attack it as it is, "
                "with knows_secret=True or False alike"
            )
        # Never used to mask: it only carries the method. Its seed is public, and need not be anything else.
        placeholder = torch.Generator().manual_seed(derive_seed(0, "fresh-secret", "placeholder"))
        self._method = masker.with_new_secret(rng=placeholder)
        self._per_image = per_image

    @property
    def name(self) -> str:
        """The masker's name and how its secrets are drawn."""
        return f"{self._method.name} under fresh secrets"

    @property
    def spec(self) -> MaskSpec:
        """The masker's, but without a secret of its own, and stochastic."""
        return dataclasses.replace(self._method.spec, is_keyed=False, is_stochastic=True)

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """Mask under a secret drawn from `rng`; see `ImageMasker.mask`."""
        if not self._per_image:
            return self.draw(rng=rng).mask(image_BCHW, rng=rng)
        rows = [self.draw(rng=rng).mask(one_1CHW, rng=rng) for one_1CHW in image_BCHW.split(1)]
        return torch.cat(rows) if rows else self._method.mask(image_BCHW, rng=rng)

    def draw(self, *, rng: Generator) -> ImageMasker:
        """One simulated deployment: the method under a single secret drawn from `rng`."""
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
class AtRest(ImageMasker):
    """A masker that is a network (`spec.is_trainable`), as it was deployed: the attack's training does not move it.

    A copy is kept, in evaluation mode, and follows the images from device to device.

    Args:
        masker: a masker that is a `torch.nn.Module` too.
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
        """The masker's, but not trainable."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """What the deployed masker gives; see `ImageMasker.mask`."""
        masked: Tensor = self._network.to(image_BCHW.device).mask(image_BCHW, rng=rng)
        return masked.detach()

    def public_config(self) -> Mapping[str, Any]:
        """The masker's."""
        config: Mapping[str, Any] = self._network.public_config()
        return config


@final
class Unsigned(ImageMasker):
    """The magnitudes of what a masker puts out: all that is left where signs are flipped by coins.

    Args:
        masker: what is seen.
    """

    def __init__(self, masker: ImageMasker) -> None:
        self._masker = masker
        low, high = masker.spec.value_range
        self._spec = dataclasses.replace(masker.spec, value_range=(0.0, max(abs(low), abs(high))))

    @property
    def name(self) -> str:
        """The masker's name, and that signs are left out."""
        return f"{self._masker.name}, magnitudes"

    @property
    def spec(self) -> MaskSpec:
        """The masker's, without negative values."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """See `ImageMasker.mask`."""
        return self._masker.mask(image_BCHW, rng=rng).abs()

    def public_config(self) -> Mapping[str, Any]:
        """The masker's."""
        return self._masker.public_config()
