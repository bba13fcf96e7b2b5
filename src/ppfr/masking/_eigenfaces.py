"""Eigenfaces: mean and principal components of reference faces, and the range of each coefficient among them.

Shape suffixes: N images, C colours, H W pixels, K components.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
import torch

from ppfr.core import ImageSet, InvalidInputError, RangeError, ShapeError, derive_seed
from ppfr.data import float_images
from ppfr.frequency import luma
from ppfr.masking._front_end import check_choice
from ppfr.synthetic import SyntheticFaces

PictureColours = Literal["y", "rgb"]
BUILT_IN_PEOPLE = 512
_BUILT_IN_SEED = 20261122
_BATCH_SIZE = 256
_MIN_SINGULAR_VALUE = 1e-5  # relative to the largest; a component below it is rounding error
_ORTHONORMAL_TO = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Eigenfaces:
    """A public basis for faces: `mean + coefficients @ components` is an image.

    Attributes:
        mean: (C, H, W) float32, the mean image, C = 1 for grey and 3 for RGB.
        components: (K, C, H, W) float32, orthonormal, in descending order of variance.
        low: (K,) float32, the smallest coefficient of each component among the reference faces.
        high: (K,) float32, the largest; above `low`.
        origin: 32 bytes of identification: sha256 of the pixels and settings of the fit, so that a fit has the same
            identification on every machine although its last digits differ. By default the sha256 of the arrays.

    Raises:
        ShapeError: the shapes of the arrays do not match.
        RangeError: values are not finite, ranges are empty, or components are not orthonormal.

    Privacy:
        They are public and reveal properties of the reference faces. Fit them on faces that may be made public.
    """

    mean: np.ndarray
    components: np.ndarray
    low: np.ndarray
    high: np.ndarray
    origin: bytes = b""

    def __post_init__(self) -> None:
        for name in ("mean", "components", "low", "high"):
            array = np.array(getattr(self, name), np.float32, order="C")  # a copy that the caller cannot change
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        self._check()
        if not self.origin:
            digest = hashlib.sha256(b"eigenfaces/1/arrays")
            for array in (self.mean, self.components, self.low, self.high):
                digest.update(repr(array.shape).encode() + array.tobytes())
            object.__setattr__(self, "origin", digest.digest())
        elif len(self.origin) != hashlib.sha256().digest_size:
            raise ShapeError(f"origin has {len(self.origin)} bytes, a sha256 has 32; omit it to have it computed")

    def _check(self) -> None:
        num = len(self.components) if self.components.ndim == 4 else 0
        shapes = [array.shape for array in (self.mean, self.components, self.low, self.high)]
        if num < 1 or shapes != [shapes[1][1:], shapes[1], (num,), (num,)] or self.mean.shape[0] not in (1, 3):
            raise ShapeError(
                f"mean, components, low and high have shapes {', '.join(map(str, shapes))}; they must be (C, H, W), "
                "(K, C, H, W), (K,) and (K,) with C = 1 or 3: use Eigenfaces.fit"
            )
        if not all(np.isfinite(array).all() for array in (self.mean, self.components, self.low, self.high)):
            raise RangeError("eigenfaces contain values that are not finite; fit them again with Eigenfaces.fit")
        if not (self.high > self.low).all():
            raise RangeError("high must be above low for every component; fit on more images or use fewer components")
        flat_KF = self.components.reshape(num, -1)
        if np.abs(flat_KF @ flat_KF.T - np.eye(num)).max() > _ORTHONORMAL_TO:
            raise RangeError("components are not orthonormal; use Eigenfaces.fit, or orthonormalise them")

    @property
    def num_components(self) -> int:
        """K."""
        return len(self.components)

    @property
    def colours(self) -> PictureColours:
        """Colours of the images: grey ("y") or RGB ("rgb")."""
        return "y" if len(self.mean) == 1 else "rgb"

    @property
    def sha256(self) -> str:
        """`origin` in hexadecimal."""
        return self.origin.hex()

    @classmethod
    def fit(
        cls,
        images: ImageSet | np.ndarray,
        *,
        num_components: int,
        seed: int,
        colours: PictureColours = "y",
        max_images: int = 4000,
    ) -> Self:
        """Principal components of reference faces, by truncated SVD of the centred pixels in double precision (ARPACK).

        Args:
            images: the reference, an image set or (N, H, W, 3) uint8. Needs 8*C*H*W bytes per image: 400 MB for 4,000
                grey crops of 112x112.
            num_components: K, at least 1, below the number of images and of pixels.
            seed: root seed of the choice among more than `max_images` images and of the initial vector of the solver.
            colours: "y" for luma, "rgb" for the three colours side by side.
            max_images: number of images drawn without replacement from a larger set.

        Raises:
            ShapeError: there are no images, or they are not (N, H, W, 3) uint8.
            RangeError: K or another argument is outside its allowed range.
            InvalidInputError: the reference faces do not span K dimensions.
        """
        check_choice("colours", colours, ("y", "rgb"))
        chosen = _chosen(len(images), max_images, seed)
        pixels_NF, shape, pixels_sha256 = _flat_pixels(images, chosen, colours)
        most = min(pixels_NF.shape) - 1
        if not 1 <= num_components <= most:
            raise RangeError(
                f"num_components is {num_components}; {pixels_NF.shape[0]} images of {pixels_NF.shape[1]} values allow "
                f"1..{most}: use fewer components or more images"
            )
        mean_F = pixels_NF.mean(0)
        pixels_NF -= mean_F
        components_KF, singular_K = _leading(pixels_NF, num_components, seed)
        if not singular_K[-1] > _MIN_SINGULAR_VALUE * singular_K[0]:
            spanned = int((singular_K > _MIN_SINGULAR_VALUE * singular_K[0]).sum())
            raise InvalidInputError(
                f"the {len(chosen)} reference images span only {spanned} dimensions, fewer than num_components="
                f"{num_components}: use fewer components or more varied images"
            )
        coefficients_NK = pixels_NF @ components_KF.T
        facts = repr(("eigenfaces/1/fit", colours, num_components, seed, len(chosen), pixels_sha256))
        return cls(
            mean=mean_F.reshape(shape),
            components=components_KF.reshape(num_components, *shape),
            low=coefficients_NK.min(0),
            high=coefficients_NK.max(0),
            origin=hashlib.sha256(facts.encode()).digest(),
        )

    def arrays(self) -> Mapping[str, np.ndarray]:
        """All attributes as arrays, for a file; `from_arrays` is the inverse."""
        return {
            "mean": self.mean,
            "components": self.components,
            "low": self.low,
            "high": self.high,
            "origin": np.frombuffer(self.origin, np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Eigenfaces from the result of `arrays`.

        Raises:
            InvalidInputError: the names differ.
            ShapeError: the shapes of the arrays do not match.
            RangeError: values are not finite, ranges are empty, or components are not orthonormal.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(arrays) != names:
            raise InvalidInputError(
                f"eigenfaces consist of {', '.join(sorted(names))}, got {', '.join(sorted(arrays)) or 'none'}: "
                "pass the result of Eigenfaces.arrays()"
            )
        parts = {name: array for name, array in arrays.items() if name != "origin"}
        return cls(**parts, origin=np.asarray(arrays["origin"], np.uint8).tobytes())

    def __repr__(self) -> str:
        return f"Eigenfaces(components={self.components.shape}, sha256={self.sha256[:12]}...)"


@functools.lru_cache(maxsize=4)
def built_in_eigenfaces(num_components: int, colours: PictureColours, side_px: int) -> Eigenfaces:
    """Eigenfaces of synthetic people, one image per person. Takes some seconds at first use.

    Raises:
        RangeError: `num_components` is not below the number of images.
    """
    fitted = Eigenfaces.fit(
        _built_in_reference(side_px), num_components=num_components, seed=_BUILT_IN_SEED, colours=colours
    )
    return dataclasses.replace(fitted, origin=built_in_origin(num_components, colours, side_px))


@functools.lru_cache(maxsize=16)
def built_in_origin(num_components: int, colours: PictureColours, side_px: int) -> bytes:
    """`origin` of `built_in_eigenfaces`, computed from the version and arguments of the face generator alone."""
    facts = ("eigenfaces/1/built-in", num_components, colours, _built_in_reference(side_px).fingerprint())
    return hashlib.sha256(repr(facts).encode()).digest()


def _built_in_reference(side_px: int) -> SyntheticFaces:
    return SyntheticFaces(BUILT_IN_PEOPLE, 1, seed=_BUILT_IN_SEED, size=side_px)


def _chosen(num: int, most: int, seed: int) -> Sequence[int]:
    if most < 2:
        raise RangeError(f"max_images is {most}; principal components need at least 2 images")
    if num <= most:
        return range(num)
    draw = np.random.default_rng(derive_seed(seed, "eigenfaces", "images"))
    return sorted(int(index) for index in draw.choice(num, size=most, replace=False))


def _flat_pixels(
    images: ImageSet | np.ndarray, chosen: Sequence[int], colours: PictureColours
) -> tuple[np.ndarray, tuple[int, int, int], str]:
    """(N, C*H*W) float64 in [0, 1], the shape (C, H, W) of a row, and the sha256 of the source pixels."""
    digest = hashlib.sha256()
    rows: np.ndarray | None = None
    shape = (0, 0, 0)
    for start in range(0, len(chosen), _BATCH_SIZE):
        part = chosen[start : start + _BATCH_SIZE]
        read_BHWC = images[list(part)] if isinstance(images, np.ndarray) else images.read(part)
        if read_BHWC.ndim != 4 or read_BHWC.shape[-1] != 3 or read_BHWC.dtype != np.uint8:
            raise ShapeError(
                f"the reference is {read_BHWC.dtype} {tuple(read_BHWC.shape)}; it must be (N, H, W, 3) uint8, "
                "as ImageSet.read returns it"
            )
        digest.update(repr(read_BHWC.shape).encode() + np.ascontiguousarray(read_BHWC).tobytes())
        image_BCHW = float_images(read_BHWC, dtype=torch.float64)
        picture_BCHW = luma(image_BCHW) if colours == "y" else image_BCHW
        if rows is None:
            shape = (int(picture_BCHW.shape[1]), int(picture_BCHW.shape[2]), int(picture_BCHW.shape[3]))
            rows = np.empty((len(chosen), picture_BCHW[0].numel()))
        rows[start : start + len(part)] = picture_BCHW.flatten(1).numpy()
    if rows is None:
        raise ShapeError("the reference contains no images; pass (N, H, W, 3) uint8 or a non-empty image set")
    return rows, shape, digest.hexdigest()


def _leading(centred_NF: np.ndarray, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first right singular vectors (K, F) and singular values (K,), descending, with fixed signs."""
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(derive_seed(seed, "eigenfaces", "start")).standard_normal(min(centred_NF.shape))
    _, singular_K, components_KF = svds(centred_NF, k=num, v0=start, solver="arpack", return_singular_vectors="vh")
    order = np.argsort(-singular_K, kind="stable")
    components_KF, singular_K = components_KF[order], singular_K[order]
    largest_K = np.abs(components_KF).argmax(1)
    signs_K = np.sign(components_KF[np.arange(num), largest_K])
    return components_KF * signs_K[:, None], singular_K
