"""Plain frequency channels without protection: the "-FD" baseline of protections in the frequency domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Generator, Tensor

from ppfr.core import ImageMasker, MaskSpec
from ppfr.frequency import lowest_channels
from ppfr.masking._checks import check_image
from ppfr.masking._front_end import Colours, FrontEnd, FrontEndName, check_front_end

_ROUNDING = 1e-4


@final
class FrequencyChannels(ImageMasker):
    """Block-DCT channels on a fixed public scale: no shuffle, no mixing, no normalisation per image.

    The coefficients of the planes on the [-128, 127] scale are divided by 128 * block, the largest that an orthonormal
    block DCT of such planes can give. DC is then the mean brightness of the block in [-1, 1]. The scale is the same for
    all channels, so higher frequencies have smaller values.

    Args:
        front_end: "block" is a plain block DCT of the crop (28x28 grid at 112, block 8, stride 4); "upsampled" is the
            x8-upsampled block DCT of later papers (112x112 grid, block 8, no stride).
        colours: "y" (luma only) or "ycbcr" (`num_channels` of each colour plane).
        block: side of a block, front_end="block" only.
        stride: step between blocks, front_end="block" only.
        num_channels: number of lowest frequency channels, in zig-zag order, kept of each colour plane, including DC
            if `keeps_dc`. block * block keeps the full frequency data. The output is in ascending order of the index
            block*u + v.
        keeps_dc: whether DC is kept, which is almost a picture of the face.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument is outside its allowed range.

    Privacy:
        None. With all channels, `ppfr.frequency.inverse_block_dct` recovers the image. Mixing and other protections in
        the frequency domain are applied to these channels ("MixUp-FD") and compared with them.

    References:
        The "-FD" rows of AdaMixUp (arXiv 2403.10558), "applied to the full frequency data".
    """

    def __init__(
        self,
        *,
        front_end: FrontEndName = "block",
        colours: Colours = "y",
        block: int = 8,
        stride: int = 4,
        num_channels: int = 36,
        keeps_dc: bool = True,
        in_shape: tuple[int, int, int] = (3, 112, 112),
    ) -> None:
        check_front_end(front_end, colours, block)
        self._num_channels, self._keeps_dc = num_channels, bool(keeps_dc)
        kept = tuple(sorted(lowest_channels(num_channels, block=block, keeps_dc=self._keeps_dc)))
        self._front_end = FrontEnd(
            kind=front_end, colours=colours, block=block, stride=stride, in_shape=in_shape, channels=kept
        )
        out_shape = self._front_end.out_shape
        self._spec = MaskSpec(
            in_shape=(3, int(in_shape[1]), int(in_shape[2])),
            out_shape=out_shape,
            value_range=(-1.0 - _ROUNDING, 1.0 + _ROUNDING),
            is_stochastic=False,
            is_keyed=False,
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=2 * math.prod(out_shape),
        )

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "frequency"

    @property
    def spec(self) -> MaskSpec:
        """Output shape (K, P, Q); values in [-1, 1] up to rounding."""
        return self._spec

    @property
    def kept_channels(self) -> tuple[int, ...]:
        """Frequency channels c = block*u + v kept of each colour plane, ascending."""
        return self._front_end.channels

    @property
    def scale(self) -> float:
        """Divisor of the coefficients: 128 * block."""
        return 128.0 * self._front_end.block

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """The channels of a batch; see `ImageMasker.mask`."""
        image_BCHW = check_image(image_BCHW, self._spec)
        batch = image_BCHW.shape[0]
        if batch == 0:
            return image_BCHW.new_empty(0, *self._spec.out_shape)
        pieces = image_BCHW.split(self._front_end.chunk_size(batch, image_BCHW.device))
        outputs = [self._front_end.channels_of(piece, centres_planes=True) / self.scale for piece in pieces]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def mirrored(self, masked_BKPQ: Tensor) -> Tensor | None:
        """Exact up to rounding; None if block - stride is odd. See `ImageMasker.mirrored`."""
        return self._front_end.mirrored(masked_BKPQ)

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments; there is no secret."""
        return {
            "front_end": self._front_end.kind,
            "colours": self._front_end.colours,
            "block": self._front_end.block,
            "stride": self._front_end.stride,
            "num_channels": self._num_channels,
            "keeps_dc": self._keeps_dc,
            "in_shape": list(self._spec.in_shape),
        }

    def __repr__(self) -> str:
        return f"FrequencyChannels({', '.join(f'{name}={value!r}' for name, value in self.public_config().items())})"
