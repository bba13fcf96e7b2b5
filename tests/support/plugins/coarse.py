from collections.abc import Mapping
from typing import Any, final

from torch import Generator, Tensor

from ppfr.core import ImageMasker, MaskSpec


@final
class Coarse(ImageMasker):
    """Averages over blocks: an example that protects nothing.

    Args:
        block: side of a block in pixels; divides the sides of the image.
        in_shape: (3, H, W) of the images.

    Privacy:
        None claimed.
    """

    def __init__(self, *, block: int = 8, in_shape: tuple[int, int, int] = (3, 112, 112)) -> None:
        self._block = block
        _, height, width = in_shape
        out_shape = (3, height // block, width // block)
        self._spec = MaskSpec(
            in_shape=in_shape,
            out_shape=out_shape,
            value_range=(0.0, 1.0),
            is_stochastic=False,  # True: every call draws anew
            is_keyed=False,  # True: a `secret` argument, and with_new_secret
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=2 * out_shape[0] * out_shape[1] * out_shape[2],  # float16
        )

    @property
    def name(self) -> str:
        return "coarse"

    @property
    def spec(self) -> MaskSpec:
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        return image_BCHW.unfold(2, self._block, self._block).unfold(3, self._block, self._block).mean((-1, -2))

    def public_config(self) -> Mapping[str, Any]:
        return {"block": self._block, "in_shape": self._spec.in_shape}
