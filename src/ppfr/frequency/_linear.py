"""Autograd for linear maps with an explicit adjoint: no saved tensors, and derivatives of any order."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class LinearMap(Protocol):
    """A linear map between tensors and its transpose."""

    def forward(self, x: Tensor) -> Tensor:
        """The map."""
        ...

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the transpose, for which <forward(x), y> = <x, transpose(y)>."""
        ...


class _Transposed:
    def __init__(self, linear: LinearMap) -> None:
        self._linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self._linear.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._linear.forward(y)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(linear: LinearMap, x: Tensor) -> Tensor:
        return linear.forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[LinearMap, Tensor], output: Tensor) -> None:
        ctx.linear = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, apply_linear(_Transposed(ctx.linear), grad)

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor) -> Tensor:
        return apply_linear(ctx.linear, tangent)


def apply_linear(linear: LinearMap, x: Tensor) -> Tensor:
    """`linear.forward(x)`, with `linear.adjoint` as its backward."""
    result: Tensor = _Apply.apply(linear, x)
    return result
