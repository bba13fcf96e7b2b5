"""What an adversary sees of the target subjects, one type per kind of observation, and its threat model.

Suffixes: N images, embeddings or templates; K P Q masked image; D embedding; in `Templates`, K template values.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, final

from ppfr.core._errors import InvalidInputError, RangeError, ShapeError, ThreatModelError
from ppfr.core._rows import unit_norms

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Observation(ABC):
    """Exactly what the adversary gets of the target subjects, and nothing else.

    The type says what is seen: a threat model grants a type, and an attack checks it with `ThreatModel.check`. An
    observation is either data (`MaskedImages`, `Templates`) or something to query (`ppfr.core.MatchOracle`).

    Attributes:
        kind: name in records, as in "masked_images".
        in_words: the same for readers of a report, after "The adversary sees". Committed records contain these texts.
    """

    __slots__ = ()
    kind: ClassVar[str]
    in_words: ClassVar[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _ImageObservation(Observation):
    images_NKPQ: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.images_NKPQ.shape)
        if len(shape) != 4 or shape[0] == 0:
            raise ShapeError(f"`images_NKPQ` has shape {shape}. Give (N, K, P, Q) with N >= 1.")
        if not bool(self.images_NKPQ.isfinite().all()):
            raise RangeError("`images_NKPQ` contains values that are not finite. Check the masker that made them.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num={len(self.images_NKPQ)}, images=<redacted>)"


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MaskedImages(_ImageObservation):
    """Masked images as they leave the device.

    Attributes:
        images_NKPQ: (N, K, P, Q) finite values, N >= 1.
    """

    kind = "masked_images"
    in_words = "each victim's masked images"


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MixedImages(_ImageObservation):
    """Masked images as in the training set, mixed with those of other people.

    Attributes:
        images_NKPQ: (N, K, P, Q) finite values, N >= 1.
    """

    kind = "mixed_images"
    in_words = "each victim's masked images as training sees them, mixed with those of other people"


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MaskedImagesWithPairs(_ImageObservation):
    """Masked images as they leave the device, and known pairs: photos of other people with their masked images.

    A known pair is weaker than the secret, and weaker than masking photos of one's own choice. An adversary who enrols
    at the deployment has one.

    Attributes:
        images_NKPQ: (N, K, P, Q) finite values, N >= 1.
        known_BCHW: (B, 3, H, W) RGB in [0, 1], B >= 1.
        known_BKPQ: (B, K, P, Q) finite values, the same photos masked under the deployment's secret.
    """

    kind = "masked_images_with_pairs"
    in_words = "each victim's masked images and one photo of somebody else together with its masked image"

    known_BCHW: Tensor
    known_BKPQ: Tensor

    def __post_init__(self) -> None:
        _ImageObservation.__post_init__(self)
        photos, masked = tuple(self.known_BCHW.shape), tuple(self.known_BKPQ.shape)
        if len(photos) != 4 or photos[0] == 0 or masked != (photos[0], *self.images_NKPQ.shape[1:]):
            raise ShapeError(
                f"Known photos have shape {photos} and their masked images {masked}. Give (B, 3, H, W) with B >= 1, "
                f"and (B, {', '.join(map(str, self.images_NKPQ.shape[1:]))})."
            )
        if not bool(self.known_BCHW.isfinite().all() and self.known_BKPQ.isfinite().all()):
            raise RangeError("The known pairs contain values that are not finite. Check the masker that made them.")


ObservedImages: TypeAlias = MaskedImages | MixedImages | MaskedImagesWithPairs
"""What attacks on masked images act on."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Embeddings(Observation):
    """Unprotected embeddings.

    Attributes:
        embeddings_ND: (N, D) rows of L2 norm 1, N >= 1.
    """

    kind = "embeddings"
    in_words = "each victim's unprotected embeddings"

    embeddings_ND: NDArray[Any]

    def __post_init__(self) -> None:
        unit_norms(self.embeddings_ND, "embeddings")

    def __repr__(self) -> str:
        return f"Embeddings(num={len(self.embeddings_ND)}, embeddings=<redacted>)"


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Templates(Observation):
    """Protected templates.

    Attributes:
        templates_NK: (N, K) finite values of any norm, N >= 1.
    """

    kind = "templates"
    in_words = "each victim's protected templates"

    templates_NK: NDArray[Any]

    def __post_init__(self) -> None:
        import numpy as np

        shape = self.templates_NK.shape
        if len(shape) != 2 or shape[0] == 0:
            raise ShapeError(f"`templates_NK` has shape {shape}. Give (N, K) with N >= 1.")
        if not np.isfinite(self.templates_NK).all():
            raise RangeError("`templates_NK` contains values that are not finite. Check the scheme that made them.")

    def __repr__(self) -> str:
        return f"Templates(num={len(self.templates_NK)}, templates=<redacted>)"


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThreatModel:
    """What an adversary knows and sees. The report prints it in words. A run refuses an attack that needs more.

    Attributes:
        name: short name, as in "curious server".
        sees: type of the observation, as in `MaskedImages`.
        knows_method: the protection's public description and parameters (Kerckhoffs: true unless stated otherwise).
        knows_secret: the deployment's secret parameters (permutations, mixing). An adversary who can mask images of its
            own choice with them counts as knowing them.
        knows_recogniser: weights of the deployed recogniser.
        has_public_faces: faces of people who are not target subjects.
    """

    name: str
    sees: type[Observation]
    knows_method: bool = True
    knows_secret: bool
    knows_recogniser: bool
    has_public_faces: bool = True

    def __post_init__(self) -> None:
        is_observation = inspect.isclass(self.sees) and issubclass(self.sees, Observation)
        if not (is_observation and hasattr(self.sees, "kind")):
            raise InvalidInputError(
                f"sees={self.sees!r} is not a type of observation. Give one, such as `ppfr.core.MaskedImages`."
            )

    def check(self, seen: Observation, *, attack: str) -> None:
        """Refuse an observation that is not of the granted type.

        Args:
            seen: the observation.
            attack: name of the attack, for the message.

        Raises:
            ThreatModelError: it is of another type.
        """
        if not isinstance(seen, self.sees):
            raise ThreatModelError(
                f"{attack} was given {type(seen).__name__}, but its threat model grants {self.sees.__name__} only"
            )

    def as_dict(self) -> Mapping[str, str | bool]:
        """JSON-ready, as in records: `sees` by its kind."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "sees": self.sees.kind}

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
        sentence = f"The adversary ({self.name}) sees {self.sees.in_words}, knows {known}"
        return f"{sentence}{', does not know ' + unknown if unknown else ''}, and {own}."
