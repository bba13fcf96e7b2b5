"""From an aligned crop to frequency channels: the part shared by all protections in the frequency domain."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from ppfr.core import RangeError
from ppfr.frequency import bdct_upsampled, block_dct, luma, rgb_to_ycbcr

FrontEndName = Literal["block", "upsampled"]
Colours = Literal["y", "ycbcr"]
_PIECE_FLOATS = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """One choice of front end.

    Attributes:
        kind: "block" is a plain block DCT of the crop, "upsampled" the x8-upsampled block DCT.
        colours: "y" for luma alone, "ycbcr" for Y, Cb and Cr.
        block: side of a block.
        stride: step between blocks; does not apply to "upsampled".
        in_shape: (3, H, W) of the crop.
        channels: frequency channels c = block*u + v of each colour plane, in output order.

    Raises:
        RangeError: an unknown `kind` or `colours`, or sizes that do not fit together.
    """

    kind: FrontEndName
    colours: Colours
    block: int
    stride: int
    in_shape: tuple[int, int, int]
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        check_front_end(self.kind, self.colours, self.block)
        self.grid()

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(K, P, Q): channels of all colours, and the grid."""
        return (len(self.channels) * (3 if self.colours == "ycbcr" else 1), *self.grid())

    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        shape, block, stride = self.in_shape, self.block, self.stride
        if len(shape) != 3 or shape[0] != 3 or min(shape) < 2:
            raise RangeError(f"in_shape is {tuple(shape)}; it must be (3, H, W) with H and W at least 2")
        height, width = int(shape[1]), int(shape[2])
        if self.kind == "upsampled":
            return height, width
        if not 1 <= stride <= block:
            raise RangeError(f"stride is {stride}; it must be in 1..block={block}")
        if height % stride or width % stride or min(height, width) < block:
            raise RangeError(
                f"in_shape {height}x{width} does not fit block {block} at stride {stride}: "
                "both sides must be multiples of the stride and not smaller than the block"
            )
        return height // stride, width // stride

    def channels_of(self, image_BCHW: Tensor, *, centres_planes: bool = False) -> Tensor:
        """Orthonormal DCT coefficients on the [0, 255] scale, (B, K, P, Q), of an image in [0, 1].

        Args:
            image_BCHW: RGB in [0, 1]; not checked again.
            centres_planes: subtract 128 from the planes of the plain block DCT, as the upsampled one always does. This
                changes DC only.
        """
        if self.kind == "upsampled":
            return bdct_upsampled(image_BCHW, colours=self.colours, channels=self.channels, checks_range=False)
        planes = luma(image_BCHW, scale=255.0) if self.colours == "y" else rgb_to_ycbcr(image_BCHW * 255.0)
        if centres_planes:
            planes = planes - 128.0
        return block_dct(planes, block=self.block, stride=self.stride, channels=self.channels)

    def mirrored(self, channels_BKPQ: Tensor) -> Tensor | None:
        """Coefficients of the mirrored image from those of the image; None if the blocks do not mirror onto each other.

        Mirroring reverses the columns of the grid and, within a block, the sign of the odd horizontal frequencies v.
        """
        if self.kind == "block" and (self.block - self.stride) % 2:
            return None  # `block_dct` pads one pixel more on the right than on the left
        signs = [1.0 - 2.0 * (channel % self.block % 2) for channel in self.channels]
        num_planes = 3 if self.colours == "ycbcr" else 1
        return channels_BKPQ.flip(-1) * channels_BKPQ.new_tensor(signs * num_planes)[:, None, None]

    def chunk_size(self, batch: int, device: torch.device) -> int:
        """Images per chunk. On a CPU, small chunks stay in cache; their size depends on the configuration only."""
        num, rows, columns = self.out_shape
        return max(1, _PIECE_FLOATS // (num * rows * columns)) if device.type == "cpu" else max(1, batch)


def check_front_end(kind: str, colours: str, block: int) -> None:
    """Check the names of a front end and its colours, and that the front end supports the block size.

    Raises:
        RangeError: they are not valid.
    """
    check_choice("front_end", kind, ("block", "upsampled"))
    check_choice("colours", colours, ("y", "ycbcr"))
    if kind == "upsampled" and block != 8:
        raise RangeError(f"block is {block}; the upsampled front end has blocks of 8: use block=8")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Check that an option has one of the allowed values.

    Raises:
        RangeError: it has not.
    """
    if value not in allowed:
        raise RangeError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
