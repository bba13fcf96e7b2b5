"""The attackers' networks: a U-Net from masked images of any grid to faces, and a patch discriminator.

Shape suffixes: B batch, C colour, H W pixels, K masked channels, P Q masked grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from ppfr.core import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor

FACE_SHAPE = (3, 112, 112)
GRIDS = (112, 56, 28, 14, 7)
SMALLEST_STD = 1e-6
RIDGE = 1e-4
MAX_REGRESSION_VALUES = 2e8


class Standardise(nn.Module):
    """(x - mean) / std per channel, with statistics of the attacker's own masked faces.

    Masked values may be DCT coefficients of about 1,000 or normalised maps of about 1. The networks that follow see the
    same scale in either case.
    """

    mean_K11: Tensor
    std_K11: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean_K11", torch.zeros(num_channels, 1, 1))
        self.register_buffer("std_K11", torch.ones(num_channels, 1, 1))

    def set_from(self, masked_NKPQ: Tensor) -> None:
        """Compute the statistics from a sample of masked faces. Constant channels are only centred."""
        values = masked_NKPQ.double()
        std_K, mean_K = torch.std_mean(values, dim=(0, 2, 3), correction=0)
        # Otherwise, the rounding error of a constant channel would be scaled to unit variance.
        floor_K = SMALLEST_STD * mean_K.abs().clamp_min(1.0)
        std_K = torch.where(std_K > floor_K, std_K, torch.ones_like(std_K))
        self.mean_K11.copy_(mean_K[:, None, None])
        self.std_K11.copy_(std_K[:, None, None])

    def forward(self, x_BKPQ: Tensor) -> Tensor:
        """Standardised values, same shape."""
        return (x_BKPQ - self.mean_K11) / self.std_K11


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))), without normalisation layers, because recovery needs absolute levels.

    The last convolution starts at zero, so a deep network starts as a shallow one and can train with lr 1e-3.
    """

    def __init__(self, num_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.second = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.dropout = dropout
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(_bias(self.second))

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Same shape in and out."""
        inner = functional.leaky_relu(self.first(functional.leaky_relu(x_BCPQ, 0.1)), 0.1)
        if self.dropout:
            inner = functional.dropout(inner, self.dropout, self.training)
        result: Tensor = x_BCPQ + self.second(inner)
        return result


class RecoveryUNet(nn.Module):
    """Recovers faces from masked images of any grid.

    The levels are 112, 56, 28, 14 and 7 pixels wide. The encoder starts at the smallest level that fits the masked grid
    (28 for 28x28x36). The decoder rises to 112 by pixel shuffling, with a skip connection at every encoder level.
    The output is the sum of a learned offset per pixel, a linear recovery (a 3x3 convolution of the masked channels,
    pixel-shuffled), and the network's own output. `set_statistics` computes the first two in closed form from the
    attacker's own faces. Training therefore starts from the mean face if the masked image carries no information, from
    the best linear attack if it does, and from the face itself if nothing is protected.

    Args:
        in_shape: (K, P, Q) of the masked image.
        width: channels at the 112 level; doubled at each level below, up to `max_width`.
        max_width: maximum number of channels.
        num_blocks: residual blocks per level from 28 down, in encoder and decoder each.
        num_fine_blocks: the same for levels 112 and 56, where blocks help less at the same cost.
        dropout: rate inside the decoder's blocks (the source of noise in pix2pix).
        num_noise_channels: channels of unit Gaussian noise in addition to the input; the caller draws them (see
            `forward`).
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        width: int = 16,
        max_width: int = 256,
        num_blocks: int = 1,
        num_fine_blocks: int = 0,
        dropout: float = 0.0,
        num_noise_channels: int = 0,
    ) -> None:
        super().__init__()
        if width < 4 or max_width < width or num_blocks < 0 or num_fine_blocks < 0:
            raise InvalidInputError(
                f"width={width}, max_width={max_width}, num_blocks={num_blocks}, num_fine_blocks={num_fine_blocks}: "
                "use width >= 4, max_width >= width and numbers of blocks >= 0"
            )
        self.in_shape, self.num_noise_channels = in_shape, num_noise_channels
        self.sizes = {
            "width": width,
            "max_width": max_width,
            "num_blocks": num_blocks,
            "num_fine_blocks": num_fine_blocks,
            "num_noise_channels": num_noise_channels,
        }
        num_in, rows, columns = in_shape
        self.entry = max((i for i, grid in enumerate(GRIDS) if grid >= min(max(rows, columns), 112)), default=0)
        widths = [min(width * 2**i, max_width) for i in range(len(GRIDS))]
        blocks = [num_fine_blocks if grid > 28 else num_blocks for grid in GRIDS]

        def stack(level: int, rate: float) -> nn.Module:
            return nn.Sequential(*(ResidualBlock(widths[level], dropout=rate) for _ in range(blocks[level])))

        levels, last = range(self.entry, len(GRIDS)), len(GRIDS) - 1
        self.standardise = Standardise(num_in)
        self.stem = nn.Conv2d(num_in + num_noise_channels, widths[self.entry], 3, padding=1)
        self.encoder = nn.ModuleList(stack(i, 0.0) for i in levels)
        self.down = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, stride=2) for i in levels if i < last)
        self.bottom = ResidualBlock(widths[last])
        self.place_CPQ = nn.Parameter(torch.zeros(widths[last], GRIDS[last], GRIDS[last]))
        self.up = nn.ModuleList(nn.Conv2d(widths[i + 1], 4 * widths[i], 1) for i in range(last))
        self.fuse = nn.ModuleList(
            nn.Conv2d(widths[i] * (2 if i >= self.entry else 1), widths[i], 3, padding=1) for i in range(last)
        )
        self.decoder = nn.ModuleList(stack(i, dropout) for i in range(last))
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.linear = nn.Conv2d(num_in, 3 * 4**self.entry, 3, padding=1, bias=False)
        self.offset_CHW = nn.Parameter(torch.full(FACE_SHAPE, 0.5))
        for values in (self.head.weight, _bias(self.head), self.linear.weight):
            nn.init.zeros_(values)

    def set_statistics(self, masked_NKPQ: Tensor, image_NCHW: Tensor) -> None:
        """Set channel statistics, mean face and best linear recovery from the attacker's own faces.

        Args:
            masked_NKPQ: a few hundred masked faces.
            image_NCHW: the same faces, plain, (N, 3, 112, 112) in [0, 1].
        """
        self.standardise.set_from(masked_NKPQ)
        with torch.no_grad():
            mean_face_CHW = image_NCHW.mean(dim=0)
            mean_1KPQ = self._on_entry_grid(self.standardise(masked_NKPQ.mean(dim=0, keepdim=True)))
            self.linear.weight.copy_(self._best_linear(masked_NKPQ, mean_1KPQ, image_NCHW - mean_face_CHW))
            moved_CHW = functional.pixel_shuffle(self.linear(mean_1KPQ), 2**self.entry)[0]
            self.offset_CHW.copy_(mean_face_CHW - moved_CHW)

    def _best_linear(self, masked_NKPQ: Tensor, mean_1KPQ: Tensor, target_NCHW: Tensor) -> Tensor:
        """Weight of the convolution: ridge regression of faces on 3x3 neighbourhoods of the masked channels.

        Both are centred by their mean at each position, which the offset accounts for.
        """
        num_features = 9 * self.in_shape[0]
        num_positions = GRIDS[self.entry] ** 2
        num = min(len(masked_NKPQ), max(8, int(MAX_REGRESSION_VALUES / (num_features * num_positions))))
        size = max(1, min(32, int(MAX_REGRESSION_VALUES / 8 / (num_features * num_positions))))
        gram = torch.zeros(num_features, num_features, dtype=torch.float64)
        cross = torch.zeros(num_features, 3 * 4**self.entry, dtype=torch.float64)
        for start in range(0, num, size):
            rows = slice(start, min(num, start + size))
            centred = self._on_entry_grid(self.standardise(masked_NKPQ[rows])) - mean_1KPQ
            patches = functional.unfold(centred, 3, padding=1)
            wanted = functional.pixel_unshuffle(target_NCHW[rows], 2**self.entry).flatten(2)
            x, y = (values.transpose(1, 2).flatten(0, 1) for values in (patches, wanted))
            gram += (x.T @ x).double()
            cross += (x.T @ y).double()
        damping = RIDGE * gram.diagonal().mean().clamp_min(1e-12)
        solved = torch.linalg.solve(gram + damping * torch.eye(num_features, dtype=gram.dtype), cross)
        result: Tensor = solved.T.reshape(self.linear.weight.shape).float()
        return result

    def _on_entry_grid(self, x_BKPQ: Tensor) -> Tensor:
        grid = GRIDS[self.entry]
        if tuple(x_BKPQ.shape[2:]) == (grid, grid):
            return x_BKPQ
        is_shrunk = max(x_BKPQ.shape[2:]) > grid
        return functional.interpolate(x_BKPQ, size=(grid, grid), mode="bilinear", antialias=is_shrunk)

    def forward(self, x_BKPQ: Tensor, noise_BZPQ: Tensor | None = None) -> Tensor:
        """(B, K, P, Q) -> (B, 3, 112, 112) float, not limited to [0, 1]: clamp it before use.

        Args:
            x_BKPQ: masked images, `in_shape` after the batch axis.
            noise_BZPQ: `num_noise_channels` channels on the same grid; None is zeros.
        """
        x = self._on_entry_grid(self.standardise(x_BKPQ))
        face_BCHW = functional.pixel_shuffle(self.linear(x), 2**self.entry).float() + self.offset_CHW
        if self.num_noise_channels:
            if noise_BZPQ is None:
                noise_BZPQ = x.new_zeros(len(x), self.num_noise_channels, *x_BKPQ.shape[2:])
            x = torch.cat([x, self._on_entry_grid(noise_BZPQ)], dim=1)
        x = self.stem(x)
        skips: list[Tensor] = []
        for i, blocks in enumerate(self.encoder):
            x = blocks(x)
            if i < len(self.down):
                skips.append(x)
                x = self.down[i](functional.leaky_relu(x, 0.1))
        x = self.bottom(x + self.place_CPQ)
        for level in reversed(range(len(GRIDS) - 1)):
            x = functional.pixel_shuffle(self.up[level](functional.leaky_relu(x, 0.1)), 2)
            if level >= self.entry:
                x = torch.cat([x, skips[level - self.entry]], dim=1)
            x = self.decoder[level](self.fuse[level](x))
        result: Tensor = face_BCHW + self.head(x).float()
        return result


class PatchDiscriminator(nn.Module):
    """Classifies 70x70 patches of a face, given the masked image (pix2pix).

    It has five 4x4 convolutions, the first three with stride 2, so each output sees 70x70 pixels. The masked image is
    resized to 112x112 bilinearly and concatenated to the face by channel.

    Args:
        in_shape: (K, P, Q) of the masked image.
        width: channels after the first convolution; 64 in pix2pix.

    References: Isola et al. 2017, section 3.2. Deviation: the masked channels are first reduced by a 1x1 convolution on
    their own small grid, which avoids resizing and filtering 36 or more channels at 112x112.
    """

    def __init__(self, in_shape: tuple[int, int, int], *, width: int = 64) -> None:
        super().__init__()
        self.standardise = Standardise(in_shape[0])
        reduced = min(in_shape[0], max(4, width // 4))
        self.reduce = nn.Conv2d(in_shape[0], reduced, 1)
        widths = [width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = [nn.Conv2d(reduced + 3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, stride in ((1, 2), (2, 2), (3, 1)):
            layers += [
                nn.Conv2d(widths[i - 1], widths[i], 4, stride=stride, padding=1, bias=False),
                nn.InstanceNorm2d(widths[i], affine=True),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[3], 1, 4, padding=1))

    def forward(self, masked_BKPQ: Tensor, face_BCHW: Tensor) -> Tensor:
        """(B, K, P, Q) and (B, 3, 112, 112) -> (B, 1, 12, 12) logits, high for the real face of the masked image."""
        condition = self.reduce(self.standardise(masked_BKPQ))
        if condition.shape[2:] != face_BCHW.shape[2:]:
            condition = functional.interpolate(condition, size=face_BCHW.shape[2:], mode="bilinear")
        result: Tensor = self.body(torch.cat([condition, 2.0 * face_BCHW - 1.0], dim=1)).float()
        return result


def num_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
