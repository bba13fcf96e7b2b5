"""Toy faces and a toy recogniser: small enough to train attacks on in seconds, with people who can be told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ppfr.core import ImageMasker, MaskedImages, MaskSpec
from ppfr.models import Backbone, ModelCard, PixelScaling


class ToyFaces:
    """Each subject is a smooth coloured pattern on a common mean; each capture adds light and noise."""

    def __init__(self, num_subjects: int, num_each: int, *, first: int = 0, name: str = "toy-faces") -> None:
        common = np.random.default_rng(99).uniform(0.3, 0.7, size=(3, 5, 5))
        pixels = []
        for subject in range(first, first + num_subjects):
            rng = np.random.default_rng([7, subject])
            coarse = common + rng.uniform(-0.25, 0.25, size=(3, 5, 5))
            smooth = functional.interpolate(torch.from_numpy(coarse)[None], size=(112, 112), mode="bicubic")[0].numpy()
            for _ in range(num_each):
                face = smooth * rng.uniform(0.9, 1.1) + rng.normal(0.0, 0.02, size=smooth.shape)
                pixels.append((np.clip(face, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))
        self.pixels_NHWC, self.name = np.stack(pixels), name
        self.subject_ids = [f"s{first + i // num_each}" for i in range(num_subjects * num_each)]

    def __len__(self) -> int:
        return len(self.subject_ids)

    def read(self, indices) -> np.ndarray:
        return self.pixels_NHWC[list(indices)]

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.pixels_NHWC).permute(0, 3, 1, 2).float() / 255


class ToyRecogniser(Backbone):
    """Fixed random features of toy faces, centred so that people lie apart: taps of 28x28 and 14x14, 32 numbers."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(11)
            coarse = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.LeakyReLU(0.5))
            middle = nn.Sequential(nn.Conv2d(8, 16, 2, stride=2), nn.LeakyReLU(0.5))
            head = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(16 * 49, 32))
            super().__init__(
                in_shape=(3, 112, 112),
                dim=32,
                takes_image=True,
                entry=PixelScaling(127.5),
                parts={"coarse": coarse, "middle": middle},
                head=head,
            )
        faces = ToyFaces(64, 1, first=9000).tensor()
        with torch.no_grad():
            head[2].bias -= self(faces).mean(dim=0)

    def config(self):
        return {}


class MixedPixels(ImageMasker):
    """A linear protection: the colours of 2x2 pixels, mixed by a secret 12x12 matrix."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        orthogonal = np.linalg.qr(rng.normal(size=(12, 12)))[0]
        self._matrix = torch.from_numpy((orthogonal * rng.uniform(0.5, 2.0, size=12)).astype(np.float32))

    name = "mixed-pixels"
    spec = MaskSpec(
        in_shape=(3, 112, 112),
        out_shape=(12, 28, 28),
        value_range=(-float("inf"), float("inf")),
        is_stochastic=False,
        is_keyed=True,
        is_trainable=False,
        is_differentiable=True,
        bytes_per_face=12 * 28 * 28 * 2,
    )

    def mask(self, image_BCHW, *, rng):
        small = torch.nn.functional.avg_pool2d(image_BCHW, 2)
        return torch.einsum("lk,bkpq->blpq", self._matrix, torch.nn.functional.pixel_unshuffle(small, 2))

    def public_config(self):
        return {}

    def with_new_secret(self, *, rng):
        return MixedPixels(int(torch.randint(1 << 30, (1,), generator=rng)))


@pytest.fixture(scope="session")
def mixed_pixels() -> type[MixedPixels]:
    return MixedPixels


@pytest.fixture(scope="session")
def public() -> ToyFaces:
    """The attacker's faces: 128 people, 2 captures each."""
    return ToyFaces(128, 2, name="toy-public")


@pytest.fixture(scope="session")
def few() -> ToyFaces:
    """32 people, for tests that train two steps and look at anything but the result."""
    return ToyFaces(32, 1, first=300, name="toy-few")


@pytest.fixture(scope="session")
def targets() -> ToyFaces:
    """Target subjects: 24 other people, 2 captures each."""
    return ToyFaces(24, 2, first=500, name="toy-targets")


@pytest.fixture(scope="session")
def recogniser() -> ToyRecogniser:
    return ToyRecogniser().eval()


@pytest.fixture(scope="session")
def card(recogniser) -> ModelCard:
    return ModelCard(
        name="toy-recogniser",
        architecture="ToyRecogniser",
        config={},
        dim=recogniser.dim,
        in_shape=recogniser.in_shape,
        training_data="none: fixed random features",
        licence="MIT",
        source="this test",
    )


@pytest.fixture(scope="session")
def observe():
    """What the adversary sees of a set of faces through a masker."""

    def see(masker, faces) -> MaskedImages:
        rng = torch.Generator().manual_seed(3)
        return MaskedImages(images_NKPQ=masker.mask(faces.tensor(), rng=rng))

    return see
