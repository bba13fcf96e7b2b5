"""LPIPS: a perceptual distance between two images, learned on human judgements, over SqueezeNet 1.1 features."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import ChecksumError, MissingWeightsError, RangeError, ShapeError

LPIPS_FILE = "lpips_squeeze.safetensors"
LPIPS_SHA256 = "6090f8f626c2d780c19fce5d7e96f016580516a7831b4e1634cfa1afa4e12240"
LEAST_SIDE_PX = 17  # below it nothing is left after the third pooling

# Output channels of the layers behind which features are compared, by the layer's place in SqueezeNet.
_TAPS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class _Fire(nn.Module):
    """SqueezeNet's block: few channels, then 1x1 and 3x3 convolutions side by side."""

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
    """LPIPS v0.1 with SqueezeNet 1.1. Frozen, in evaluation mode; gradients reach the images, so it serves as a loss.

    Built without weights it measures nothing; use `Lpips.from_weights`.

    References:
        R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a
        perceptual metric", CVPR 2018, Eq. 1.
        F. Iandola et al., "SqueezeNet", arXiv 1602.07360 (version 1.1 of the authors' repository).
    """

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
        """Stays in evaluation mode: a measure must not change while something that holds it is trained."""
        super().train(False)
        return self

    @classmethod
    def from_weights(cls, weights_dir: str | Path | None) -> Lpips:
        """Load `lpips_squeeze.safetensors` from a directory; every tensor is used and none is left over.

        Raises:
            MissingWeightsError: the file is not there, or no directory was given.
            ChecksumError: it is another file than the one named by `LPIPS_SHA256`.
        """
        path = None if weights_dir is None else Path(weights_dir) / LPIPS_FILE
        if path is None or not path.is_file():
            raise MissingWeightsError(
                LPIPS_FILE,
                looked_in=[] if weights_dir is None else [str(weights_dir)],
                remedy="Name the directory that holds it with --weights or PPFR_WEIGHTS.",
                sha256=LPIPS_SHA256,
            )
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != LPIPS_SHA256:
            raise ChecksumError(f"{path} has sha256 {found}, not {LPIPS_SHA256}; fetch the file again")
        try:
            tensors = load(data)
        except SafetensorError as error:  # pragma: no cover - the checksum above rules it out
            raise ChecksumError(f"{path} is not a safetensors file; fetch it again") from error
        network = cls()
        network.load_state_dict(tensors, strict=True)
        return network

    def forward(self, image_a_BCHW: Tensor, image_b_BCHW: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            image_a_BCHW: (B, 3, H, W) RGB in [0, 1], at least 17 pixels a side.
            image_b_BCHW: the same shape and range.

        Returns:
            (B,), 0 for identical images.

        Raises:
            ShapeError: shapes differ, are not RGB, or are too small.
        """
        shape = image_a_BCHW.shape
        if shape != image_b_BCHW.shape or len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < LEAST_SIDE_PX:
            raise ShapeError(
                f"images have shapes {tuple(shape)} and {tuple(image_b_BCHW.shape)}; "
                f"give two (B, 3, H, W) alike, of at least {LEAST_SIDE_PX} pixels a side"
            )
        # One pass for both images: half the calls, and the same rounding for each.
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
        direction = features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
        a, b = direction.chunk(2)
        weighted: Tensor = self.get_submodule(f"lin{number}")((a - b).square())
        return weighted.mean(dim=(1, 2, 3))

    @torch.no_grad()
    def distance(self, image_a_NCHW: np.ndarray, image_b_NCHW: np.ndarray) -> np.ndarray:
        """The same on NumPy batches, on the device the network is on; what `ppfr.metrics.lpips` takes as `network`.

        Raises:
            ShapeError: as `forward`.
            RangeError: values outside [0, 1] or not finite.
        """
        batches = [np.ascontiguousarray(image, dtype=np.float32) for image in (image_a_NCHW, image_b_NCHW)]
        for batch in batches:
            if batch.size and not (batch.min() >= 0 and batch.max() <= 1):
                raise RangeError("images hold values outside [0, 1] or not finite; clamp recovered images first")
        device = next(self.parameters()).device
        a, b = (torch.from_numpy(batch).to(device) for batch in batches)
        found: np.ndarray = self(a, b).cpu().numpy()
        return found
