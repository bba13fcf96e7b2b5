"""Stem adapter: a new stem in front of a pretrained body, and the convolutional stem for masked inputs.

Shapes: `B` batch, `K P Q` the input's channels and grid, `C P Q` a feature map, `D` embedding.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import InvalidInputError, ShapeError
from ppfr.models._backbone import Backbone, Shape3, check_in_shape, check_shape, initialise, weights_drawn_from
from ppfr.models._prelu import PReLU

_UNSHUFFLE_MAX_CHANNELS = 256  # with more, the 3x3 convolution after the unshuffle costs more than strided ones


class ConvStem(nn.Module):
    """K x P x Q -> C x P' x Q': BatchNorm, resampling, residual 3x3 convolutions, linear 1x1. See `conv_stem`.

    Attributes:
        in_shape: (K, P, Q).
        out_shape: (C, P', Q').
    """

    def __init__(
        self, in_shape: Shape3, out_shape: Shape3, *, width: int, depth: int, reduce: str, norm_input: bool
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = in_shape, out_shape
        self.width, self.depth, self.reduce, self.norm_input = width, depth, reduce, norm_input
        factor = max(1, in_shape[1] // out_shape[1])
        self.norm = nn.BatchNorm2d(in_shape[0]) if norm_input else nn.Identity()
        self.reduction = _reduction(in_shape[0], width, factor, reduce)
        self.blocks = nn.Sequential(*(ResidualUnit(width) for _ in range(depth)))
        self.project = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, out_shape[0], 1))

    def forward(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, C, P', Q').

        Raises:
            ShapeError: the shape is not `in_shape`.
        """
        check_shape(x_BKPQ, self.in_shape, "the input of the stem")
        features = _fit_grid(self.reduction(self.norm(x_BKPQ)), self.out_shape[1:])
        result: Tensor = self.project(self.blocks(features))
        return result

    def config(self) -> dict[str, Any]:
        """JSON-ready arguments of `conv_stem`, without the seed."""
        return {
            "in_shape": list(self.in_shape),
            "out_shape": list(self.out_shape),
            "width": self.width,
            "depth": self.depth,
            "reduce": self.reduce,
            "norm_input": self.norm_input,
        }


class ResidualUnit(nn.Module):
    """x + BN-conv-BN-PReLU-conv-BN(x) with 3x3 convolutions, the residual unit of IResNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            PReLU(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Same shape."""
        result: Tensor = x_BCPQ + self.body(x_BCPQ)
        return result


def conv_stem(
    in_shape: Shape3,
    out_shape: Shape3,
    *,
    width: int = 96,
    depth: int = 4,
    reduce: str = "auto",
    norm_input: bool = True,
    seed: int,
) -> ConvStem:
    """A small convolutional network from a masked input to a feature map of a pretrained body.

    The grid is reduced by the factor P // P'. If the result is not (P', Q'), it is cropped to the middle columns (for a
    body that uses the middle of the image) or resampled bilinearly (27 -> 28, 14 -> 28).

    Args:
        in_shape: (K, P, Q), `spec.out_shape` of the masker.
        out_shape: (C, P', Q'), `tap_shapes[tap]` of the body.
        width: channels of the residual units.
        depth: number of residual units of two 3x3 convolutions each.
        reduce: how the grid is reduced. "unshuffle" moves pixels to channels, "stride" uses convolutions with stride 2
            (for factors that are powers of 2), and "auto" uses "unshuffle" if that gives at most 256 channels or the
            factor is not a power of 2.
        norm_input: apply BatchNorm to the input; the scales of masked channels differ by orders of magnitude.
        seed: seeds the initial weights.

    Raises:
        ShapeError: a shape is not three positive numbers (channels, rows, columns).
        InvalidInputError: width, depth or reduce is out of range.
    """
    shape_in, shape_out = check_in_shape(in_shape, smallest_grid=1), check_in_shape(out_shape, smallest_grid=1)
    if width < 1 or depth < 0:
        raise InvalidInputError(f"width={width}, depth={depth}; width must be at least 1 and depth at least 0")
    factor = max(1, shape_in[1] // shape_out[1])
    is_power_of_2 = factor & (factor - 1) == 0
    if reduce == "auto":
        fits = shape_in[0] * factor**2 <= _UNSHUFFLE_MAX_CHANNELS
        reduce = "unshuffle" if fits or not is_power_of_2 else "stride"
    if reduce not in {"unshuffle", "stride"}:
        raise InvalidInputError(f"unknown reduce={reduce!r}; use auto, unshuffle or stride")
    if reduce == "stride" and not is_power_of_2:
        raise InvalidInputError(
            f"reduce='stride' needs a power of 2, but {shape_in[1]} // {shape_out[1]} = {factor}; use 'unshuffle'"
        )
    with weights_drawn_from(seed):
        stem = ConvStem(shape_in, shape_out, width=width, depth=depth, reduce=reduce, norm_input=norm_input)
        initialise(stem)
    return stem


def _reduction(channels: int, width: int, factor: int, reduce: str) -> nn.Module:
    if reduce == "unshuffle":
        layers: list[nn.Module] = [nn.PixelUnshuffle(factor)] if factor > 1 else []
        channels *= factor**2
        return nn.Sequential(*layers, nn.Conv2d(channels, width, 3, padding=1, bias=False), *_norm_act(width))
    layers = []
    narrow = max(width // 2, 16)
    for step in range(factor.bit_length() - 1):
        is_last = step == factor.bit_length() - 2
        out = width if is_last else narrow
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), *_norm_act(out)]
        channels = out
    if not layers:
        layers = [nn.Conv2d(channels, width, 3, padding=1, bias=False), *_norm_act(width)]
    return nn.Sequential(*layers)


def _norm_act(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(width), PReLU(width)


def _fit_grid(x_BCPQ: Tensor, grid: tuple[int, ...]) -> Tensor:
    rows, columns = grid
    if x_BCPQ.shape[2] == rows and x_BCPQ.shape[3] > columns:
        first = (x_BCPQ.shape[3] - columns) // 2
        return x_BCPQ[..., first : first + columns]
    if tuple(x_BCPQ.shape[2:]) == (rows, columns):
        return x_BCPQ
    return functional.interpolate(x_BCPQ, size=(rows, columns), mode="bilinear", align_corners=False)


class StemAdapter(Backbone):
    """A pretrained body whose layers up to `tap` are replaced by a new stem.

    The later parts and the head of the body are copied. Training this network does not change `body`, so `body` can be
    its teacher. The output of the stem has the tap name `tap`, so student and teacher can be compared tap by tap.

    Args:
        stem: (B, *in_shape) -> (B, *body.tap_shapes[tap]); see `conv_stem`.
        body: the pretrained network.
        tap: the feature map of `body` that the stem produces.
        in_shape: (K, P, Q) of the input of the stem; by default `stem.in_shape`.
        takes_image: the input is a plain RGB image in [0, 1], which may be mirrored.

    Raises:
        InvalidInputError: `body` has no such tap, or neither the stem nor the caller gives in_shape.
        ShapeError: the output shape of the stem is not that of the feature map.
    """

    def __init__(
        self,
        stem: nn.Module,
        body: Backbone,
        tap: str,
        *,
        in_shape: Shape3 | None = None,
        takes_image: bool = False,
    ) -> None:
        if tap not in body.tap_shapes:
            raise InvalidInputError(f"unknown tap {tap}; this body has {', '.join(body.tap_shapes)}")
        stated = getattr(stem, "in_shape", None) if in_shape is None else in_shape
        if stated is None:
            raise InvalidInputError(
                "the stem has no in_shape; give in_shape=(K, P, Q), the spec.out_shape of the masker"
            )
        shape = check_in_shape(stated, smallest_grid=1)
        _check_stem(stem, shape, body.tap_shapes[tap])
        names = list(body.parts)
        parts = {tap: stem}
        parts.update({name: copy.deepcopy(body.parts[name]) for name in names[names.index(tap) + 1 :]})
        super().__init__(
            in_shape=shape,
            dim=body.dim,
            takes_image=takes_image,
            entry=nn.Identity(),
            parts=parts,
            head=copy.deepcopy(body.head),
        )
        self.tap = tap
        self._body_origin = {"architecture": type(body).__name__, "config": body.config()}

    @property
    def stem(self) -> nn.Module:
        """The new part, which is trained first."""
        return self.parts[self.tap]

    def body_parameters(self) -> list[nn.Parameter]:
        """The parameters of the body, which are unfrozen later."""
        new = {id(parameter) for parameter in self.stem.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in new]

    def config(self) -> dict[str, Any]:
        """JSON-ready description of stem, body and tap.

        Raises:
            InvalidInputError: the stem was not built by `conv_stem`, so its arguments are unknown.
        """
        if not isinstance(self.stem, ConvStem):
            raise InvalidInputError(
                f"the stem is a {type(self.stem).__name__}, whose arguments are unknown; "
                "build it with conv_stem to save the network, or save its state_dict yourself"
            )
        return {
            "stem": self.stem.config(),
            "body": self._body_origin,
            "tap": self.tap,
            "takes_image": self.takes_image,
        }


def _check_stem(stem: nn.Module, in_shape: Shape3, expected: Shape3) -> None:
    was_training = stem.training
    stem.eval()
    first = next(stem.parameters(), None)
    with torch.no_grad():
        out = stem(torch.zeros(1, *in_shape, device=None if first is None else first.device))
    stem.train(was_training)
    if tuple(out.shape[1:]) != tuple(expected):
        raise ShapeError(
            f"the output of the stem is {tuple(out.shape[1:])}, but the feature map of the body is {tuple(expected)}"
        )
