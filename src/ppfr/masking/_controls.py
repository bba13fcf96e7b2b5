"""The two controls of every comparison: no protection, and an output without information."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from torch import Generator, Tensor

from ppfr.core import ImageMasker, MaskSpec, RangeError
from ppfr.masking._checks import check_image


@final
class Unprotected(ImageMasker):
    """Identity control: the image itself leaves the device. Every attack must succeed against it.

    Args:
        in_shape: (3, H, W) of the aligned crop.

    Privacy:
        None. A face is sent as float16, which is twice the size of uint8.
    """

    def __init__(self, *, in_shape: tuple[int, int, int] = (3, 112, 112)) -> None:
        self._spec = MaskSpec(
            in_shape=_positive_shape(in_shape, "in_shape"),
            out_shape=_positive_shape(in_shape, "in_shape"),
            value_range=(0.0, 1.0),
            is_stochastic=False,
            is_keyed=False,
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=2 * math.prod(in_shape),
        )

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "unprotected"

    @property
    def spec(self) -> MaskSpec:
        """Same shape in and out, values in [0, 1]."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """A copy of the image; see `ImageMasker.mask`."""
        return check_image(image_BCHW, self._spec).clone()

    def mirrored(self, masked_BKPQ: Tensor) -> Tensor:
        """The mirrored image; see `ImageMasker.mirrored`."""
        return masked_BKPQ.flip(-1)

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments; there is no secret."""
        return {"in_shape": list(self._spec.in_shape)}

    def __repr__(self) -> str:
        return f"Unprotected(in_shape={self._spec.in_shape})"


@final
class Constant(ImageMasker):
    """Chance control: the output contains no information about the image. Every attack must be at chance against it.

    Args:
        out_shape: (K, P, Q) of the output, which is 0.5 everywhere.
        in_shape: (3, H, W) of the aligned crop.

    Privacy:
        Complete: the output is the same for every face, and useless for recognition.
    """

    def __init__(
        self, *, out_shape: tuple[int, int, int] = (3, 112, 112), in_shape: tuple[int, int, int] = (3, 112, 112)
    ) -> None:
        self._spec = MaskSpec(
            in_shape=_positive_shape(in_shape, "in_shape"),
            out_shape=_positive_shape(out_shape, "out_shape"),
            value_range=(0.5, 0.5),
            is_stochastic=False,
            is_keyed=False,
            is_trainable=False,
            is_differentiable=False,
            bytes_per_face=2 * math.prod(out_shape),
        )

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "constant"

    @property
    def spec(self) -> MaskSpec:
        """Any shape out, every value 0.5."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """0.5 everywhere; see `ImageMasker.mask`."""
        image_BCHW = check_image(image_BCHW, self._spec)
        return image_BCHW.new_full((image_BCHW.shape[0], *self._spec.out_shape), 0.5)

    def mirrored(self, masked_BKPQ: Tensor) -> Tensor:
        """The same constant; see `ImageMasker.mirrored`."""
        return masked_BKPQ.clone()

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments; there is no secret."""
        return {"out_shape": list(self._spec.out_shape), "in_shape": list(self._spec.in_shape)}

    def __repr__(self) -> str:
        return f"Constant(out_shape={self._spec.out_shape}, in_shape={self._spec.in_shape})"


def _positive_shape(shape: tuple[int, int, int], what: str) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise RangeError(
            f"{what} is {tuple(shape)}; it must be three positive sizes with channels first, such as (3, 112, 112)"
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))
