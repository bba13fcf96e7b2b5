"""Adaptive mixing: a strategy network chooses how many images are mixed, against the recogniser that learns from them.

Shapes: `B` batch, `k` mixed images a row, `K P Q` masked image, `A` candidates, `W` windows of the run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ppfr.core import BatchMixer, InvalidInputError, MixedBatch, ProblemsError, RangeError, ShapeError
from ppfr.models import StrategyNetwork
from ppfr.training._masked_input import describe_module, mask_images
from ppfr.training._objective import Batch, Objective, OptimiserSettings, Player, as_json
from ppfr.training._recogniser import RecogniserObjective, describe_mixer

STRATEGY = "strategy"
_NUM_WINDOWS = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StrategySettings:
    """How the strategy learns (REINFORCE).

    Attributes:
        every_steps: the strategy learns at each such step; at the others it only chooses.
        reward_weights: lambda_1 of the recogniser's loss on the mixture, lambda_2 of its loss after one step on it.
        look_ahead_lr: eta of that one step of gradient descent, which is thrown away.
        look_ahead_clip_norm: largest norm of its gradient; None does not clip.
        baseline_decay: the reward less a moving average of it, of this decay, is what counts; None is the paper's
            plain form.
        entropy_weight: a bonus for being undecided; 0 is the paper's plain form.
        optimiser: of the strategy network.

    Raises:
        ProblemsError: fields out of range, all of them at once.
    """

    every_steps: int = 4
    reward_weights: tuple[float, float] = (1.0, 1.0)
    look_ahead_lr: float = 0.01
    look_ahead_clip_norm: float | None = 5.0
    baseline_decay: float | None = None
    entropy_weight: float = 0.0
    optimiser: OptimiserSettings = OptimiserSettings(optimiser="adam", lr=1e-4, weight_decay=0.0)  # noqa: RUF009

    def __post_init__(self) -> None:
        decay, clip = self.baseline_decay, self.look_ahead_clip_norm
        weights = self.reward_weights
        requirements = [
            (self.every_steps >= 1, f"every_steps={self.every_steps}; allowed is 1 or more"),
            (
                len(weights) == 2 and all(0 <= w < math.inf for w in weights) and any(weights),
                f"reward_weights={weights}; allowed are two numbers of 0 or more, one of them positive",
            ),
            (0 < self.look_ahead_lr < math.inf, f"look_ahead_lr={self.look_ahead_lr}; allowed is a positive number"),
            (clip is None or 0 < clip < math.inf, f"look_ahead_clip_norm={clip}; allowed is None or a positive number"),
            (decay is None or 0 <= decay < 1, f"baseline_decay={decay}; allowed is None, or 0 <= decay < 1"),
            (0 <= self.entropy_weight < math.inf, f"entropy_weight={self.entropy_weight}; allowed is 0 or more"),
        ]
        problems = [text for holds, text in requirements if not holds]
        if problems:
            raise ProblemsError("the strategy's settings cannot be used", problems)


class AdaptiveMixingObjective(Objective):
    """Two players: the recogniser lowers its loss on mixtures, the strategy chooses the mixer that raises it.

    At every step the strategy looks at the masked batch and draws one mixer, for the whole batch. The recogniser learns
    from that mixture. Every few steps the strategy learns too, by REINFORCE: its reward is the recogniser's loss on the
    mixture (reward 1) and the loss that would be left after one step of gradient descent on it (reward 2). That step is
    taken on copies: weights, optimiser and running statistics of the recogniser stay untouched.

    Args:
        recogniser: any way to a recogniser, without a mixer of its own.
        mixers: the candidates, two or more, as MixUp of 2, 3, 4 and 5 images.
        strategy: takes `masker.spec.out_shape`, with a choice for each candidate.
        settings: how the strategy learns.

    Raises:
        InvalidInputError: fewer than two candidates, a recogniser that mixes already, or a masker that is trained.
        ShapeError: a strategy for another masked image or another number of candidates.

    References:
        AdaMixUp (arXiv 2403.10558), equations 2 to 8. There the recogniser minimises L0 + lambda_1 L1 + lambda_2 L2
        with the strategy fixed; L0 and L1 are the same number on the same mixture, and the look-ahead's network is
        discarded, so here it minimises L0. See docs/methods/adamixup.md for each guess.
    """

    chosen_WA: Tensor
    baseline: Tensor

    def __init__(
        self,
        recogniser: RecogniserObjective,
        mixers: Sequence[BatchMixer],
        strategy: StrategyNetwork,
        *,
        settings: StrategySettings | None = None,
    ) -> None:
        super().__init__()
        if len(mixers) < 2:
            raise InvalidInputError(
                f"{len(mixers)} candidate leaves nothing to choose; give two mixers or more, or train with mixer=..."
            )
        if recogniser.mixer is not None:
            raise InvalidInputError(
                f"the recogniser mixes already ({recogniser.mixer.name}); build it without, the strategy chooses"
            )
        if recogniser.masker.spec.is_trainable:
            raise InvalidInputError(
                f"{recogniser.masker.name} is trained with the recogniser, and a strategy beside it has no equations; "
                "train the masker first, or train without a strategy"
            )
        shape, num = tuple(recogniser.masker.spec.out_shape), len(mixers)
        if tuple(strategy.in_shape) != shape or strategy.num_choices != num:
            raise ShapeError(
                f"the strategy takes {tuple(strategy.in_shape)} and chooses among {strategy.num_choices}; the masker "
                f"gives {shape} and there are {num} candidates: build it to fit"
            )
        self.recogniser, self.strategy = recogniser, strategy
        self.mixers, self.settings = tuple(mixers), settings or StrategySettings()
        self.frozen = tuple(f"recogniser.{name}" for name in recogniser.frozen)
        self.register_buffer("chosen_WA", torch.zeros(_NUM_WINDOWS, len(mixers)))
        self.register_buffer("baseline", torch.tensor(float("nan")))
        self._learning: tuple[str, ...] = ()
        self._mixed: tuple[int, MixedBatch] | None = None

    def players(self) -> tuple[Player, ...]:
        """The strategy first: it acts on the recogniser as it is before the step."""
        strategy = Player(
            name=STRATEGY,
            parameters=list(self.strategy.parameters()),
            every_steps=self.settings.every_steps,
            is_charted=False,
            **self.settings.optimiser.settings(),
        )
        return (strategy, *self.recogniser.players())

    def check_data(self, *, num_classes: int) -> None:
        """What the recogniser asks."""
        self.recogniser.check_data(num_classes=num_classes)

    def check_restored(self) -> None:
        """What the recogniser asks."""
        self.recogniser.check_restored()

    def begin_step(self, step: int, progress: float) -> None:
        """The recogniser's phase; nothing is drawn yet."""
        self.recogniser.begin_step(step, progress)
        # In the strategy's turn nobody else requires a gradient: remember who learns.
        self._learning = tuple(name for name, p in self.recogniser.named_parameters() if p.requires_grad)
        self._mixed = None

    def end_step(self, step: int, progress: float) -> None:
        """Nothing of the batch is kept."""
        self.recogniser.end_step(step, progress)
        self._mixed = None

    def loss(self, player: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """REINFORCE for the strategy; for the recogniser its own loss on the mixture that was chosen."""
        if player == STRATEGY:
            return self._reinforce(batch, rng=rng, progress=progress)
        if self._mixed is None:
            masked_BKPQ = mask_images(self.recogniser.masker, batch.images_BCHW, rng=rng)
            self._mix(self.strategy.log_probabilities(masked_BKPQ), masked_BKPQ, batch, rng=rng, progress=progress)
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
            raise RangeError("the strategy's probabilities are not finite; lower its learning rate")
        choice = int(torch.multinomial(probabilities_A, 1, generator=rng))
        self.chosen_WA[min(int(progress * _NUM_WINDOWS), _NUM_WINDOWS - 1), choice] += 1
        self._mixed = choice, self.mixers[choice].mix(masked_BKPQ, batch.labels_B, rng=rng)

    def _reinforce(self, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        masked_BKPQ = mask_images(self.recogniser.masker, batch.images_BCHW, rng=rng)
        log_probabilities_A = self.strategy(masked_BKPQ)
        self._mix(log_probabilities_A, masked_BKPQ, batch, rng=rng, progress=progress)
        assert self._mixed is not None
        choice, mixed = self._mixed
        rewards = self._rewards(mixed, batch, progress=progress)
        first, second = self.settings.reward_weights
        reward = first * rewards[0] + second * rewards[1]
        if not bool(reward.isfinite()):
            raise RangeError(
                f"the strategy's reward is not finite with {self.mixers[choice].name}; lower look_ahead_lr (now "
                f"{self.settings.look_ahead_lr:g}) or the recogniser's rate. Earlier checkpoints are good"
            )
        entropy = -(log_probabilities_A.exp() * log_probabilities_A).sum()
        gain = self._advantage(reward) * log_probabilities_A[choice] + self.settings.entropy_weight * entropy
        return {
            "loss": -gain,  # ascended
            "reward": reward,
            "reward_1": rewards[0],
            "reward_2": rewards[1],
            "entropy": entropy.detach(),
        }

    def _advantage(self, reward: Tensor) -> Tensor:
        """The reward, or how far it is above what it has been."""
        decay = self.settings.baseline_decay
        if decay is None:
            return reward
        before = torch.where(self.baseline.isnan(), reward, self.baseline)
        self.baseline.copy_(decay * before + (1 - decay) * reward)
        return reward - before

    def _rewards(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> tuple[Tensor, Tensor]:
        """The recogniser's loss on a mixture, and what would be left of it after one step of gradient descent."""
        module, settings = self.recogniser, self.settings
        own = dict(module.named_parameters())
        weights = {name: own[name].detach().requires_grad_(True) for name in self._learning}
        buffers = {name: b.clone() for name, b in module.named_buffers() if not module._is_frozen(name)}
        with torch.enable_grad():
            loss = functional_call(module, (weights, buffers), (mixed, batch, progress))["loss"]
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        if settings.reward_weights[1] == 0:
            return loss.detach(), torch.zeros_like(loss)
        found = {name: g for name, g in zip(weights, gradients, strict=True) if g is not None}
        rate = settings.look_ahead_lr
        if settings.look_ahead_clip_norm is not None:
            norm = torch.stack([g.norm() for g in found.values()]).norm()
            rate = rate * (settings.look_ahead_clip_norm / (norm + 1e-6)).clamp(max=1.0)
        with torch.no_grad():
            ahead = {name: w - rate * found[name] if name in found else w for name, w in weights.items()}
            left = functional_call(module, (ahead, buffers), (mixed, batch, progress))["loss"]
        return loss.detach(), left.detach()

    def outcome(self) -> dict[str, Any]:
        """How often each candidate was chosen: over the run, and in each fiftieth of it."""
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
        """JSON-ready."""
        recogniser = self.recogniser.describe()
        return {
            **recogniser,
            "kind": f"{recogniser['kind']} with adaptive mixing",
            "mixer": [describe_mixer(mixer) for mixer in self.mixers],
            "strategy": describe_module(self.strategy),
            "strategy_settings": as_json(self.settings),
        }
