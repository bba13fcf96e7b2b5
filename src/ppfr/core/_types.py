"""Value types that cross package borders: what a masker promises, what an attack returns, a mixed batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ppfr.core._errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Shape3 = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpec:
    """What a masker promises about its output; the conformance tests hold it to every field.

    Attributes:
        in_shape: (C, H, W) of the aligned crop it takes, RGB in [0, 1].
        out_shape: (K, P, Q) of what leaves the device for one face.
        value_range: (low, high) that every output value lies in; infinities where it is unbounded.
        is_stochastic: two calls on one image with different `rng` differ.
        is_keyed: there are secret parameters, and `with_new_secret` draws others.
        is_trainable: gradients reach parameters of the masker.
        is_differentiable: gradients reach the image.
        bytes_per_face: size of the masked image as it is sent (float16 unless the masker says otherwise).
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
class AttackResult:
    """What the adversary made of an observation, one row a victim image, in the order of the observation.

    Attributes:
        recovered_NCHW: recovered faces, RGB in [0, 1], or None if the attack makes none.
        embeddings_ND: guessed identity embeddings, unit norm, or None.
        solved_N: rows whose guess fits all that the adversary sees, as far as he can tell; None if he cannot.
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
        weights_Bk: the k mixing weights of each row, positive, rows sum to 1.
        partners_Bk: the k rows of the batch that each row is mixed from, int64; the first is the row itself.
    """

    values_BKPQ: Tensor
    labels_Bk: Tensor
    weights_Bk: Tensor
    partners_Bk: Tensor
