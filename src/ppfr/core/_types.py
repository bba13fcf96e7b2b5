"""Value types that cross package borders: what a masker promises, what an adversary knows, sees and finds."""

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThreatModel:
    """What an adversary knows and sees. The report prints it in words; the benchmark refuses a mismatch.

    Attributes:
        name: short name, as in "curious server".
        sees: the type of observation, one of `OBSERVATIONS`.
        knows_method: the protection's public description and parameters (Kerckhoffs: true unless stated).
        knows_secret: the deployment's secret parameters (permutations, mixing), or, which is the same, can mask
            images of its own choice with them.
        knows_recogniser: weights of the deployed recogniser.
        has_public_faces: faces of people who are not among the victims.
    """

    name: str
    sees: str
    knows_method: bool = True
    knows_secret: bool
    knows_recogniser: bool
    has_public_faces: bool = True

    def __post_init__(self) -> None:
        if self.sees not in OBSERVATIONS:
            raise InvalidInputError(f"sees={self.sees!r} is not one of {', '.join(OBSERVATIONS)}")

    def in_words(self) -> str:
        """One sentence for a reader of the report."""
        knows = [
            ("how the protection works", self.knows_method),
            ("the deployment's secret parameters", self.knows_secret),
            ("the recogniser's weights", self.knows_recogniser),
        ]
        known = " and ".join(text for text, is_known in knows if is_known) or "nothing of the system"
        unknown = " or ".join(text for text, is_known in knows if not is_known)
        own = "trains on faces of other people" if self.has_public_faces else "has no faces of its own"
        sentence = f"The adversary ({self.name}) sees {OBSERVATIONS[self.sees]}, knows {known}"
        return f"{sentence}{', does not know ' + unknown if unknown else ''}, and {own}."


OBSERVATIONS: Mapping[str, str] = {
    "masked_images": "each victim's masked images",
    "mixed_images": "each victim's masked images as training sees them, mixed with those of other people",
    "embeddings": "each victim's unprotected embeddings",
    "templates": "each victim's protected templates",
    "scores": "the score of each probe that it presents",
    "decisions": "the decision, yes or no, on each probe that it presents",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """Exactly what the adversary sees of the victims, and nothing else.

    Attributes:
        kind: one of `OBSERVATIONS`; checked against the threat model.
        values_NKPQ: masked images, (N, K, P, Q); or (N, D) for embeddings and templates.
    """

    kind: str
    values_NKPQ: Tensor

    def __post_init__(self) -> None:
        if self.kind not in OBSERVATIONS:
            raise InvalidInputError(f"kind={self.kind!r} is not one of {', '.join(OBSERVATIONS)}")

    def __repr__(self) -> str:
        return f"Observation(kind={self.kind!r}, num={len(self.values_NKPQ)}, values=<redacted>)"


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
