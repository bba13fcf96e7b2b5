"""PEEP: Laplace noise on eigenface coefficients, and the picture rebuilt from the noisy coefficients.

Shape suffixes: B batch, C colours, H W pixels, F = C*H*W, K components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Generator, Tensor

from ppfr.core import AdditiveNoise, ImageMasker, InvalidInputError, MaskSpec, RangeError, ShapeError
from ppfr.frequency import luma
from ppfr.masking._checks import check_image
from ppfr.masking._dp_accountant import ARITHMETIC, EPOCHS_COMPOSE, SEEDED_IS_VOID, end_of_seeded_draws
from ppfr.masking._eigenfaces import (
    BUILT_IN_PEOPLE,
    Eigenfaces,
    PictureColours,
    built_in_eigenfaces,
    built_in_origin,
)
from ppfr.masking._front_end import check_choice
from ppfr.masking._grid_noise import Grid, SentValue, SystemNoise

_NUM_COMPONENTS = 128
_LARGEST_DRAW = 53 * math.log(2)  # of a generator, whose float64 numbers in [0, 1) have 53 bits
_BUILT_IN_SIDES = range(32, 1025, 2)


@final
class Peep(ImageMasker):
    """A picture rebuilt from eigenface coefficients with Laplace noise leaves the device.

    The crop (grey, [0, 1]) is projected on public eigenfaces. Each coefficient is scaled to [0, 1] by its range among
    the reference faces and clipped to [0, 1]. Laplace(0, 1/eps) noise is drawn independently for every coefficient of
    every image and added. The scaling is inverted, and the picture is rebuilt and clipped to [0, 1].

    Args:
        eps: privacy parameter of one coefficient, above 0; smaller means more noise. The standard deviation of the
            noise is sqrt(2)/eps of the coefficient's range.
        num_components: number of eigenfaces. None means all given ones, or 128 of the built-in ones.
        eigenfaces: the result of `Eigenfaces.fit`, or its `arrays()`. None means the built-in ones, which are fitted to
            synthetic faces at first use (some seconds) and require a square crop with an even side.
        eigenfaces_sha256: expected checksum of the eigenfaces, as in `public_config`; others are rejected.
        colours: "y" for a grey picture, "rgb" for a coloured one.
        in_shape: (3, H, W) of the aligned crop.

    Raises:
        RangeError: an argument is outside its allowed range.
        ShapeError: the eigenfaces have another size than the crop.
        InvalidInputError: the eigenfaces have another checksum or other colours, or there are no built-in ones for this
            crop size.

    Privacy:
        Local differential privacy of each coefficient on its own at `eps`: between any two faces, the probability of an
        outcome for that coefficient differs by a factor of at most e^eps, also after any post-processing. The picture
        shows K coefficients, whose eps compose to K*eps. With the defaults this is 384, a factor of e^384, which is no
        meaningful guarantee. Several pictures of one person compose further. A picture at such an eps is noisy, but not
        private in the formal sense. An eps of 3 for the whole picture corresponds to eps=3/K here; such a picture
        cannot be recognised.
        The proof holds for the numbers as computed, with delta 0, if `rng` is None: coefficients and noise are whole
        steps of a grid (`docs/methods/peep.md`). It assumes that AES-256 in counter mode cannot be told from random
        bits. Nothing is proven about noise from a generator.

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
        check_choice("colours", colours, ("y", "rgb"))
        if not 0 < eps < math.inf:
            raise RangeError(f"eps is {eps}; it must be above 0 and finite; smaller means more noise")
        if len(in_shape) != 3 or in_shape[0] != 3 or min(in_shape) < 2:
            raise RangeError(f"in_shape is {tuple(in_shape)}; it must be (3, H, W) with H and W at least 2")
        self._eps, self._colours = float(eps), colours
        self._in_shape = (3, int(in_shape[1]), int(in_shape[2]))
        self._given = _as_eigenfaces(eigenfaces)
        self._num_components = self._checked_num_components(num_components)
        self._cache: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        if eigenfaces_sha256 is not None and self.eigenfaces_sha256 != eigenfaces_sha256:
            kind = "built-in eigenfaces" if self._given is None else "given eigenfaces"
            raise InvalidInputError(
                f"the {kind} have checksum {self.eigenfaces_sha256[:12]}..., expected {eigenfaces_sha256[:12]}...: "
                "pass the eigenfaces that the configuration was made with"
            )

    def _checked_num_components(self, requested: int | None) -> int:
        """K, after checking the crop size, the colours and the given eigenfaces."""
        given, (_, height, width) = self._given, self._in_shape
        if given is not None:
            if given.colours != self._colours:
                raise InvalidInputError(
                    f"the eigenfaces have colours={given.colours!r}, the masker {self._colours!r}: use the same"
                )
            if given.mean.shape[1:] != (height, width):
                raise ShapeError(
                    f"the eigenfaces are {given.mean.shape[1]}x{given.mean.shape[2]}, the crop is {height}x{width}: "
                    "fit them on crops of that size"
                )
            if requested not in (None, given.num_components):
                raise RangeError(
                    f"num_components is {requested}, the eigenfaces have {given.num_components}: omit num_components"
                )
            return given.num_components
        if height != width or height not in _BUILT_IN_SIDES:
            raise InvalidInputError(
                f"in_shape is {self._in_shape}: built-in eigenfaces are square with an even side from 32 to 1024; pass "
                "eigenfaces=Eigenfaces.fit(...) fitted on crops of this size"
            )
        num = _NUM_COMPONENTS if requested is None else requested
        if not 1 <= num < BUILT_IN_PEOPLE:
            raise RangeError(
                f"num_components is {num}; the built-in eigenfaces allow 1..{BUILT_IN_PEOPLE - 1}: use fewer, or pass "
                "eigenfaces=Eigenfaces.fit(...)"
            )
        return num

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "peep"

    @property
    def spec(self) -> MaskSpec:
        """A picture in [0, 1] with one or three colour channels."""
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
        """The eigenfaces, which are public. The built-in ones are fitted at first use."""
        if self._given is not None:
            return self._given
        return built_in_eigenfaces(self._num_components, self._colours, self._in_shape[1])

    @property
    def eigenfaces_sha256(self) -> str:
        """Checksum of the eigenfaces. That of the built-in ones is known before they are fitted."""
        if self._given is not None:
            return self._given.sha256
        return built_in_origin(self._num_components, self._colours, self._in_shape[1]).hex()

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask a batch; see `ImageMasker.mask`."""
        image_BCHW = check_image(image_BCHW, self.spec)
        picture_BCHW = luma(image_BCHW) if self._colours == "y" else image_BCHW
        mean_F, components_KF, low_K, range_K = self._tensors_on(image_BCHW.device)
        scaled_BK = self._scaled_coefficients(picture_BCHW)
        if rng is None:
            noisy_BK = self._on_grid(scaled_BK)
        else:
            noise_BK = _laplace(len(image_BCHW), self._num_components, scale=1.0 / self._eps, rng=rng)
            noisy_BK = scaled_BK.clamp(0.0, 1.0) + noise_BK.to(image_BCHW.device)
        rebuilt_BF = mean_F + (low_K + noisy_BK * range_K) @ components_KF
        return rebuilt_BF.clamp(0.0, 1.0).view(picture_BCHW.shape)

    def noise(self) -> AdditiveNoise:
        """Laplace noise of the eigenface coefficients; see `ImageMasker.noise`.

        Coefficients are read from the sent picture, whose values are clamped to [0, 1]: they are exact where nothing
        was clamped.
        """
        return AdditiveNoise(
            law="laplace",
            scale_F=torch.full((self._num_components,), 1.0 / self._eps),
            values=self._scaled_coefficients,
            centre=lambda image_BCHW: self._scaled_coefficients(
                luma(image_BCHW) if self._colours == "y" else image_BCHW
            ).clamp(0.0, 1.0),
        )

    def _scaled_coefficients(self, picture_BCHW: Tensor) -> Tensor:
        """(B, K): in [0, 1] for pictures within the ranges of the eigenfaces."""
        mean_F, components_KF, low_K, range_K = self._tensors_on(picture_BCHW.device)
        return ((picture_BCHW.flatten(1) - mean_F) @ components_KF.mT - low_K) / range_K

    def _on_grid(self, scaled_BK: Tensor) -> Tensor:
        """Clipped values on a grid of 256 steps per noise scale, plus whole steps drawn from the operating system."""
        device = scaled_BK.device
        drawn_BK = SystemNoise(len(scaled_BK)).steps(self._num_components, device)
        eps_1 = torch.tensor([self._eps], dtype=torch.float64)
        low_1, range_1, scale_1 = (torch.full((1,), value, device=device) for value in (0.0, 1.0, 1.0 / self._eps))
        grid = Grid.of_ranges(low_1, range_1, scale_1, eps_1)
        with torch.no_grad():
            sent_BK = grid.send(scaled_BK.detach().clone(), drawn_BK)
        if not (torch.is_grad_enabled() and scaled_BK.requires_grad):
            return sent_BK
        sent: Tensor = SentValue.apply(scaled_BK.clamp(0.0, 1.0) + drawn_BK * grid.step_N, sent_BK)
        return sent

    def _tensors_on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, components, low and range on a device, cached per device."""
        if device not in self._cache:
            faces = self.eigenfaces
            with torch.inference_mode(False):
                self._cache[device] = (
                    torch.tensor(faces.mean, device=device).flatten(),
                    torch.tensor(faces.components, device=device).flatten(1),
                    torch.tensor(faces.low, device=device),
                    torch.tensor(faces.high - faces.low, device=device),
                )
        return self._cache[device]

    def guarantee(self, *, is_seeded: bool = False) -> Mapping[str, Any]:
        """The guarantee of one coefficient, and of all of them by basic composition."""
        eps_image = self._num_components * self._eps
        if is_seeded:
            return {
                "eps_coefficient": "inf",
                "num_coefficients": self._num_components,
                "eps_image": "inf",
                "delta": 1.0,
                "in_words": (
                    f"peep: no guarantee. {SEEDED_IS_VOID} "
                    + end_of_seeded_draws(np.full(self._num_components, self._eps), _LARGEST_DRAW)
                ),
            }
        return {
            "eps_coefficient": self._eps,
            "num_coefficients": self._num_components,
            "eps_image": eps_image,
            "delta": 0.0,
            "in_words": (
                f"peep: local differential privacy at eps {self._eps:g} of each eigenface coefficient on its own. The "
                f"picture shows {self._num_components} coefficients, whose eps compose to {eps_image:g}"
                + (": no meaningful guarantee. " if eps_image >= 10 else ". ")
                + f"{EPOCHS_COMPOSE} Who fits the eigenfaces holds plain faces of the reference set. {ARITHMETIC}"
            ),
        }

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments, with a checksum in place of the eigenfaces that `public_arrays` returns."""
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
        return vars(self) | {"_cache": {}}

    def __repr__(self) -> str:
        source = "built-in" if self._given is None else repr(self._given)
        return (
            f"Peep(eps={self._eps}, num_components={self._num_components}, eigenfaces={source}, "
            f"colours={self._colours!r}, in_shape={self._in_shape})"
        )


def _as_eigenfaces(eigenfaces: Eigenfaces | Mapping[str, np.ndarray] | None) -> Eigenfaces | None:
    if eigenfaces is None or isinstance(eigenfaces, Eigenfaces):
        return eigenfaces
    if not isinstance(eigenfaces, Mapping):
        raise InvalidInputError(f"eigenfaces is a {type(eigenfaces).__name__}; pass Eigenfaces.fit(...) or None")
    return Eigenfaces.from_arrays(eigenfaces)


def _laplace(num_rows: int, num_columns: int, *, scale: float, rng: Generator) -> Tensor:
    """Laplace(0, scale) noise, (B, K) float32 on the CPU.

    The difference of two exponential variables -log(1 - u), which are finite for every u in [0, 1).
    """
    uniform_2BK = torch.rand(2, num_rows, num_columns, generator=rng, dtype=torch.float64)
    exponential_2BK = -torch.log1p(-uniform_2BK)
    return ((exponential_2BK[0] - exponential_2BK[1]) * scale).float()
