"""Improved residual networks for faces, IR-18, IR-50 and IR-SE-50, for any input shape.

Shapes: `B` batch, `K P Q` the input's channels and grid, `C P Q` a feature map, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ppfr.core import InvalidInputError
from ppfr.models._backbone import (
    Backbone,
    PixelScaling,
    Shape3,
    check_in_shape,
    halve,
    initialise,
    num_strides,
    weights_drawn_from,
)
from ppfr.models._prelu import PReLU

_SE_REDUCTION = 16


class IResNet(Backbone):
    """3x3 stem at full resolution, four stages of residual units, BatchNorm-Dropout-Linear-BatchNorm.

    Taps, with their grid for a 112x112 input: "stem" (112), "stage1" (56), "stage2" (28), "stage3" (14), "stage4" (7).
    Every stage starts with stride 2. A 28x28 or 14x14 input skips the strides of the first stages.

    Args:
        in_shape: (K, P, Q), any number of channels and any grid of at least 7x7.
        dim: D, the embedding length.
        units: residual units per stage; (2, 2, 2, 2) is IR-18, (3, 4, 14, 3) is IR-50.
        widths: channels per stage.
        has_se: squeeze-and-excitation in every unit.
        dropout: probability before the last fully connected layer.
        takes_image: the input is RGB in [0, 1], which the network scales to [-1, 1]. False takes a masked input
            unchanged. None means True for three channels.
        seed: seeds the initial weights.

    Raises:
        ShapeError: `in_shape` is not (K, P, Q) with a grid of at least 7x7.
        InvalidInputError: units or widths are not four positive numbers, dim is below 1, or dropout is outside [0, 1).

    References:
        Deng et al. "ArcFace", CVPR 2019; Hu et al. "Squeeze-and-excitation", CVPR 2018; methods 0.2.
    """

    def __init__(
        self,
        in_shape: Shape3 = (3, 112, 112),
        dim: int = 512,
        units: Sequence[int] = (2, 2, 2, 2),
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        has_se: bool = False,
        dropout: float = 0.4,
        takes_image: bool | None = None,
        seed: int,
    ) -> None:
        if len(units) != 4 or len(widths) != 4 or min(*units, *widths) < 1 or dim < 1 or not 0 <= dropout < 1:
            raise InvalidInputError(
                f"units={tuple(units)}, widths={tuple(widths)}, dim={dim}, dropout={dropout}; units and "
                "widths must be four positive numbers each, dim >= 1 and 0 <= dropout < 1"
            )
        shape = check_in_shape(in_shape, smallest_grid=7)
        is_image = shape[0] == 3 if takes_image is None else takes_image
        self_config = {"units": list(units), "widths": list(widths), "has_se": has_se, "dropout": dropout}
        with weights_drawn_from(seed):
            parts, grid = _parts(shape, tuple(units), tuple(widths), has_se=has_se)
            head = nn.Sequential(
                nn.BatchNorm2d(widths[-1]),
                nn.Dropout(dropout),
                nn.Flatten(),
                nn.Linear(widths[-1] * grid[0] * grid[1], dim),
                nn.BatchNorm1d(dim, affine=False),
            )
            for module in (*parts.values(), head):
                initialise(module)
        super().__init__(
            in_shape=shape,
            dim=dim,
            takes_image=is_image,
            entry=PixelScaling(127.5) if is_image else nn.Identity(),
            parts=parts,
            head=head,
        )
        self._config = self_config

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments, without the seed."""
        return {"in_shape": list(self.in_shape), "dim": self.dim, "takes_image": self.takes_image, **self._config}


def ir18(
    in_shape: Shape3 = (3, 112, 112),
    dim: int = 512,
    *,
    dropout: float = 0.4,
    takes_image: bool | None = None,
    seed: int,
) -> IResNet:
    """IR-18: two units per stage. Arguments as for `IResNet`."""
    return IResNet(in_shape, dim, (2, 2, 2, 2), dropout=dropout, takes_image=takes_image, seed=seed)


def ir50(
    in_shape: Shape3 = (3, 112, 112),
    dim: int = 512,
    *,
    dropout: float = 0.4,
    takes_image: bool | None = None,
    seed: int,
) -> IResNet:
    """IR-50: 3, 4, 14, 3 units. Arguments as for `IResNet`."""
    return IResNet(in_shape, dim, (3, 4, 14, 3), dropout=dropout, takes_image=takes_image, seed=seed)


def ir_se50(
    in_shape: Shape3 = (3, 112, 112),
    dim: int = 512,
    *,
    dropout: float = 0.4,
    takes_image: bool | None = None,
    seed: int,
) -> IResNet:
    """IR-SE-50: IR-50 with squeeze-and-excitation in every unit. Arguments as for `IResNet`."""
    return IResNet(in_shape, dim, (3, 4, 14, 3), has_se=True, dropout=dropout, takes_image=takes_image, seed=seed)


class IRUnit(nn.Module):
    """BN-conv-BN-PReLU-conv(stride)-BN, optionally with squeeze-and-excitation, plus a shortcut.

    The shortcut is the input, subsampled by the stride, or a strided 1x1 convolution where the channels change.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, has_se: bool) -> None:
        super().__init__()
        self.shortcut: nn.Module
        if channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        else:
            self.shortcut = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        layers: list[nn.Module] = [
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            PReLU(channels_out),
            nn.Conv2d(channels_out, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        if has_se:
            layers.append(SqueezeExcitation(channels_out))
        self.residual = nn.Sequential(*layers)

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Feature map -> feature map."""
        result: Tensor = self.shortcut(x_BCPQ) + self.residual(x_BCPQ)
        return result


class SqueezeExcitation(nn.Module):
    """Weights the channels with two 1x1 convolutions of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // _SE_REDUCTION)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Same shape."""
        result: Tensor = x_BCPQ * self.gate(x_BCPQ)
        return result


def _parts(
    in_shape: Shape3, units: tuple[int, ...], widths: tuple[int, ...], *, has_se: bool
) -> tuple[dict[str, nn.Module], tuple[int, int]]:
    """The named parts and the grid after the last part."""
    grid = in_shape[1:]
    halvings = num_strides(grid, max_halvings=4)
    strides = [1] * (4 - halvings) + [2] * halvings
    before = widths[0]
    parts: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            nn.Conv2d(in_shape[0], before, 3, padding=1, bias=False), nn.BatchNorm2d(before), PReLU(before)
        )
    }
    for number, (num, width, stride) in enumerate(zip(units, widths, strides, strict=True), start=1):
        first = IRUnit(before, width, stride=stride, has_se=has_se)
        others = (IRUnit(width, width, stride=1, has_se=has_se) for _ in range(num - 1))
        parts[f"stage{number}"] = nn.Sequential(first, *others)
        before = width
    return parts, halve(grid, halvings)
