"""Adaptive mixing: a strategy network chooses the mixture and maximises the loss that the recogniser minimises.

Shapes: `B` batch, `k` images per mixture, `K P Q` masked image, `A` candidates, `W` windows of the run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ppfr.core import BatchMixer, InvalidInputError, MixedBatch, ProblemsError, RangeError, ShapeError, as_json
from ppfr.models import StrategyNetwork
from ppfr.training._masked_input import describe_module, mask_images
from ppfr.training._ranks import mean_over_ranks, num_ranks, of_first_rank
from ppfr.training._recogniser import RecogniserTask, describe_mixer
from ppfr.training._task import Batch, OptimizerGroup, OptimizerSettings, TrainingTask

STRATEGY = "strategy"
_NUM_WINDOWS = 50
# In half precision, gradients below 6e-8 become 0 unless the loss is scaled first. 2^16 is where torch's GradScaler
# starts. A scale at which a gradient overflows is divided by 16, at most four times, as far as 1.
_LOSS_SCALES = (2.0**16, 2.0**12, 2.0**8, 2.0**4, 1.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StrategySettings:
    """How the strategy network is trained (REINFORCE).

    Attributes:
        every_steps: steps between updates of the strategy network. It chooses a mixer at every step.
        reward_weights: lambda_1, the weight of the recogniser loss on the mixture, and lambda_2, the weight of its loss
            after one gradient step on the mixture.
        look_ahead_lr: eta, the learning rate of that gradient step, which is discarded afterwards.
        look_ahead_clip_norm: maximum norm of its gradient; None does not clip.
        baseline_decay: decay of a moving average that is subtracted from the reward; None uses the reward itself, as
            the paper does.
        entropy_weight: weight of an entropy bonus; the paper has none (0).
        optimizer: optimizer of the strategy network.

    Raises:
        ProblemsError: fields are out of range; lists all of them.
    """

    every_steps: int = 4
    reward_weights: tuple[float, float] = (1.0, 1.0)
    look_ahead_lr: float = 0.01
    look_ahead_clip_norm: float | None = 5.0
    baseline_decay: float | None = None
    entropy_weight: float = 0.0
    optimizer: OptimizerSettings = OptimizerSettings(optimizer="adam", lr=1e-4, weight_decay=0.0)  # noqa: RUF009

    def __post_init__(self) -> None:
        decay, clip = self.baseline_decay, self.look_ahead_clip_norm
        weights = self.reward_weights
        requirements = [
            (self.every_steps >= 1, f"every_steps={self.every_steps}; must be 1 or more"),
            (
                len(weights) == 2 and all(0 <= w < math.inf for w in weights) and any(weights),
                f"reward_weights={weights}; must be two numbers of 0 or more, at least one of them positive",
            ),
            (0 < self.look_ahead_lr < math.inf, f"look_ahead_lr={self.look_ahead_lr}; must be positive and finite"),
            (clip is None or 0 < clip < math.inf, f"look_ahead_clip_norm={clip}; must be None or a positive number"),
            (decay is None or 0 <= decay < 1, f"baseline_decay={decay}; must be None or satisfy 0 <= decay < 1"),
            (0 <= self.entropy_weight < math.inf, f"entropy_weight={self.entropy_weight}; must be 0 or more"),
        ]
        problems = [text for holds, text in requirements if not holds]
        if problems:
            raise ProblemsError("invalid strategy settings", problems)


class AdaptiveMixingTask(TrainingTask):
    """Trains a recogniser on mixtures against a strategy network that chooses the mixer.

    At every step the strategy network reads the masked batch and draws one mixer for the whole batch. The recogniser is
    trained on that mixture. Every few steps the strategy network is updated by REINFORCE. Its reward is the loss of the
    recogniser on the mixture (reward 1) plus the loss that would remain after one gradient step on it (reward 2). That
    step uses copies, so weights, optimizer and running statistics of the recogniser are unchanged. In half precision
    its loss is scaled, as the loop scales the losses of the groups.

    On several devices the batch of a step is that of all devices together: the strategy sees the mean over all of its
    images, all devices mix the same number of images, and the reward is the mean over all devices. The look-ahead step
    of a device follows the gradient of its own images.

    Args:
        recogniser: a recogniser task without a mixer of its own.
        mixers: at least two candidates, for example MixUp of 2, 3, 4 and 5 images.
        strategy: takes inputs of shape `masker.spec.out_shape` and has one choice per candidate.
        settings: how the strategy network is trained.

    Raises:
        InvalidInputError: there are fewer than two candidates, the recogniser has a mixer, or the masker is trainable.
        ShapeError: the strategy network has another input shape or number of choices.

    References:
        AdaMixUp (arXiv 2403.10558), equations 2 to 8. There the recogniser minimises L0 + lambda_1 L1 + lambda_2 L2
        with the strategy fixed. L0 and L1 are equal on the same mixture, and the network after the look-ahead step is
        discarded, so this implementation minimises L0. See docs/methods/adamixup.md for every assumption.
    """

    chosen_WA: Tensor
    baseline: Tensor

    def __init__(
        self,
        recogniser: RecogniserTask,
        mixers: Sequence[BatchMixer],
        strategy: StrategyNetwork,
        *,
        settings: StrategySettings | None = None,
    ) -> None:
        super().__init__()
        if len(mixers) < 2:
            raise InvalidInputError(
                f"{len(mixers)} candidate(s) given; give at least two mixers, or use mixer=... of the recogniser task"
            )
        if recogniser.mixer is not None:
            raise InvalidInputError(
                f"the recogniser task has a mixer ({recogniser.mixer.name}); build it with mixer=None"
            )
        if recogniser.masker.spec.is_trainable:
            raise InvalidInputError(
                f"{recogniser.masker.name} is trained with the recogniser, which adaptive mixing does not define; "
                "train the masker first, or train without adaptive mixing"
            )
        shape, num = tuple(recogniser.masker.spec.out_shape), len(mixers)
        if tuple(strategy.in_shape) != shape or strategy.num_choices != num:
            raise ShapeError(
                f"the strategy network takes {tuple(strategy.in_shape)} and has {strategy.num_choices} choices, "
                f"but the masked images are {shape} and there are {num} candidates; build it with "
                f"StrategyNetwork({shape}, {num})"
            )
        self.recogniser, self.strategy = recogniser, strategy
        self.mixers, self.settings = tuple(mixers), settings or StrategySettings()
        self.frozen = tuple(f"recogniser.{name}" for name in recogniser.frozen)
        self.register_buffer("chosen_WA", torch.zeros(_NUM_WINDOWS, len(mixers)))
        self.register_buffer("baseline", torch.tensor(float("nan")))
        self._trainable: tuple[str, ...] = ()
        self._mixed: tuple[int, MixedBatch] | None = None

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """The strategy network, then the recogniser. The strategy is updated before the recogniser changes."""
        strategy = OptimizerGroup(
            name=STRATEGY,
            parameters=list(self.strategy.parameters()),
            every_steps=self.settings.every_steps,
            is_charted=False,
            **self.settings.optimizer.settings(),
        )
        return (strategy, *self.recogniser.optimizer_groups())

    def check_data(self, *, num_classes: int) -> None:
        """See the recogniser task."""
        self.recogniser.check_data(num_classes=num_classes)

    def check_restored(self) -> None:
        """See the recogniser task."""
        self.recogniser.check_restored()

    def begin_step(self, step: int, progress: float) -> None:
        """Begin the step of the recogniser. No mixer is drawn yet."""
        self.recogniser.begin_step(step, progress)
        # While the strategy is updated, no parameter of the recogniser requires gradients. Remember which ones do.
        self._trainable = tuple(name for name, p in self.recogniser.named_parameters() if p.requires_grad)
        self._mixed = None

    def end_step(self, step: int, progress: float) -> None:
        """Discard the mixture of the step."""
        self.recogniser.end_step(step, progress)
        self._mixed = None

    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The REINFORCE loss of the strategy, or the loss of the recogniser on the chosen mixture."""
        if group == STRATEGY:
            return self._reinforce(batch, rng=rng, progress=progress)
        if self._mixed is None:
            masked_BKPQ = mask_images(self.recogniser.masker, batch.images_BCHW, rng=rng)
            log_probabilities_A = _of_all_ranks(self.strategy.log_probabilities(masked_BKPQ))
            self._mix(log_probabilities_A, masked_BKPQ, batch, rng=rng, progress=progress)
        assert self._mixed is not None
        choice, mixed = self._mixed
        terms = self.recogniser.mixture_loss(mixed, batch, progress=progress)
        return {**terms, "num_images": torch.tensor(float(self.mixers[choice].num_images))}

    def _mix(
        self,
        log_probabilities_A: Tensor,
        masked_BKPQ: Tensor,
        batch: Batch,
        *,
        rng: torch.Generator,
        progress: float,
    ) -> None:
        probabilities_A = log_probabilities_A.detach().float().exp().cpu()
        if not bool(probabilities_A.isfinite().all()):
            raise RangeError("the probabilities of the strategy network are not finite; lower its learning rate")
        drawn = int(torch.multinomial(probabilities_A, 1, generator=rng))
        choice = of_first_rank(drawn, device=log_probabilities_A.device)  # `rng` differs between ranks
        self.chosen_WA[min(int(progress * _NUM_WINDOWS), _NUM_WINDOWS - 1), choice] += 1
        self._mixed = choice, self.mixers[choice].mix(masked_BKPQ, batch.labels_B, rng=rng)

    def _reinforce(self, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        masked_BKPQ = mask_images(self.recogniser.masker, batch.images_BCHW, rng=rng)
        log_probabilities_A = _of_all_ranks(self.strategy(masked_BKPQ))
        self._mix(log_probabilities_A, masked_BKPQ, batch, rng=rng, progress=progress)
        assert self._mixed is not None
        choice, mixed = self._mixed
        rewards = mean_over_ranks(torch.stack(self._rewards(mixed, batch, progress=progress)))
        first, second = self.settings.reward_weights
        reward = first * rewards[0] + second * rewards[1]
        if not bool(reward.isfinite()):
            raise RangeError(
                f"the reward of the strategy is not finite with {self.mixers[choice].name}; lower look_ahead_lr (now "
                f"{self.settings.look_ahead_lr:g}) or the learning rate of the recogniser. Earlier checkpoints "
                "are valid"
            )
        entropy = -(log_probabilities_A.exp() * log_probabilities_A).sum()
        gain = self._advantage(reward) * log_probabilities_A[choice] + self.settings.entropy_weight * entropy
        return {
            "loss": -gain,  # the gain is maximised
            "reward": reward,
            "reward_1": rewards[0],
            "reward_2": rewards[1],
            "entropy": entropy.detach(),
        }

    def _advantage(self, reward: Tensor) -> Tensor:
        """The reward, minus its moving average if there is a baseline."""
        decay = self.settings.baseline_decay
        if decay is None:
            return reward
        before = torch.where(self.baseline.isnan(), reward, self.baseline)
        self.baseline.copy_(decay * before + (1 - decay) * reward)
        return reward - before

    def _rewards(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> tuple[Tensor, Tensor]:
        """The loss of the recogniser on a mixture, before and after one gradient step."""
        module, settings = self.recogniser, self.settings
        own = dict(module.named_parameters())
        weights = {name: own[name].detach().requires_grad_(True) for name in self._trainable}
        buffers = {name: b.clone() for name, b in module.named_buffers() if not module._is_frozen(name)}
        with torch.enable_grad():
            loss = functional_call(module, (weights, buffers), (mixed, batch, progress))["loss"]
            gradients = _gradients(loss, list(weights.values()))
            loss = loss.detach()  # frees the graph
        if settings.reward_weights[1] == 0:
            return loss, torch.zeros_like(loss)
        found = {name: g for name, g in zip(weights, gradients, strict=True) if g is not None}
        rate = settings.look_ahead_lr
        if settings.look_ahead_clip_norm is not None:
            norm = torch.stack([g.norm() for g in found.values()]).norm()
            rate = rate * (settings.look_ahead_clip_norm / (norm + 1e-6)).clamp(max=1.0)
        with torch.no_grad():
            stepped = {name: w - rate * found[name] if name in found else w for name, w in weights.items()}
            remaining = functional_call(module, (stepped, buffers), (mixed, batch, progress))["loss"]
        return loss, remaining

    def outcome(self) -> dict[str, Any]:
        """Share of choices per candidate: over the run, and over each of 50 windows of it."""
        total = self.chosen_WA.sum().clamp_min(1)
        windows = [row for row in self.chosen_WA.cpu() if float(row.sum()) > 0]
        return {
            **self.recogniser.outcome(),
            "candidates": [mixer.name for mixer in self.mixers],
            "num_images": [mixer.num_images for mixer in self.mixers],
            "shares": (self.chosen_WA.sum(dim=0) / total).tolist(),
            "shares_over_time": [(row / row.sum()).tolist() for row in windows],
        }

    def describe(self) -> dict[str, Any]:
        """See `TrainingTask.describe`."""
        recogniser = self.recogniser.describe()
        return {
            **recogniser,
            "kind": f"{recogniser['kind']} with adaptive mixing",
            "mixer": [describe_mixer(mixer) for mixer in self.mixers],
            "strategy": describe_module(self.strategy),
            "strategy_settings": as_json(self.settings),
        }


def _of_all_ranks(log_probabilities_A: Tensor) -> Tensor:
    """The log-probabilities for the images of all ranks, with the gradient of this rank's images.

    They are a softmax of logits that are linear in the mean feature of the images, so the mean of the logits over ranks
    belongs to the images of all ranks. The mean over ranks of the gradients is the gradient of this function.
    """
    if num_ranks() == 1:
        return log_probabilities_A
    others_A = mean_over_ranks(log_probabilities_A) - log_probabilities_A.detach()
    return torch.log_softmax(log_probabilities_A + others_A, dim=0)


def _gradients(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of a loss, which is scaled under autocast to half precision; None for weights that it does not use."""
    device = loss.device.type
    is_half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    found: list[Tensor | None] = []
    for scale in _LOSS_SCALES if is_half else _LOSS_SCALES[-1:]:
        is_last = scale == _LOSS_SCALES[-1]
        scaled = torch.autograd.grad(loss * scale, weights, allow_unused=True, retain_graph=not is_last)
        found = [None if part is None else part / scale for part in scaled]
        if all(bool(part.isfinite().all()) for part in found if part is not None):
            break
    return found
