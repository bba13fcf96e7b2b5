"""The strategy network of AdaMixUp: masked batch -> one distribution over the number of images to mix.

Shapes: `B` batch, `K P Q` the input's channels and grid, `C P Q` a feature map, `A` choices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.models._backbone import Shape3, check_in_shape, check_shape, weights_drawn_from

_UNITS = (2, 2, 2, 2)
_NUM_HALVINGS = 5


class StrategyNetwork(nn.Module):
    """ResNet-18 whose features are averaged over the batch before the last layer: one distribution per batch.

    The decision concerns the whole batch, so the output does not depend on the order of its images, nor on repeating
    all of them. The last layer is initialised with zeros, so the initial policy is uniform for every batch and seed.
    The first step therefore changes only the last layer, and later steps change the whole network.

    BatchNorm uses these statistics:

    - training mode, `forward`: batch statistics, and updates the running statistics. For the updates of the strategy.
    - training mode, `log_probabilities`: batch statistics, without any update. For drawing a choice between updates. It
      is the same policy that an update differentiates, as the policy gradient requires.
    - evaluation mode, both: running statistics, without any update.

    With batch statistics, the output does not depend on a gain that all images of the batch share.

    Args:
        in_shape: (K, P, Q) of one masked image (or of one crop), any number of channels, any grid from 7x7 up. The
            input is not scaled. Below 7x7 the stem would see more padding than image.
        num_choices: A, the number of candidates; at least 2.
        width: channels of the first stage; 64 is ResNet-18, smaller is cheaper.
        seed: seeds the initial weights; the global generator is not changed.

    Raises:
        ShapeError: `in_shape` is not (K, P, Q) with a grid of at least 7x7.
        InvalidInputError: there are fewer than two choices, or width is below 1.

    Privacy:
        It is part of the training by the owner of the data, sees only masked images and gives no protection by itself.
        The adversary is assumed to know it: an attack on AdaMixUp mixes with the same shares of choices.

    References:
        He et al. "Deep residual learning for image recognition", CVPR 2016 (18 layers, shortcuts of kind B); AdaMixUp,
        arXiv 2403.10558, section 3; methods A.2.3. The zero initialisation is ours; the paper states none.

    Examples:
        >>> network = StrategyNetwork((36, 28, 28), 4, width=8, seed=1)
        >>> network(torch.rand(8, 36, 28, 28)).exp().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, in_shape: Shape3, num_choices: int, *, width: int = 64, seed: int) -> None:
        super().__init__()
        if num_choices < 2 or width < 1:
            raise InvalidInputError(
                f"num_choices={num_choices}, width={width}: num_choices must be at least 2 and width at least 1; "
                "with a single choice, mix a fixed number of images instead"
            )
        self.in_shape = check_in_shape(in_shape, smallest_grid=7)
        self.num_choices, self.width = num_choices, width
        with weights_drawn_from(seed):
            self.stem = nn.Sequential(
                nn.Conv2d(self.in_shape[0], width, 7, 2, padding=3, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, padding=1),
            )
            self.stages = nn.Sequential(*_stages(width))
            self.last = nn.Linear(8 * width, num_choices)
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> log-probabilities of the choices, (A,), float32 also under autocast.

        Raises:
            ShapeError: the shape is not `in_shape`, the batch is empty or, in training mode, so small that BatchNorm
                has a single value per channel.
        """
        check_shape(x_BKPQ, self.in_shape, "the input of the strategy network")
        self._check_batch(len(x_BKPQ))
        features_BCPQ = self.stages(self.stem(x_BKPQ))
        # Disable autocast, which would compute the mean over the batch and the product in half precision.
        with torch.autocast(x_BKPQ.device.type, enabled=False):
            features_C = features_BCPQ.float().mean(dim=(0, 2, 3))
            logits_A = functional.linear(features_C, self.last.weight.float(), self.last.bias.float())
            return functional.log_softmax(logits_A, dim=0)

    @torch.no_grad()
    def log_probabilities(self, x_BKPQ: Tensor) -> Tensor:
        """The output of `forward` without gradients and without updating running statistics, to draw a choice.

        Returns:
            (A,) float32 on the device of the batch.

        Raises:
            ShapeError: see `forward`.
            RangeError: a log-probability is not finite, so no choice can be drawn.
        """
        with self._keeping_statistics():
            found_A: Tensor = self(x_BKPQ)
        if not bool(torch.isfinite(found_A).all()):
            raise RangeError(
                "the log-probabilities of the strategy network are not finite: the masked batch has such values, or "
                "training diverged. Check the output of the masker, or lower the learning rate of the strategy"
            )
        return found_A

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments, without the seed."""
        return {"in_shape": list(self.in_shape), "num_choices": self.num_choices, "width": self.width}

    @contextlib.contextmanager
    def _keeping_statistics(self) -> Iterator[None]:
        """Within the block, a forward pass in training mode uses batch statistics without storing them."""
        norms = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]
        tracked = [norm.track_running_stats for norm in norms]
        for norm in norms:  # no effect in evaluation mode, which uses the running statistics
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, was_tracked in zip(norms, tracked, strict=True):
                norm.track_running_stats = was_tracked

    def _check_batch(self, num_images: int) -> None:
        """Reject a batch that is too small for BatchNorm or for the mean over the batch."""
        positions = 1
        for side in self.in_shape[1:]:
            positions *= -(-side // 2**_NUM_HALVINGS)
        if num_images < 1 or (self.training and num_images * positions < 2):
            raise ShapeError(
                f"a batch of {num_images} image(s) with grid {self.in_shape[1]}x{self.in_shape[2]} is too small "
                "for the "
                f"statistics of the strategy network; give at least {2 if self.training else 1} images"
            )


class BasicUnit(nn.Module):
    """conv(stride)-BN-ReLU-conv-BN plus a shortcut, then ReLU.

    The shortcut is the input, or a strided 1x1 convolution with BatchNorm where the shape changes.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x_BCPQ: Tensor) -> Tensor:
        """Feature map -> feature map."""
        return functional.relu(self.shortcut(x_BCPQ) + self.residual(x_BCPQ), inplace=True)


def _stages(width: int) -> list[nn.Module]:
    """Four stages of basic units; every stage except the first starts with stride 2."""
    stages: list[nn.Module] = []
    before = width
    for number, num_units in enumerate(_UNITS):
        after = width * 2**number
        first = BasicUnit(before, after, stride=1 if number == 0 else 2)
        stages.append(nn.Sequential(first, *(BasicUnit(after, after, stride=1) for _ in range(num_units - 1))))
        before = after
    return stages
