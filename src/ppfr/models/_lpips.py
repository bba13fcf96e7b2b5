"""LPIPS: a perceptual distance between images, trained on human judgements, with SqueezeNet 1.1 features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ppfr.assets import WEIGHTS_VARIABLE, Asset, find_asset, weights_root
from ppfr.core import MissingAssetError, MissingWeightsError, RangeError, ShapeError

LPIPS_ASSET = Asset(
    name="lpips_squeeze.safetensors",
    sha256="6090f8f626c2d780c19fce5d7e96f016580516a7831b4e1634cfa1afa4e12240",
    licence="BSD-2-Clause (LPIPS); SqueezeNet 1.1 as in torchvision (BSD-3-Clause), trained on ImageNet",
    note="It is LPIPS v0.1 of github.com/richzhang/PerceptualSimilarity at 082bb24f and its SqueezeNet 1.1, the "
    "tensors under their own names in one safetensors file; no public source serves it so.",
)
_REMEDY = f"Give --weights DIR (or set {WEIGHTS_VARIABLE}) to a directory that holds it."
MIN_SIDE_PX = 17  # a smaller image is empty after the third pooling layer

# Layer index in SqueezeNet -> output channels, for the layers whose features are compared.
_TAPS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class _Fire(nn.Module):
    """The fire module of SqueezeNet: a 1x1 squeeze layer, then parallel 1x1 and 3x3 convolutions."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        squeezed = functional.relu(self.squeeze(x_BCHW))
        return functional.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class Lpips(nn.Module):
    """LPIPS v0.1 with SqueezeNet 1.1.

    The network is frozen and in evaluation mode. Gradients reach the images, so it can be used as a loss. The
    constructor does not load weights; use `Lpips.from_weights`.

    References:
        R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a
        perceptual metric", CVPR 2018, Eq. 1.
        F. Iandola et al., "SqueezeNet", arXiv 1602.07360 (version 1.1 of the authors' repository).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            _pool(),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            _pool(),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            _pool(),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        for number, channels in enumerate(_TAPS.values()):
            self.add_module(f"lin{number}", nn.Conv2d(channels, 1, 1, bias=False))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Lpips:
        """Stay in evaluation mode, so that the metric does not change while a module that contains it is trained."""
        super().train(False)
        return self

    @classmethod
    def from_weights(cls, weights_dir: Path | None = None) -> Lpips:
        """Load `lpips_squeeze.safetensors`, which must contain exactly the tensors of the network.

        Args:
            weights_dir: directory of the file; by default the one in the environment variable PPFR_WEIGHTS.

        Raises:
            MissingWeightsError: the file is missing; names it, its sha256, the places searched and the remedy.
            ChecksumError: the file has other content.
        """
        if weights_dir is None:
            try:
                weights_dir = weights_root()
            except MissingAssetError as error:
                raise MissingWeightsError(
                    LPIPS_ASSET.name,
                    looked_in=error.looked_in,
                    remedy=f"{_REMEDY} {LPIPS_ASSET.note}",
                    sha256=LPIPS_ASSET.sha256,
                ) from error
        path = find_asset(LPIPS_ASSET, [Path(weights_dir)], remedy=_REMEDY, error=MissingWeightsError)
        network = cls()
        network.load_state_dict(load_file(path), strict=True)
        return network

    def forward(self, image_a_BCHW: Tensor, image_b_BCHW: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            image_a_BCHW: (B, 3, H, W) RGB in [0, 1], at least 17 pixels per side.
            image_b_BCHW: the same shape and range.

        Returns:
            (B,), 0 for identical images.

        Raises:
            ShapeError: shapes differ, are not RGB, or are too small.
        """
        shape = image_a_BCHW.shape
        if shape != image_b_BCHW.shape or len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < MIN_SIDE_PX:
            raise ShapeError(
                f"images have shapes {tuple(shape)} and {tuple(image_b_BCHW.shape)}; "
                f"both must be (B, 3, H, W) with at least {MIN_SIDE_PX} pixels per side"
            )
        # One forward pass for both images: half the calls, and equal rounding.
        x = torch.cat([image_a_BCHW, image_b_BCHW])
        x = (2 * x - 1 - self.shift) / self.scale
        distance = x.new_zeros(shape[0])
        compared = 0
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _TAPS:
                distance = distance + self._compare(x, compared)
                compared += 1
        return distance

    def _compare(self, features: Tensor, number: int) -> Tensor:
        # If all channels are zero, the root has no derivative. Adding 1e-20 gives it one without changing any value.
        direction = features / ((features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)
        a, b = direction.chunk(2)
        weighted: Tensor = self.get_submodule(f"lin{number}")((a - b).square())
        return weighted.mean(dim=(1, 2, 3))

    @torch.no_grad()
    def distance(self, image_a_NCHW: np.ndarray, image_b_NCHW: np.ndarray) -> np.ndarray:
        """The same for NumPy batches, as `ppfr.metrics.lpips` takes it. Computed on the device of the network.

        Raises:
            ShapeError: see `forward`.
            RangeError: values are outside [0, 1] or not finite.
        """
        batches = [np.ascontiguousarray(image, dtype=np.float32) for image in (image_a_NCHW, image_b_NCHW)]
        for batch in batches:
            if batch.size and not (batch.min() >= 0 and batch.max() <= 1):
                raise RangeError("images have values outside [0, 1] or not finite; clamp recovered images first")
        device = next(self.parameters()).device
        a, b = (torch.from_numpy(batch).to(device) for batch in batches)
        found: np.ndarray = self(a, b).cpu().numpy()
        return found
