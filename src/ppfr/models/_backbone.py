"""The base class of all recognition networks: an entry, a sequence of named parts, and a head.

Shapes: `B` batch, `K P Q` the input's channels and grid, `C P Q` a feature map, `D` embedding.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppfr.core import InvalidInputError, ShapeError

Shape3 = tuple[int, int, int]


class Backbone(nn.Module, ABC):
    """A network from a plain or masked image to an embedding, made of named parts that can be tapped and replaced.

    An image network takes RGB in [0, 1], and its `entry` applies the scaling it was trained with. A masked-input
    network takes the output of the masker unchanged, and its `entry` does nothing.

    Attributes:
        dim: D, the embedding length.
        in_shape: (K, P, Q) of one input.
        takes_image: the input is an RGB image, which may be mirrored, and not a masked image.
        tap_shapes: name of a part -> (C, P, Q) of the feature map after it, in order.
        entry: input scaling and cropping, without parameters.
        parts: the named parts, in order.
        head: last feature map -> (B, D), not normalised.
    """

    def __init__(
        self,
        *,
        in_shape: Shape3,
        dim: int,
        takes_image: bool,
        entry: nn.Module,
        parts: Mapping[str, nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.in_shape, self.dim, self.takes_image = in_shape, dim, takes_image
        self.entry = entry
        self.parts = nn.ModuleDict(parts)
        self.head = head
        # A plain dict, because a mappingproxy supports neither copy.deepcopy nor pickling to worker processes.
        self.tap_shapes: Mapping[str, Shape3] = self._measure_taps()

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments without the seed. `build_network` builds the same architecture from them."""

    def forward(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, D), not normalised.

        Raises:
            ShapeError: the shape is not `in_shape`.
        """
        return self.forward_taps(x_BKPQ, ())[0]

    def forward_until(self, x_BKPQ: Tensor, tap: str) -> Tensor:
        """The feature map after part `tap`, (B, C, P', Q') with C, P', Q' = `tap_shapes[tap]`.

        Raises:
            ShapeError: the shape is not `in_shape`.
            InvalidInputError: the tap is unknown.
        """
        self._check_taps([tap])
        features = self._enter(x_BKPQ)
        for name, part in self.parts.items():
            features = part(features)
            if name == tap:
                break
        return features

    def forward_from(self, features_BCPQ: Tensor, tap: str) -> Tensor:
        """The embedding, (B, D), computed from the feature map after part `tap`.

        Raises:
            ShapeError: the shape is not `tap_shapes[tap]`.
            InvalidInputError: the tap is unknown.
        """
        self._check_taps([tap])
        check_shape(features_BCPQ, self.tap_shapes[tap], f"the feature map after {tap!r}")
        names = list(self.parts)
        features = features_BCPQ
        for name in names[names.index(tap) + 1 :]:
            features = self.parts[name](features)
        result: Tensor = self.head(features)
        return result

    def forward_taps(self, x_BKPQ: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The embedding (B, D), and the feature map after each part named in `taps`.

        Raises:
            ShapeError: the shape is not `in_shape`.
            InvalidInputError: the tap is unknown.
        """
        self._check_taps(taps)
        features = self._enter(x_BKPQ)
        tapped: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            features = part(features)
            if name in taps:
                tapped[name] = features
        return self.head(features), tapped

    def _enter(self, x_BKPQ: Tensor) -> Tensor:
        check_shape(x_BKPQ, self.in_shape, "the input of the network")
        result: Tensor = self.entry(x_BKPQ)
        return result

    def _check_taps(self, taps: Sequence[str]) -> None:
        unknown = [tap for tap in taps if tap not in self.parts]
        if unknown:
            raise InvalidInputError(f"unknown tap {', '.join(unknown)}; available: {', '.join(self.parts)}")

    def _measure_taps(self) -> dict[str, Shape3]:
        """A forward pass on zeros, in evaluation mode so that running statistics do not change."""
        was_training = self.training
        self.eval()
        shapes: dict[str, Shape3] = {}
        first = next(self.parameters())
        with torch.no_grad():
            features = self.entry(torch.zeros(1, *self.in_shape, device=first.device, dtype=first.dtype))
            for name, part in self.parts.items():
                features = part(features)
                shapes[name] = (features.shape[1], features.shape[2], features.shape[3])
            out = self.head(features)
        self.train(was_training)
        if out.shape != (1, self.dim):
            raise ShapeError(
                f"the output of the head is {tuple(out.shape[1:])} per input; expected a vector of length "
                f"dim={self.dim}"
            )
        return shapes


class PixelScaling(nn.Module):
    """RGB in [0, 1] -> (255 x - 127.5) / divisor, the usual input scaling of face recognition networks."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape, about [-1, 1]."""
        return x_BCHW * (255.0 / self.divisor) - 127.5 / self.divisor

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"divisor={self.divisor}"


def check_shape(x: Tensor, expected: Shape3, what: str) -> None:
    """Raise ShapeError unless `x` is a batch of `expected`."""
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(expected):
        raise ShapeError(
            f"{what} has shape {tuple(x.shape)}; expected (B, {', '.join(map(str, expected))}): "
            "use the masker (or the crop size) that this network was built for"
        )


def check_in_shape(in_shape: Sequence[int], *, smallest_grid: int) -> Shape3:
    """(K, P, Q) as a tuple of positive ints whose grid is at least `smallest_grid` on both sides."""
    shape = tuple(int(n) for n in in_shape)
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < smallest_grid:
        raise ShapeError(
            f"in_shape={tuple(in_shape)} is not (K, P, Q) with K >= 1 and a grid of at least "
            f"{smallest_grid}x{smallest_grid}; use the spec.out_shape of the masker"
        )
    return shape[0], shape[1], shape[2]


def num_strides(grid: tuple[int, int], *, max_halvings: int) -> int:
    """Number of halvings that reduce the grid to about 7x7, at most `max_halvings`: 112 -> 4, 28 -> 2, 14 -> 1.

    A smaller grid skips the early halvings and keeps the late ones, so that every part has the same resolution as in
    the full network.
    """
    halvings, side = 0, max(grid)
    while side > 10 and halvings < max_halvings:
        side = -(-side // 2)
        halvings += 1
    return halvings


def halve(grid: tuple[int, int], times: int) -> tuple[int, int]:
    """The grid after that many layers of stride 2, which round up."""
    for _ in range(times):
        grid = (-(-grid[0] // 2), -(-grid[1] // 2))
    return grid


def initialise(module: nn.Module) -> None:
    """He-normal convolutions, Xavier-normal fully connected layers; PReLU and BatchNorm keep their defaults."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # Use the fan-in: the fan-out of a depthwise weight counts every channel and would make it nearly zero.
            nn.init.kaiming_normal_(layer.weight, a=0.25)
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@contextlib.contextmanager
def weights_drawn_from(seed: int) -> Iterator[None]:
    """Within the block, modules draw their initial weights from `seed`.

    The state of torch's CPU generator is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed every CUDA device outside the fork.
        torch.default_generator.manual_seed(seed)
        yield
