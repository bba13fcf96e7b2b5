"""Plain frequency channels, nothing hidden: the "-FD" baseline that protections in the frequency domain start from."""

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
    """Block-DCT channels on a fixed public scale: no shuffle, no mixing, no normalisation by the image.

    The coefficients of the planes on the [-128, 127] scale are divided by 128 * block, the largest that an orthonormal
    block DCT of such planes can give. DC is then the block's mean brightness in [-1, 1]; other channels are smaller,
    the higher the smaller, since the scale is the same for all.

    Args:
        front_end: "block" is a plain block DCT of the crop (28x28 grid at 112, block 8, stride 4); "upsampled" is the
            x8-upsampled one of the field's later papers (112x112 grid, block 8, stride does not apply).
        colours: "y" (luma only) or "ycbcr" (`num_channels` of each colour plane).
        block: side of a block, front_end="block" only.
        stride: step between blocks, front_end="block" only.
        num_channels: the lowest frequency channels in zig-zag order that are kept of each colour plane, DC among them
            if `keeps_dc`; block * block is the full frequency data. They are put out by ascending index block*u + v.
        keeps_dc: whether DC is kept, which is nearly a picture of the face.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument outside what is stated.

    Privacy:
        None. With all channels `ppfr.frequency.inverse_block_dct` gives the image back. It is what mixing and other
        protections in the frequency domain are compared with, and what they are applied to ("MixUp-FD").

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
        """What the coefficients were divided by: 128 * block."""
        return 128.0 * self._front_end.block

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """The channels of a batch; see `ImageMasker.mask`."""
        image_BCHW = check_image(image_BCHW, self._spec)
        batch = image_BCHW.shape[0]
        if batch == 0:
            return image_BCHW.new_empty(0, *self._spec.out_shape)
        pieces = image_BCHW.split(self._front_end.images_at_once(batch, image_BCHW.device))
        outputs = [self._front_end.channels_of(piece, centres_planes=True) / self.scale for piece in pieces]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

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
