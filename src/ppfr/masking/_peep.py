"""PEEP: Laplace noise on eigenface coefficients, and the picture that the noisy coefficients give.

Shape suffixes: B batch, C colours, H W pixels, F = C*H*W, K components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Generator, Tensor

from ppfr.core import ImageMasker, InvalidInputError, MaskSpec, RangeError, ShapeError
from ppfr.frequency import luma
from ppfr.masking._checks import check_image
from ppfr.masking._eigenfaces import (
    BUILT_IN_PEOPLE,
    Eigenfaces,
    PictureColours,
    built_in_eigenfaces,
    built_in_origin,
)
from ppfr.masking._front_end import check_word

_NUM_COMPONENTS = 128
_BUILT_IN_SIDES = range(32, 1025, 2)


@final
class Peep(ImageMasker):
    """What leaves the device is a picture made of eigenface coefficients with Laplace noise on each.

    The crop (grey, [0, 1]) is projected on public eigenfaces. Each coefficient is scaled to [0, 1] by its range among
    the reference faces, and clipped to it; Laplace(0, 1/eps) noise is added, drawn anew for every coefficient of every
    image; the scaling is undone, the picture rebuilt and clipped to [0, 1].

    Args:
        eps: privacy parameter of one coefficient, above 0; smaller is noisier. The noise's standard deviation is
            sqrt(2)/eps of the coefficient's range.
        num_components: eigenfaces used; all that are given, or 128 of the built-in ones.
        eigenfaces: from `Eigenfaces.fit`, or their `arrays()`; None for built-in ones, which are fitted to synthetic
            faces when they are first needed (some seconds) and need a square crop of an even side.
        eigenfaces_sha256: refuse other eigenfaces than those of this name, as `public_config` gives it.
        colours: "y" for a grey picture, "rgb" for a coloured one.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument outside what is stated.
        ShapeError: eigenfaces of another size than the crop.
        InvalidInputError: eigenfaces of another name or other colours, or none for such a crop.

    Privacy:
        Local differential privacy of each coefficient by itself at `eps`: between any two faces, the odds of an outcome
        for that coefficient differ by a factor of at most e^eps, whatever is done to it afterwards. The picture shows K
        coefficients, for which that composes to K*eps: 384 with the defaults, a factor of e^384, which promises
        nothing; and several pictures of one person compose again. A picture at such an eps is noisy, not private in the
        formal sense; an eps of 3 for the whole picture is eps=3/K here, and leaves nothing to recognise.
        The proof is about real numbers: noise in floating point, from a generator that is not a cryptographic one and
        without the snapping of Mironov (CCS 2012), keeps it only in approximation.

    References:
        Chamikara, Bertok, Khalil, Liu, Camtepe: "Privacy Preserving Face Recognition Utilizing Differential Privacy",
        Computers & Security 2020, arXiv 2005.10486. Used as an image protection as in PartialFace, MinusFace (eps 5)
        and AdaMixUp (eps 3). Deviations are listed in docs/methods/peep.md.
    """

    def __init__(
        self,
        *,
        eps: float = 3.0,
        num_components: int | None = None,
        eigenfaces: Eigenfaces | Mapping[str, np.ndarray] | None = None,
        eigenfaces_sha256: str | None = None,
        colours: PictureColours = "y",
        in_shape: tuple[int, int, int] = (3, 112, 112),
    ) -> None:
        check_word("colours", colours, ("y", "rgb"))
        if not 0 < eps < math.inf:
            raise RangeError(f"eps is {eps}; it must be above 0 and finite: 3 and 5 are usual, smaller is noisier")
        if len(in_shape) != 3 or in_shape[0] != 3 or min(in_shape) < 2:
            raise RangeError(f"in_shape is {tuple(in_shape)}; it must be (3, H, W) with H and W at least 2")
        self._eps, self._colours = float(eps), colours
        self._in_shape = (3, int(in_shape[1]), int(in_shape[2]))
        self._given = _taken(eigenfaces)
        self._num_components = self._number_of_components(num_components)
        self._tensors: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        if eigenfaces_sha256 is not None and self.eigenfaces_sha256 != eigenfaces_sha256:
            kind = "built-in eigenfaces" if self._given is None else "given eigenfaces"
            raise InvalidInputError(
                f"the {kind} are {self.eigenfaces_sha256[:12]}..., those asked for are {eigenfaces_sha256[:12]}...: "
                "give the ones that the configuration was made with"
            )

    def _number_of_components(self, asked: int | None) -> int:
        """K, after what it depends on was checked."""
        given, (_, height, width) = self._given, self._in_shape
        if given is not None:
            if given.colours != self._colours:
                raise InvalidInputError(f"the eigenfaces are of colours={given.colours!r}, asked is {self._colours!r}")
            if given.mean.shape[1:] != (height, width):
                raise ShapeError(
                    f"the eigenfaces are {given.mean.shape[1]}x{given.mean.shape[2]}, the crop is {height}x{width}: "
                    "fit them on crops of that size"
                )
            if asked not in (None, given.num_components):
                raise RangeError(f"num_components is {asked}, the eigenfaces have {given.num_components}: leave it out")
            return given.num_components
        if height != width or height not in _BUILT_IN_SIDES:
            raise InvalidInputError(
                f"in_shape is {self._in_shape}: built-in eigenfaces are square, of an even side from 32 to 1024; give "
                "eigenfaces=Eigenfaces.fit(...) of crops of that size"
            )
        num = _NUM_COMPONENTS if asked is None else asked
        if not 1 <= num < BUILT_IN_PEOPLE:
            raise RangeError(
                f"num_components is {num}; there are 1..{BUILT_IN_PEOPLE - 1} built-in ones: ask for fewer, or give "
                "eigenfaces=Eigenfaces.fit(...)"
            )
        return num

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "peep"

    @property
    def spec(self) -> MaskSpec:
        """A picture in [0, 1], of one colour or three."""
        _, height, width = self._in_shape
        out_shape = (1 if self._colours == "y" else 3, height, width)
        return MaskSpec(
            in_shape=self._in_shape,
            out_shape=out_shape,
            value_range=(0.0, 1.0),
            is_stochastic=True,
            is_keyed=False,
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=2 * math.prod(out_shape),
        )

    @property
    def eigenfaces(self) -> Eigenfaces:
        """The eigenfaces, which are public; the built-in ones are fitted when they are first asked for."""
        if self._given is not None:
            return self._given
        return built_in_eigenfaces(self._num_components, self._colours, self._in_shape[1])

    @property
    def eigenfaces_sha256(self) -> str:
        """Their name, which for the built-in ones is known before they are fitted."""
        if self._given is not None:
            return self._given.sha256
        return built_in_origin(self._num_components, self._colours, self._in_shape[1]).hex()

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """Mask a batch; see `ImageMasker.mask`."""
        image_BCHW = check_image(image_BCHW, self.spec)
        picture_BCHW = luma(image_BCHW) if self._colours == "y" else image_BCHW
        mean_F, components_KF, low_K, range_K = self._on(image_BCHW.device)
        scaled_BK = ((picture_BCHW.flatten(1) - mean_F) @ components_KF.mT - low_K) / range_K
        noise_BK = _laplace(len(image_BCHW), self._num_components, scale=1.0 / self._eps, rng=rng)
        noisy_BK = scaled_BK.clamp(0.0, 1.0) + noise_BK.to(image_BCHW.device)
        rebuilt_BF = mean_F + (low_K + noisy_BK * range_K) @ components_KF
        return rebuilt_BF.clamp(0.0, 1.0).view(picture_BCHW.shape)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, components, low and range on a device, kept there."""
        if device not in self._tensors:
            faces = self.eigenfaces
            with torch.inference_mode(False):
                self._tensors[device] = (
                    torch.tensor(faces.mean, device=device).flatten(),
                    torch.tensor(faces.components, device=device).flatten(1),
                    torch.tensor(faces.low, device=device),
                    torch.tensor(faces.high - faces.low, device=device),
                )
        return self._tensors[device]

    def guarantee(self) -> Mapping[str, Any]:
        """Of one coefficient, and by basic composition of them all."""
        eps_image = self._num_components * self._eps
        return {
            "eps_coefficient": self._eps,
            "num_coefficients": self._num_components,
            "eps_image": eps_image,
            "in_words": (
                f"peep: local differential privacy at eps {self._eps:g} of each eigenface's coefficient by itself. The "
                f"picture shows {self._num_components} of them, which compose to {eps_image:g}"
                + (": it promises nothing." if eps_image >= 10 else ".")
            ),
        }

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments but for the eigenfaces, which `public_arrays` gives; here is their name."""
        return {
            "eps": self._eps,
            "num_components": self._num_components,
            "eigenfaces_sha256": self.eigenfaces_sha256,
            "colours": self._colours,
            "in_shape": list(self._in_shape),
        }

    def public_arrays(self) -> Mapping[str, np.ndarray]:
        """The eigenfaces."""
        return {f"eigenfaces.{part}": array for part, array in self.eigenfaces.arrays().items()}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_tensors": {}}

    def __repr__(self) -> str:
        source = "built-in" if self._given is None else repr(self._given)
        return (
            f"Peep(eps={self._eps}, num_components={self._num_components}, eigenfaces={source}, "
            f"colours={self._colours!r}, in_shape={self._in_shape})"
        )


def _taken(eigenfaces: Eigenfaces | Mapping[str, np.ndarray] | None) -> Eigenfaces | None:
    if eigenfaces is None or isinstance(eigenfaces, Eigenfaces):
        return eigenfaces
    if not isinstance(eigenfaces, Mapping):
        raise InvalidInputError(f"eigenfaces is a {type(eigenfaces).__name__}; give Eigenfaces.fit(...) or None")
    return Eigenfaces.from_arrays(eigenfaces)


def _laplace(num_rows: int, num_columns: int, *, scale: float, rng: Generator) -> Tensor:
    """Laplace(0, scale) noise, (B, K) float32 on the CPU.

    The difference of two exponentials, -log(1 - u) each, which is finite for every u in [0, 1).
    """
    uniform_2BK = torch.rand(2, num_rows, num_columns, generator=rng, dtype=torch.float64)
    exponential_2BK = -torch.log1p(-uniform_2BK)
    return ((exponential_2BK[0] - exponential_2BK[1]) * scale).float()
