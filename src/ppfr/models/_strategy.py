"""The strategy network of AdaMixUp: a masked batch -> one distribution over how many images to mix.

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
from ppfr.models._backbone import Shape3, check_in_shape, check_shape, drawing_from

_UNITS = (2, 2, 2, 2)
_NUM_HALVINGS = 5


class StrategyNetwork(nn.Module):
    """ResNet-18 whose features are averaged over the whole batch before the last layer: one distribution a batch.

    The batch is what is decided upon, so it counts as one row: the order of its images does not matter, and neither
    does repeating all of them. The last layer starts at zero, so that the policy starts uniform whatever the batch and
    the seed; the first step therefore moves only the last layer, every later one the whole network.

    Which statistics BatchNorm uses is a matter of mode, as in any network:

    - training mode, `forward`: those of the batch; the running ones move. For the strategy's own steps.
    - training mode, `log_probabilities`: those of the batch; nothing moves. For drawing a choice between steps. It is
      the very policy that a step then differentiates, as the policy gradient asks.
    - evaluation mode, both: the running ones, which do not move.

    With the batch's own statistics a gain common to the whole batch cannot be seen; with the running ones it can.

    Args:
        in_shape: (K, P, Q) of one masked image (or of one crop), any number of channels, any grid from 7x7 up. It is
            taken as it is, without scaling. Below 7x7 the stem would see more of its padding than of the image.
        num_choices: A, the size of the candidate set; 2 or more.
        width: channels of the first stage; 64 is ResNet-18, a smaller one is cheaper.
        seed: of the first weights; the global generator is left as it was.

    Raises:
        ShapeError: `in_shape` is no (K, P, Q) of at least 7x7.
        InvalidInputError: fewer than two choices, or width below 1.

    Privacy:
        It belongs to the owner's training side, sees only masked images and protects nobody by itself. The adversary is
        taken to know it: an attack on AdaMixUp mixes with the shares that its choices had.

    References:
        He et al. "Deep residual learning for image recognition", CVPR 2016 (18 layers, shortcuts of kind B); AdaMixUp,
        arXiv 2403.10558, section 3; methods A.2.3. The zero start is ours: the paper states none.

    Examples:
        >>> network = StrategyNetwork((36, 28, 28), 4, width=8, seed=1)
        >>> network(torch.rand(8, 36, 28, 28)).exp().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, in_shape: Shape3, num_choices: int, *, width: int = 64, seed: int) -> None:
        super().__init__()
        if num_choices < 2 or width < 1:
            raise InvalidInputError(
                f"num_choices={num_choices}, width={width}: at least two choices and a positive width are allowed; "
                "where there is one choice there is nothing to learn, so mix with a fixed number of images instead"
            )
        self.in_shape = check_in_shape(in_shape, smallest_grid=7)
        self.num_choices, self.width = num_choices, width
        with drawing_from(seed):
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
            ShapeError: another shape than `in_shape`, no image at all, or, in training mode, so few that BatchNorm has
                a single value a channel.
        """
        check_shape(x_BKPQ, self.in_shape, "the strategy network's input")
        self._check_batch(len(x_BKPQ))
        features_BCPQ = self.stages(self.stem(x_BKPQ))
        # Disabled, or autocast would sum the batch and take the product in half precision.
        with torch.autocast(x_BKPQ.device.type, enabled=False):
            features_C = features_BCPQ.float().mean(dim=(0, 2, 3))
            logits_A = functional.linear(features_C, self.last.weight.float(), self.last.bias.float())
            return functional.log_softmax(logits_A, dim=0)

    @torch.no_grad()
    def log_probabilities(self, x_BKPQ: Tensor) -> Tensor:
        """What `forward` would give, without gradient and without moving a running statistic: for drawing a choice.

        Returns:
            (A,) float32 on the batch's device.

        Raises:
            ShapeError: as for `forward`.
            RangeError: a log-probability that is not finite, so that no choice can be drawn.
        """
        with self._keeping_statistics():
            found_A = self(x_BKPQ)
        if not bool(torch.isfinite(found_A).all()):
            raise RangeError(
                "the strategy network gives log-probabilities that are not finite: the masked batch holds such values, "
                "or training diverged; check the masker's output, then lower the strategy's learning rate"
            )
        return found_A

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments, less the seed."""
        return {"in_shape": list(self.in_shape), "num_choices": self.num_choices, "width": self.width}

    @contextlib.contextmanager
    def _keeping_statistics(self) -> Iterator[None]:
        """Within the block a forward pass in training mode uses the batch's statistics and keeps no trace of them."""
        norms = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]
        tracked = [norm.track_running_stats for norm in norms]
        for norm in norms:  # in evaluation mode this changes nothing: the running statistics are used all the same
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, was_tracked in zip(norms, tracked, strict=True):
                norm.track_running_stats = was_tracked

    def _check_batch(self, num_images: int) -> None:
        """Refuse what BatchNorm or the mean over the batch cannot take."""
        positions = 1
        for side in self.in_shape[1:]:
            positions *= -(-side // 2**_NUM_HALVINGS)
        if num_images < 1 or (self.training and num_images * positions < 2):
            raise ShapeError(
                f"a batch of {num_images} image(s) of grid {self.in_shape[1]}x{self.in_shape[2]} gives the strategy "
                f"network no statistics; give at least {2 if self.training else 1} (training batches have many)"
            )


class BasicUnit(nn.Module):
    """conv(stride)-BN-ReLU-conv-BN added to a shortcut, then ReLU.

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
    """Four stages of basic units; every stage but the first starts with stride 2."""
    stages: list[nn.Module] = []
    before = width
    for number, num_units in enumerate(_UNITS):
        after = width * 2**number
        first = BasicUnit(before, after, stride=1 if number == 0 else 2)
        stages.append(nn.Sequential(first, *(BasicUnit(after, after, stride=1) for _ in range(num_units - 1))))
        before = after
    return stages
