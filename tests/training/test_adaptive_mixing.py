"""Adaptive mixing: the strategy learns to choose the mixture with the highest loss and changes nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ppfr.core import CheckpointError, InvalidInputError, ProblemsError, RangeError, ShapeError
from ppfr.masking import MixUp
from ppfr.models import ArcFace, StrategyNetwork
from ppfr.training import (
    AdaptiveMixingTask,
    Batch,
    MarginTask,
    OptimizerGroup,
    OptimizerSettings,
    Plan,
    RecogniserTask,
    StrategySettings,
)
from support.toy_training import SIZE, ToyBackbone, ToyImages, ToyMasker, run_fit, weights

MASKED = (5, SIZE, SIZE)
# At ten times this learning rate, plain REINFORCE converges to its first draws.
FAST = OptimizerSettings(optimizer="adam", lr=2e-3, weight_decay=0.0)
ADAM = OptimizerSettings(optimizer="adam", lr=1e-2, weight_decay=0.0)


class Planted(RecogniserTask):
    """A recogniser whose loss is a given function of the number of mixed images."""

    def __init__(self, loss_of_k) -> None:
        super().__init__()
        self.masker, self.mixer, self.loss_of_k = ToyMasker(), None, loss_of_k
        self.weight = nn.Parameter(torch.ones(1))

    def optimizer_groups(self):
        return (OptimizerGroup(name="recogniser", parameters=[self.weight], lr=1e-3),)

    def mixture_loss(self, mixed, batch, *, progress):
        return {"loss": self.loss_of_k(mixed.labels_Bk.shape[1]) + 0.0 * self.weight.sum()}

    def describe(self):
        return {"kind": "planted"}


def mixers(*sizes: int, cap: float = 0.55) -> list[MixUp]:
    return [MixUp(num_images=k, max_weight=cap) for k in sizes]


def strategy(num: int, seed: int = 1) -> StrategyNetwork:
    return StrategyNetwork(MASKED, num, width=4, seed=seed)


def adaptive(recogniser=None, sizes=(2, 3, 4), **settings) -> AdaptiveMixingTask:
    if recogniser is None:
        head = ArcFace(4, 16, scale=16.0, margin=0.2, seed=1)
        recogniser = MarginTask(ToyMasker(), ToyBackbone(MASKED), head, optimizer=ADAM)
    return AdaptiveMixingTask(recogniser, mixers(*sizes), strategy(len(sizes)), settings=StrategySettings(**settings))


def train(task, *, run_dir=None, epochs=8, resumes=False, max_steps=None):
    plan = Plan(
        epochs=epochs, batch_size=16, schedule="constant", checkpoint_every_steps=4, log_every_steps=1,
        max_steps=max_steps,
    )  # fmt: skip
    return run_fit(task, run_dir, plan=plan, seed=4, resumes=resumes)


def a_batch() -> Batch:
    images = ToyImages()
    pixels = torch.from_numpy(images.pixels[::2]).permute(0, 3, 1, 2) / 255
    return Batch(images_BCHW=pixels, labels_B=torch.arange(4).repeat_interleave(4), indices_B=torch.arange(16))


def probabilities(task: AdaptiveMixingTask) -> torch.Tensor:
    masked = ToyMasker().mask(a_batch().images_BCHW, rng=torch.Generator().manual_seed(1))
    return task.strategy.log_probabilities(masked).detach().exp()


@pytest.mark.parametrize(
    "settings",
    [{}, {"baseline_decay": 0.9}, {"baseline_decay": 0.9, "entropy_weight": 0.02}],
    ids=["plain", "baseline", "baseline and entropy"],
)
@pytest.mark.parametrize(
    ("loss_of_k", "best"), [(float, 5), (lambda k: 5.0 if k == 3 else 1.0, 3)], ids=["grows", "only 3"]
)
def test_policy_converges_to_the_highest_reward(settings, loss_of_k, best):
    task = adaptive(Planted(loss_of_k), (2, 3, 4, 5), every_steps=1, optimizer=FAST, **settings)
    task.train()
    assert torch.allclose(probabilities(task), torch.full((4,), 0.25), atol=1e-5)
    record = train(task, epochs=200)
    task.train()
    found, losses = probabilities(task), torch.tensor([loss_of_k(k) for k in (2, 3, 4, 5)])
    assert found @ losses > losses.mean() + 0.25, "the policy moves to mixtures of higher loss"
    if settings or loss_of_k is not float:
        # Plain REINFORCE, without a baseline, may commit to the second best of rewards that differ little: which one it
        # commits to depends on rounding, and so on the processor.
        assert found[best - 2] > 0.8
        last = record.outcome["shares_over_time"][-1]
        assert last[best - 2] == max(last)


def test_look_ahead_is_one_step_on_copies():
    task = adaptive(every_steps=1, look_ahead_lr=0.05, look_ahead_clip_norm=None)
    task.train()
    task.begin_step(0, 0.0)
    twin = copy.deepcopy(task.recogniser)
    before = weights(task.recogniser)
    rng = torch.Generator().manual_seed(2)
    for parameter in task.recogniser.parameters():
        parameter.requires_grad_(False)  # as the loop does while the strategy is updated
    terms = task.loss("strategy", a_batch(), rng=rng, progress=0.0)
    assert torch.equal(weights(task.recogniser), before)
    assert all(p.grad is None for p in task.recogniser.parameters())

    _, mixed = task._mixed
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    loss = twin.mixture_loss(mixed, a_batch(), progress=0.0)["loss"]
    loss.backward()
    optimizer.step()
    left = twin.mixture_loss(mixed, a_batch(), progress=0.0)["loss"]
    assert torch.allclose(terms["reward_1"], loss.detach())
    assert torch.allclose(terms["reward_2"], left.detach(), rtol=1e-4)
    assert torch.allclose(terms["reward"], (loss + left).detach(), rtol=1e-4)
    assert terms["loss"].requires_grad
    # Plain REINFORCE from a uniform policy: -reward * log(1/3).
    assert torch.allclose(terms["loss"].detach(), terms["reward"] * torch.log(torch.tensor(3.0)), rtol=1e-4)


def test_look_ahead_step_is_clipped():
    steps = []
    for clip in (None, 1e-6):
        task = adaptive(every_steps=1, look_ahead_lr=0.05, look_ahead_clip_norm=clip)
        task.train()
        task.begin_step(0, 0.0)
        terms = task.loss("strategy", a_batch(), rng=torch.Generator().manual_seed(2), progress=0.0)
        steps.append(abs(float(terms["reward_1"] - terms["reward_2"])))
    assert steps[1] < 1e-3 < steps[0]


class HalfPrecision(RecogniserTask):
    """A recogniser whose gradients are tiny, or large, in the half-precision part of its backward pass."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.masker, self.mixer, self.size = ToyMasker(), None, size
        self.weight = nn.Parameter(torch.full((1, 8), 0.25))

    def optimizer_groups(self):
        return (OptimizerGroup(name="recogniser", parameters=[self.weight], lr=1e-3),)

    def mixture_loss(self, mixed, batch, *, progress):
        output_81 = nn.functional.linear(torch.eye(8), self.weight)
        return {"loss": output_81.float().sum() * self.size}

    def describe(self):
        return {"kind": "half precision"}


@pytest.mark.parametrize("size", [1e-9, 1.0, 50.0, 3000.0])
def test_look_ahead_in_half_precision_is_that_of_full_precision(size):
    """1e-9 becomes 0 in float16 unless the loss is scaled; 50 and 3000 overflow at the first scale."""
    # A step of 0.125 in each weight, whose gradient is `size`.
    task = adaptive(HalfPrecision(size), every_steps=1, look_ahead_lr=0.125 / size, look_ahead_clip_norm=None)
    task.train()
    task.begin_step(0, 0.0)
    with torch.autocast("cpu", dtype=torch.float16):
        terms = task.loss("strategy", a_batch(), rng=torch.Generator().manual_seed(2), progress=0.0)
    assert float(terms["reward_1"]) == pytest.approx(2.0 * size, rel=1e-3)
    assert float(terms["reward_2"]) == pytest.approx(1.0 * size, rel=1e-2)


def test_choosing_without_update_leaves_the_strategy_unchanged():
    task = adaptive(every_steps=4)
    task.train()
    task.begin_step(1, 0.1)
    before = weights(task.strategy)
    terms = task.loss("recogniser", a_batch(), rng=torch.Generator().manual_seed(2), progress=0.1)
    assert torch.equal(weights(task.strategy), before)
    assert task.strategy.training
    assert float(terms["num_images"]) == task._mixed[1].labels_Bk.shape[1]


def test_both_groups_of_a_step_use_the_same_mixture():
    task = adaptive(every_steps=1)
    task.train()
    task.begin_step(0, 0.0)
    rng = torch.Generator().manual_seed(2)
    task.loss("strategy", a_batch(), rng=rng, progress=0.0)
    mixture = task._mixed
    task.loss("recogniser", a_batch(), rng=rng, progress=0.0)
    assert task._mixed is mixture


def test_recogniser_is_trained_and_every_choice_is_counted_and_logged(tmp_path):
    task = adaptive(every_steps=4)
    record = train(task, run_dir=tmp_path, epochs=20)
    assert record.steps == 40
    assert float(task.chosen_WA.sum()) == 40
    assert sum(record.outcome["shares"]) == pytest.approx(1)
    assert record.outcome["candidates"] == ["mixup-2", "mixup-3", "mixup-4"]
    assert record.curve[-1][1] < record.curve[0][1]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 40
    assert sum('"strategy/loss"' in line for line in lines) == 10
    assert all('"recogniser/num_images"' in line for line in lines)
    assert "strategy/reward_2" in record.losses


def test_interrupted_run_resumes_bit_exactly(tmp_path):
    whole = adaptive(baseline_decay=0.9)
    train(whole, run_dir=tmp_path / "whole", epochs=6)

    class Cut(AdaptiveMixingTask):
        def begin_step(self, step, progress):
            if step == 7:
                raise KeyboardInterrupt
            super().begin_step(step, progress)

    cut = adaptive(baseline_decay=0.9)
    cut.__class__ = Cut
    with pytest.raises(KeyboardInterrupt):
        train(cut, run_dir=tmp_path / "cut", epochs=6)
    again = adaptive(baseline_decay=0.9)
    train(again, run_dir=tmp_path / "cut", epochs=6, resumes=True)
    assert torch.equal(weights(again), weights(whole))


def test_resuming_rejects_another_candidate_set(tmp_path):
    train(adaptive(), run_dir=tmp_path, epochs=4, max_steps=4)
    other = adaptive(sizes=(2, 3, 5))
    with pytest.raises(CheckpointError, match="mixer"):
        train(other, run_dir=tmp_path, epochs=4, max_steps=4, resumes=True)


def test_non_finite_reward_is_rejected():
    task = adaptive(Planted(lambda k: float("nan")), every_steps=1)
    with pytest.raises(RangeError, match="reward of the strategy is not finite"):
        train(task)


def test_adaptive_mixing_rejects_single_candidate_and_second_mixer():
    with pytest.raises(InvalidInputError, match="at least two mixers"):
        AdaptiveMixingTask(Planted(float), mixers(3), strategy(2))
    with pytest.raises(ShapeError, match="has 2 choices"):
        AdaptiveMixingTask(Planted(float), mixers(2, 3, 4), strategy(2))
    head = ArcFace(4, 16, seed=1)
    mixing = MarginTask(ToyMasker(), ToyBackbone(MASKED), head, mixer=MixUp())
    with pytest.raises(InvalidInputError, match="mixer=None"):
        adaptive(mixing)
    with pytest.raises(ProblemsError, match=r"(?s)every_steps=0.*reward_weights.*baseline_decay=1"):
        StrategySettings(every_steps=0, reward_weights=(0.0, 0.0), baseline_decay=1.0)
