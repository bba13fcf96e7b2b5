"""Known-plaintext attack: reproduces the deployment from one known photo, undoes its mixing, and recovers faces.

Shape suffixes: B batch, N observed faces, C colour, H W pixels, K masked channels, P Q masked grid, F features of a
grid position, T pixels of a grid position (all colours).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn import functional

from ppfr.attacks._fresh_secret import FreshSecret
from ppfr.attacks._networks import FACE_SHAPE
from ppfr.attacks._threats import check_masker, check_observation
from ppfr.core import (
    Attack,
    AttackResult,
    ImageMasker,
    ImageSet,
    MaskedImagesWithPairs,
    ObservedImages,
    PpfrError,
    RangeError,
    ThreatModel,
    UnsupportableError,
    derive_seed,
)
from ppfr.data import float_images

if TYPE_CHECKING:
    from torch import Tensor

Recover = Callable[["Tensor", "Tensor", ImageMasker], Any]
Unmask = Callable[["Tensor", Any], "Tensor"]
_MAX_POSITIONS = 200_000
_CHUNK = 64


def known_pair_threat() -> ThreatModel:
    """An adversary who reads masked images, and has one photo of somebody else together with its masked image."""
    return ThreatModel(
        name="reader of masked images with one known photo",
        sees=MaskedImagesWithPairs,
        knows_secret=False,
        knows_recogniser=False,
    )


@final
class KnownPlaintextRecovery(Attack):
    """Recovers faces in closed form, without training a network.

    `recover` reproduces the deployment from the known pair, and `unmask` undoes its mixing with what was recovered. A
    ridge regression, fitted on public faces that are masked by the reproduced deployment and unmasked, estimates the
    pixels of each grid position from the unmasked channels around it. A masker without a secret needs neither step, so
    the regression is applied to its output: this is the attack on controls.

    Args:
        recover: from known photos, their masked images and the method under another secret to a masker that equals the
            deployment, as `ppfr.masking.recover_shuffles`. It refuses a method that it cannot express.
        unmask: from masked images and what `recover` returned to channels in public order, as `ppfr.masking.unmix`.
        num_faces: most public faces for the regression. Fewer are used where 200,000 grid positions suffice.
        reach: the regression uses channels up to this many grid positions away.
        ridge: penalty of the regression, relative to the mean variance of the channels.

    Raises:
        RangeError: an argument outside what is stated.

    Threat model:
        `known_pair_threat()`.
    """

    def __init__(
        self, *, recover: Recover, unmask: Unmask, num_faces: int = 256, reach: int = 2, ridge: float = 0.1
    ) -> None:
        if num_faces < 1 or reach < 0 or not ridge > 0:
            raise RangeError(
                f"num_faces={num_faces}, reach={reach}, ridge={ridge}; give at least 1, at least 0 and more than 0"
            )
        self._recover, self._unmask = recover, unmask
        self._num_faces, self._reach, self._ridge = num_faces, reach, ridge
        self._method: ImageMasker | None = None
        self._is_keyed = False
        self._image_NCHW = torch.empty(0, *FACE_SHAPE)
        self._reproduced: tuple[Tensor, ImageMasker, _PixelRegression] | None = None

    @property
    def name(self) -> str:
        """Name for records."""
        return "known-plaintext-recovery"

    @property
    def label(self) -> str:
        """Name in tables."""
        return "Known-plaintext recovery"

    @property
    def needs(self) -> ThreatModel:
        """Masked images and one known pair."""
        return known_pair_threat()

    def public_config(self) -> Mapping[str, Any]:
        """Constructor arguments, for the record."""
        return {
            "attack": self.name,
            "recover": self._recover.__name__,
            "unmask": self._unmask.__name__,
            "num_faces": self._num_faces,
            "reach": self._reach,
            "ridge": self._ridge,
        }

    def fit(self, masker: ImageMasker, public: ImageSet, *, seed: int) -> Mapping[str, Any]:
        """Choose public faces, and try the recovery on a deployment of the adversary's own.

        Raises:
            ThreatModelError: the deployed masker instead of a simulation.
            UnsupportableError: the mapping of this masker cannot be recovered, or its grid does not divide the image.
            InvalidInputError: the recovery fails on the adversary's own deployment.
        """
        check_masker(masker, self.needs, attack=self.name)
        begun = time.perf_counter()
        rng = torch.Generator().manual_seed(derive_seed(seed, "attack", self.name))
        self._is_keyed = isinstance(masker, FreshSecret)
        self._method = masker.draw(rng=rng) if isinstance(masker, FreshSecret) else masker
        _, rows, columns = masker.spec.out_shape
        if FACE_SHAPE[1] % rows or FACE_SHAPE[1] // rows * columns != FACE_SHAPE[2]:
            raise UnsupportableError(
                f"{masker.name}: a grid of {rows}x{columns} does not divide a face of {FACE_SHAPE[1]}x{FACE_SHAPE[2]} "
                "into squares; recover faces with a trained attack instead"
            )
        num = min(self._num_faces, len(public), max(1, _MAX_POSITIONS // (rows * columns)))
        chosen = torch.randperm(len(public), generator=rng)[:num].tolist()
        self._image_NCHW = float_images(public.read(chosen))
        if self._is_keyed:
            one_1CHW = self._image_NCHW[:1]
            self._recover(one_1CHW, self._method.mask(one_1CHW, rng=rng), self._method)
        self._reproduced = None
        return {"num_faces": num, "wall_s": round(time.perf_counter() - begun, 2)}

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        """Recover the faces; see `Attack.run`.

        Raises:
            PpfrError: before `fit`.
            ThreatModelError, ShapeError: another observation than `fit` prepared for.
            InvalidInputError: the known pair does not determine the mapping.
        """
        if self._method is None:
            raise PpfrError(f"{self.name} has no public faces; call fit(masker, public, seed=...) first")
        check_observation(seen, self.needs, self._method.spec.out_shape, attack=self.name)
        assert isinstance(seen, MaskedImagesWithPairs)  # checked
        deployment, regression = self._reproduce(seen.known_BCHW, seen.known_BKPQ, seed=seed)
        faces = [regression(self._unmasked(part.float(), deployment)) for part in seen.images_NKPQ.split(_CHUNK)]
        notes = {"num_known_pairs": len(seen.known_BCHW), "num_faces": len(self._image_NCHW)}
        return AttackResult(recovered_NCHW=torch.cat(faces), notes=notes)

    def _reproduce(self, known_BCHW: Tensor, known_BKPQ: Tensor, *, seed: int) -> tuple[ImageMasker, _PixelRegression]:
        """The deployment and the regression for it; kept until another known pair comes."""
        assert self._method is not None  # checked
        if self._reproduced is None or not torch.equal(self._reproduced[0], known_BKPQ):
            deployment = self._recover(known_BCHW, known_BKPQ, self._method) if self._is_keyed else self._method
            rng = torch.Generator().manual_seed(derive_seed(seed, "attack", self.name, "public faces"))
            channels = [
                self._unmasked(deployment.mask(part, rng=rng), deployment) for part in self._image_NCHW.split(_CHUNK)
            ]
            regression = _PixelRegression(torch.cat(channels), self._image_NCHW, reach=self._reach, ridge=self._ridge)
            self._reproduced = known_BKPQ, deployment, regression
        return self._reproduced[1:]

    def _unmasked(self, masked_BKPQ: Tensor, deployment: ImageMasker) -> Tensor:
        return self._unmask(masked_BKPQ, deployment) if self._is_keyed else masked_BKPQ

    def __repr__(self) -> str:
        return f"KnownPlaintextRecovery({dict(self.public_config())})"


class _PixelRegression:
    """Pixels of a grid position from the channels around it: the mean face plus a linear map, the same everywhere."""

    def __init__(self, channels_NKPQ: Tensor, image_NCHW: Tensor, *, reach: int, ridge: float) -> None:
        self._reach, self._side = reach, image_NCHW.shape[2] // channels_NKPQ.shape[2]
        self._channel_mean_KPQ, self._face_mean_CHW = channels_NKPQ.mean(0), image_NCHW.mean(0)
        num_features = channels_NKPQ.shape[1] * (2 * reach + 1) ** 2
        gram_FF = torch.zeros(num_features, num_features, dtype=torch.float64)
        cross_FT = torch.zeros(num_features, 3 * self._side**2, dtype=torch.float64)
        for channels_BKPQ, image_BCHW in zip(channels_NKPQ.split(8), image_NCHW.split(8), strict=True):
            features_SF = self._features(channels_BKPQ).transpose(1, 2).flatten(0, 1)
            pixels_BTPQ = functional.pixel_unshuffle(image_BCHW - self._face_mean_CHW, self._side)
            pixels_ST = pixels_BTPQ.flatten(2).transpose(1, 2).flatten(0, 1)
            gram_FF += (features_SF.T @ features_SF).double()
            cross_FT += (features_SF.T @ pixels_ST).double()
        damping = (ridge * gram_FF.diagonal().mean()).clamp_min(1e-12)
        eye = torch.eye(num_features, dtype=torch.float64)
        self._map_FT = torch.linalg.solve(gram_FF + damping * eye, cross_FT).float()

    def _features(self, channels_BKPQ: Tensor) -> Tensor:
        """(B, F, P * Q)."""
        centred = channels_BKPQ - self._channel_mean_KPQ
        return functional.unfold(centred, 2 * self._reach + 1, padding=self._reach)

    def __call__(self, channels_BKPQ: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1]."""
        pixels_BTS = self._map_FT.T @ self._features(channels_BKPQ)
        pixels_BTPQ = pixels_BTS.unflatten(2, channels_BKPQ.shape[2:])
        residual_BCHW = functional.pixel_shuffle(pixels_BTPQ, self._side)
        return (self._face_mean_CHW + residual_BCHW).clamp(0.0, 1.0)
