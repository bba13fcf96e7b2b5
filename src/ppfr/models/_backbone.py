"""The contract of every recogniser here: an entry, named parts in a row, a head.

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

    An image network takes RGB in [0, 1]; whatever scaling it was trained with is its `entry`. A masked-input network
    takes the masker's output as it is: its `entry` does nothing.

    Attributes:
        dim: D, the embedding's length.
        in_shape: (K, P, Q) of one input.
        takes_image: the input is an RGB image (so it may be mirrored), not a masked one.
        tap_shapes: ordered, name of a part -> (C, P, Q) of the feature map after it.
        entry: input scaling and cutting; has no parameters.
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
        # A plain dict: a mappingproxy would bar copy.deepcopy and pickling to worker processes.
        self.tap_shapes: Mapping[str, Shape3] = self._measure_taps()

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments (less the seed), from which `build_network` makes the same architecture."""

    def forward(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, D), not normalised.

        Raises:
            ShapeError: another shape than `in_shape`.
        """
        return self.forward_taps(x_BKPQ, ())[0]

    def forward_until(self, x_BKPQ: Tensor, tap: str) -> Tensor:
        """The feature map after part `tap`, (B, C, P', Q') with C, P', Q' = `tap_shapes[tap]`.

        Raises:
            ShapeError: another shape than `in_shape`.
            InvalidInputError: no such tap.
        """
        self._check_taps([tap])
        features = self._enter(x_BKPQ)
        for name, part in self.parts.items():
            features = part(features)
            if name == tap:
                break
        return features

    def forward_from(self, features_BCPQ: Tensor, tap: str) -> Tensor:
        """Go on from the feature map after part `tap` to the embedding, (B, D).

        Raises:
            ShapeError: another shape than `tap_shapes[tap]`.
            InvalidInputError: no such tap.
        """
        self._check_taps([tap])
        check_shape(features_BCPQ, self.tap_shapes[tap], f"the feature map after {tap!r}")
        names = list(self.parts)
        features = features_BCPQ
        for name in names[names.index(tap) + 1 :]:
            features = self.parts[name](features)
        return self.head(features)

    def forward_taps(self, x_BKPQ: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The embedding (B, D), and the feature map after each part named in `taps`.

        Raises:
            ShapeError: another shape than `in_shape`.
            InvalidInputError: no such tap.
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
        check_shape(x_BKPQ, self.in_shape, "the network's input")
        return self.entry(x_BKPQ)

    def _check_taps(self, taps: Sequence[str]) -> None:
        unknown = [tap for tap in taps if tap not in self.parts]
        if unknown:
            raise InvalidInputError(f"no tap named {', '.join(unknown)}; this network has {', '.join(self.parts)}")

    def _measure_taps(self) -> dict[str, Shape3]:
        """One dry run on zeros, in evaluation mode so that no running statistic moves."""
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
            raise ShapeError(f"the head gives {tuple(out.shape[1:])} for one input; dim={self.dim} asks for a vector")
        return shapes


class PixelScaling(nn.Module):
    """RGB in [0, 1] -> (255 x - 127.5) / divisor, the scaling that recognisers of faces are trained with."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape, about [-1, 1]."""
        return x_BCHW * (255.0 / self.divisor) - 127.5 / self.divisor

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"divisor={self.divisor}"


def check_shape(x: Tensor, wanted: Shape3, what: str) -> None:
    """Raise ShapeError unless `x` is a batch of `wanted`."""
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(wanted):
        raise ShapeError(
            f"{what} has shape {tuple(x.shape)}; allowed is (B, {', '.join(map(str, wanted))}): "
            "give the output of the masker (or the size of crop) that this network was made for"
        )


def check_in_shape(in_shape: Sequence[int], *, smallest_grid: int) -> Shape3:
    """(K, P, Q) as a tuple of positive ints whose grid is at least `smallest_grid` on both sides."""
    shape = tuple(int(n) for n in in_shape)
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < smallest_grid:
        raise ShapeError(
            f"in_shape={tuple(in_shape)} is not (K, P, Q) with K >= 1 and a grid of at least "
            f"{smallest_grid}x{smallest_grid}; a masker's spec.out_shape is what belongs here"
        )
    return shape[0], shape[1], shape[2]


def num_strides(grid: tuple[int, int], *, most: int) -> int:
    """How many halvings bring the grid to about 7x7, at most `most`: 112 -> 4, 28 -> 2, 14 -> 1.

    A smaller grid keeps the late halvings and goes without the early ones, so that every part works at the resolution
    that it has in the full network.
    """
    halvings, side = 0, max(grid)
    while side > 10 and halvings < most:
        side = -(-side // 2)
        halvings += 1
    return halvings


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Within the block modules draw their first weights from `seed`; the caller's CPU generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every CUDA device outside the fork.
        torch.default_generator.manual_seed(seed)
        yield
