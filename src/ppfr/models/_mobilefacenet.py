"""MobileFaceNet (Chen et al. 2018) for any input shape, including the exact variants of the pretrained networks.

Shapes: `B` batch, `K P Q` the input's channels and grid, `C P Q` a feature map, `D` embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One down-sampling bottleneck and the residual bottlenecks after it."""

    expand_down: int
    out: int
    num_residual: int
    expand_residual: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """Widths and constants of one variant.

    Attributes:
        stem: channels of the first two convolutions.
        stages: the three stages, at 28, 14 and 7 for a 112x112 input.
        width_last: channels of the last 1x1 convolution and of the depthwise convolution over the whole grid.
        eps: eps of every BatchNorm except the last.
        eps_last: eps of the BatchNorm of the embedding.
        has_fixed_last_gain: the embedding layer has a bias, and its BatchNorm has no gain (MXNet's `fix_gamma`).
        divisor: divisor of the pixel scaling.
        columns: half-open range of image columns that the network uses, or None for all.
    """

    stem: int
    stages: tuple[_Stage, _Stage, _Stage]
    width_last: int
    eps: float = 1e-5
    eps_last: float = 1e-5
    has_fixed_last_gain: bool = False
    divisor: float = 128.0
    columns: tuple[int, int] | None = None


_FULL = (
    _Stage(expand_down=128, out=64, num_residual=4, expand_residual=128),
    _Stage(expand_down=256, out=128, num_residual=6, expand_residual=256),
    _Stage(expand_down=512, out=128, num_residual=2, expand_residual=256),
)
_SMALL = (
    _Stage(expand_down=64, out=32, num_residual=1, expand_residual=64),
    _Stage(expand_down=128, out=64, num_residual=3, expand_residual=128),
    _Stage(expand_down=256, out=64, num_residual=1, expand_residual=128),
)
VARIANTS: Mapping[str, _Variant] = MappingProxyType(
    {
        "y1": _Variant(
            stem=64, stages=_FULL, width_last=512, eps=1e-3, eps_last=2e-5, has_fixed_last_gain=True, divisor=128.0
        ),
        "casia": _Variant(stem=64, stages=_FULL, width_last=512, divisor=127.5),
        "casia_112x96": _Variant(stem=64, stages=_FULL, width_last=512, divisor=128.0, columns=(8, 104)),
        "small": _Variant(stem=16, stages=_SMALL, width_last=256, divisor=127.5),
    }
)


class MobileFaceNet(Backbone):
    """MobileFaceNet: inverted bottlenecks, a depthwise convolution over the whole last grid, a linear embedding.

    Taps, with their grid for a 112x112 input: "stem" (56), "down28", "stage28", "down14", "stage14", "down7", "stage7";
    "downN" is the stride-2 bottleneck, "stageN" the residual ones after it. A 28x28 or 14x14 input skips the
    early strides, so "down28" of the former and "down14" of the latter keep their grid.

    Args:
        in_shape: (K, P, Q), any number of channels and any grid from 7x7 up.
        dim: D, the embedding length.
        variant: "y1", "casia", "casia_112x96" (uses columns 8 to 103 of an image) or "small" (a fast network of
            about a quarter of a million parameters).
        takes_image: the input is RGB in [0, 1] and is scaled inside; False takes a masked input unchanged. None
            means True for three channels.
        seed: seeds the initial weights.

    Raises:
        ShapeError: `in_shape` is not (K, P, Q) with a grid of at least 7x7.
        InvalidInputError: the variant is unknown, or dim is below 1.

    References:
        Chen, Liu, Gao, Han: "MobileFaceNets", CCBR 2018. Deviation: the trained networks that we load end their third
        stage with 256-wide bottlenecks, as InsightFace's y1 does.
    """

    def __init__(
        self,
        in_shape: Shape3 = (3, 112, 112),
        dim: int = 128,
        variant: str = "y1",
        *,
        takes_image: bool | None = None,
        seed: int,
    ) -> None:
        if variant not in VARIANTS:
            raise InvalidInputError(f"unknown variant {variant!r}; available: {', '.join(VARIANTS)}")
        if dim < 1:
            raise InvalidInputError(f"dim={dim} must be at least 1")
        shape = check_in_shape(in_shape, smallest_grid=7)
        is_image = shape[0] == 3 if takes_image is None else takes_image
        form = VARIANTS[variant]
        columns = form.columns if is_image and form.columns and shape[2] == 112 else None
        grid = (shape[1], columns[1] - columns[0] if columns else shape[2])
        with weights_drawn_from(seed):
            parts, last_grid = _parts(shape[0], grid, form)
            head = EmbeddingHead(form.stages[-1].out, form.width_last, last_grid, dim, form)
            for module in (*parts.values(), head):
                initialise(module)
        entry: list[nn.Module] = [PixelScaling(form.divisor)] if is_image else []
        if columns:
            entry.append(ColumnCut(*columns))
        super().__init__(
            in_shape=shape, dim=dim, takes_image=is_image, entry=nn.Sequential(*entry), parts=parts, head=head
        )
        self.variant = variant

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments, without the seed."""
        return {
            "in_shape": list(self.in_shape),
            "dim": self.dim,
            "variant": self.variant,
            "takes_image": self.takes_image,
        }


class ColumnCut(nn.Module):
    """Keeps columns `first` to `past_last - 1`."""

    def __init__(self, first: int, past_last: int) -> None:
        super().__init__()
        self.first, self.past_last = first, past_last

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, past_last - first)."""
        return x_BCHW[..., self.first : self.past_last]

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"{self.first}, {self.past_last}"


class ConvUnit(nn.Module):
    """Convolution without bias, BatchNorm, and one PReLU slope per channel, unless linear."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        eps: float,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, eps=eps)
        self.act = nn.Identity() if is_linear else PReLU(channels_out)

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Feature map -> feature map."""
        result: Tensor = self.act(self.norm(self.conv(x_BCPQ)))
        return result


class Bottleneck(nn.Module):
    """Expand (1x1), depthwise (3x3), project (1x1, linear); residual where stride is 1 and the channels agree."""

    def __init__(self, channels_in: int, expand: int, out: int, *, stride: int, is_residual: bool, eps: float) -> None:
        super().__init__()
        self.is_residual = is_residual
        self.expand = ConvUnit(channels_in, expand, 1, eps=eps)
        self.depthwise = ConvUnit(expand, expand, 3, stride=stride, padding=1, groups=expand, eps=eps)
        self.project = ConvUnit(expand, out, 1, eps=eps, is_linear=True)

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Feature map -> feature map."""
        out = self.project(self.depthwise(self.expand(x_BCPQ)))
        result: Tensor = x_BCPQ + out if self.is_residual else out
        return result


class EmbeddingHead(nn.Module):
    """1x1 convolution, depthwise convolution over the whole grid (linear), fully connected, BatchNorm."""

    def __init__(self, channels: int, width: int, grid: tuple[int, int], dim: int, form: _Variant) -> None:
        super().__init__()
        self.expand = ConvUnit(channels, width, 1, eps=form.eps)
        self.depthwise = ConvUnit(width, width, grid, groups=width, eps=form.eps, is_linear=True)
        self.linear = nn.Linear(width, dim, bias=form.has_fixed_last_gain)
        self.norm = nn.BatchNorm1d(dim, eps=form.eps_last)
        if form.has_fixed_last_gain:
            self.norm.weight.requires_grad_(False)

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """(B, C, P, Q) -> (B, D)."""
        result: Tensor = self.norm(self.linear(self.depthwise(self.expand(x_BCPQ)).flatten(1)))
        return result


def _parts(channels: int, grid: tuple[int, int], form: _Variant) -> tuple[dict[str, nn.Module], tuple[int, int]]:
    """The named parts and the grid after the last part."""
    halvings = num_strides(grid, max_halvings=4)
    strides = [1] * (4 - halvings) + [2] * halvings
    parts: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            ConvUnit(channels, form.stem, 3, stride=strides[0], padding=1, eps=form.eps),
            ConvUnit(form.stem, form.stem, 3, padding=1, groups=form.stem, eps=form.eps),
        )
    }
    before = form.stem
    for name, stage, stride in zip(("28", "14", "7"), form.stages, strides[1:], strict=True):
        parts[f"down{name}"] = Bottleneck(
            before, stage.expand_down, stage.out, stride=stride, is_residual=False, eps=form.eps
        )
        # As in casia_112x96 and y1, only the blocks after the down-sampling block are residual, even if a small grid
        # removes its stride.
        parts[f"stage{name}"] = nn.Sequential(
            *(
                Bottleneck(stage.out, stage.expand_residual, stage.out, stride=1, is_residual=True, eps=form.eps)
                for _ in range(stage.num_residual)
            )
        )
        before = stage.out
    return parts, halve(grid, halvings)
