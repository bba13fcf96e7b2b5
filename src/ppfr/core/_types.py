"""Value types that packages exchange: specifications of maskers, results of attacks, mixed batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from ppfr.core._errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Shape3 = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpec:
    """Specification of a masker's output; the conformance tests check every field.

    Attributes:
        in_shape: (C, H, W) of the aligned crop that it takes, RGB in [0, 1].
        out_shape: (K, P, Q) of the masked image of one face.
        value_range: (low, high) of all output values; infinite if unbounded.
        is_stochastic: whether two calls on one image with different `rng` differ.
        is_keyed: whether there are secret parameters, which `with_new_secret` draws again.
        is_trainable: whether gradients reach parameters of the masker.
        is_differentiable: whether gradients reach the image.
        bytes_per_face: size of the masked image as sent (float16 unless the masker documents otherwise).
    """

    in_shape: Shape3
    out_shape: Shape3
    value_range: tuple[float, float]
    is_stochastic: bool
    is_keyed: bool
    is_trainable: bool
    is_differentiable: bool
    bytes_per_face: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdditiveNoise:
    """Noise that a masker adds to values of known centre, as everybody who knows the method can compute it.

    F is the number of values of one image. Values are independent of each other, given the image.

    Attributes:
        law: distribution of the noise of every value.
        scale_F: its scale, the standard deviation for "gaussian": 0 where the value is sent as it is, infinite where
            the noise is of another kind and nothing is stated.
        values: masked images (B, K, P, Q) -> (B, F) noisy values.
        centre: plain images (B, C, H, W) -> (B, F) the same values without noise.
    """

    law: Literal["laplace", "gaussian"]
    scale_F: Tensor
    values: Callable[[Tensor], Tensor]
    centre: Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttackResult:
    """Output of an attack: one row per observed image or template, in the order of the observation.

    Attributes:
        recovered_NCHW: recovered faces, RGB in [0, 1], or None if the attack recovers none.
        embeddings_ND: estimated identity embeddings, of norm 1, or None.
        solved_N: whether each row fits the observation, as the attack reports; None if it does not.
        notes: facts of the run for the report (steps, final training loss, images/s).
    """

    recovered_NCHW: Tensor | None = None
    embeddings_ND: np.ndarray | None = None
    solved_N: np.ndarray | None = None
    notes: Mapping[str, float | int | str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recovered_NCHW is None and self.embeddings_ND is None:
            raise InvalidInputError("an AttackResult needs recovered_NCHW or embeddings_ND; both are None")

    def __repr__(self) -> str:
        parts = [n for n in ("recovered_NCHW", "embeddings_ND") if getattr(self, n) is not None]
        return f"AttackResult(has={parts}, values=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedBatch:
    """A batch whose rows are mixtures of k images.

    Attributes:
        values_BKPQ: mixed masked images.
        labels_Bk: the k class indices of each row, int64.
        weights_Bk: the k mixing weights of each row, rows sum to 1. Positive, or 0 in a row of fewer than k images.
        partners_Bk: the k rows of the batch that each row is mixed from, int64; the first is the row itself.
    """

    values_BKPQ: Tensor
    labels_Bk: Tensor
    weights_Bk: Tensor
    partners_Bk: Tensor
