"""The strategy learns to choose the mixture that costs most, and touches nothing of the recogniser's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from toy_training import SIZE, ToyBackbone, ToyImages, ToyMasker, weights

from ppfr.core import CheckpointError, InvalidInputError, ProblemsError, RangeError, ShapeError
from ppfr.masking import MixUp
from ppfr.models import ArcFace, StrategyNetwork
from ppfr.training import (
    AdaptiveMixingObjective,
    Batch,
    MarginObjective,
    OptimiserSettings,
    Plan,
    Player,
    RecogniserObjective,
    StrategySettings,
    fit,
)

MASKED = (5, SIZE, SIZE)
# Ten times this rate, and plain REINFORCE settles on what it happens to draw first.
FAST = OptimiserSettings(optimiser="adam", lr=2e-3, weight_decay=0.0)
ADAM = OptimiserSettings(optimiser="adam", lr=1e-2, weight_decay=0.0)


class Planted(RecogniserObjective):
    """A recogniser whose loss is a given function of how many images were mixed."""

    def __init__(self, loss_of_k) -> None:
        super().__init__()
        self.masker, self.mixer, self.loss_of_k = ToyMasker(), None, loss_of_k
        self.weight = nn.Parameter(torch.ones(1))

    def players(self):
        return (Player(name="recogniser", parameters=[self.weight], lr=1e-3),)

    def mixture_loss(self, mixed, batch, *, progress):
        return {"loss": self.loss_of_k(mixed.labels_Bk.shape[1]) + 0.0 * self.weight.sum()}

    def describe(self):
        return {"kind": "planted"}


def mixers(*sizes: int, cap: float = 0.55) -> list[MixUp]:
    return [MixUp(num_images=k, max_weight=cap) for k in sizes]


def strategy(num: int, seed: int = 1) -> StrategyNetwork:
    return StrategyNetwork(MASKED, num, width=4, seed=seed)


def adaptive(recogniser=None, sizes=(2, 3, 4), **settings) -> AdaptiveMixingObjective:
    if recogniser is None:
        head = ArcFace(4, 16, scale=16.0, margin=0.2, seed=1)
        recogniser = MarginObjective(ToyMasker(), ToyBackbone(MASKED), head, optimiser=ADAM)
    return AdaptiveMixingObjective(
        recogniser, mixers(*sizes), strategy(len(sizes)), settings=StrategySettings(**settings)
    )


def train(objective, *, run_dir=None, passes=8, resume=False, max_steps=None):
    plan = Plan(
        passes=passes, batch_size=16, schedule="constant", checkpoint_every_steps=4, log_every_steps=1,
        max_steps=max_steps,
    )  # fmt: skip
    return fit(objective, ToyImages(), plan=plan, seed=4, run_dir=run_dir, device="cpu", progress=False, resume=resume)


def a_batch() -> Batch:
    images = ToyImages()
    pixels = torch.from_numpy(images.pixels[::2]).permute(0, 3, 1, 2) / 255
    return Batch(images_BCHW=pixels, labels_B=torch.arange(4).repeat_interleave(4), indices_B=torch.arange(16))


def probabilities(objective: AdaptiveMixingObjective) -> torch.Tensor:
    masked = ToyMasker().mask(a_batch().images_BCHW, rng=torch.Generator().manual_seed(1))
    return objective.strategy.log_probabilities(masked).detach().exp()


@pytest.mark.parametrize(
    "settings",
    [{}, {"baseline_decay": 0.9}, {"baseline_decay": 0.9, "entropy_weight": 0.02}],
    ids=["plain", "baseline", "baseline and entropy"],
)
@pytest.mark.parametrize(
    ("loss_of_k", "best"), [(float, 5), (lambda k: 5.0 if k == 3 else 1.0, 3)], ids=["grows", "only 3"]
)
def test_the_policy_moves_to_what_pays(settings, loss_of_k, best):
    objective = adaptive(Planted(loss_of_k), (2, 3, 4, 5), every_steps=1, optimiser=FAST, **settings)
    objective.train()
    assert torch.allclose(probabilities(objective), torch.full((4,), 0.25), atol=1e-5)
    record = train(objective, passes=200)
    objective.train()
    assert probabilities(objective)[best - 2] > 0.8
    last = record.outcome["shares_over_time"][-1]
    assert last[best - 2] == max(last)


def test_the_look_ahead_is_one_step_on_copies_and_leaves_everything_as_it_was():
    objective = adaptive(every_steps=1, look_ahead_lr=0.05, look_ahead_clip_norm=None)
    objective.train()
    objective.begin_step(0, 0.0)
    twin = copy.deepcopy(objective.recogniser)
    before = weights(objective.recogniser)
    rng = torch.Generator().manual_seed(2)
    for parameter in objective.recogniser.parameters():
        parameter.requires_grad_(False)  # as the loop does in the strategy's turn
    terms = objective.loss("strategy", a_batch(), rng=rng, progress=0.0)
    assert torch.equal(weights(objective.recogniser), before)
    assert all(p.grad is None for p in objective.recogniser.parameters())

    _, mixed = objective._mixed
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.05)
    loss = twin.mixture_loss(mixed, a_batch(), progress=0.0)["loss"]
    loss.backward()
    optimiser.step()
    left = twin.mixture_loss(mixed, a_batch(), progress=0.0)["loss"]
    assert torch.allclose(terms["reward_1"], loss.detach())
    assert torch.allclose(terms["reward_2"], left.detach(), rtol=1e-4)
    assert torch.allclose(terms["reward"], (loss + left).detach(), rtol=1e-4)
    assert terms["loss"].requires_grad
    # Plain REINFORCE from a uniform policy: -reward * log(1/3).
    assert torch.allclose(terms["loss"].detach(), terms["reward"] * torch.log(torch.tensor(3.0)), rtol=1e-4)


def test_the_look_ahead_step_is_clipped():
    steps = []
    for clip in (None, 1e-6):
        objective = adaptive(every_steps=1, look_ahead_lr=0.05, look_ahead_clip_norm=clip)
        objective.train()
        objective.begin_step(0, 0.0)
        terms = objective.loss("strategy", a_batch(), rng=torch.Generator().manual_seed(2), progress=0.0)
        steps.append(abs(float(terms["reward_1"] - terms["reward_2"])))
    assert steps[1] < 1e-3 < steps[0]


def test_choosing_without_learning_leaves_the_strategy_as_it_was():
    objective = adaptive(every_steps=4)
    objective.train()
    objective.begin_step(1, 0.1)
    before = weights(objective.strategy)
    terms = objective.loss("recogniser", a_batch(), rng=torch.Generator().manual_seed(2), progress=0.1)
    assert torch.equal(weights(objective.strategy), before)
    assert objective.strategy.training
    assert float(terms["num_images"]) == objective._mixed[1].labels_Bk.shape[1]


def test_both_players_of_a_step_see_one_mixture():
    objective = adaptive(every_steps=1)
    objective.train()
    objective.begin_step(0, 0.0)
    rng = torch.Generator().manual_seed(2)
    objective.loss("strategy", a_batch(), rng=rng, progress=0.0)
    mixture = objective._mixed
    objective.loss("recogniser", a_batch(), rng=rng, progress=0.0)
    assert objective._mixed is mixture


def test_the_recogniser_learns_and_every_choice_is_counted_and_logged(tmp_path):
    objective = adaptive(every_steps=4)
    record = train(objective, run_dir=tmp_path, passes=20)
    assert record.steps == 40
    assert float(objective.chosen_WA.sum()) == 40
    assert sum(record.outcome["shares"]) == pytest.approx(1)
    assert record.outcome["candidates"] == ["mixup-2", "mixup-3", "mixup-4"]
    assert record.curve[-1][1] < record.curve[0][1]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 40
    assert sum('"strategy/loss"' in line for line in lines) == 10
    assert all('"recogniser/num_images"' in line for line in lines)
    assert "strategy/reward_2" in record.losses


def test_a_run_cut_short_goes_on_bit_for_bit(tmp_path):
    whole = adaptive(baseline_decay=0.9)
    train(whole, run_dir=tmp_path / "whole", passes=6)

    class Cut(AdaptiveMixingObjective):
        def begin_step(self, step, progress):
            if step == 7:
                raise KeyboardInterrupt
            super().begin_step(step, progress)

    cut = adaptive(baseline_decay=0.9)
    cut.__class__ = Cut
    with pytest.raises(KeyboardInterrupt):
        train(cut, run_dir=tmp_path / "cut", passes=6)
    again = adaptive(baseline_decay=0.9)
    train(again, run_dir=tmp_path / "cut", passes=6, resume=True)
    assert torch.equal(weights(again), weights(whole))


def test_another_candidate_set_is_no_resumption(tmp_path):
    train(adaptive(), run_dir=tmp_path, passes=4, max_steps=4)
    other = adaptive(sizes=(2, 3, 5))
    with pytest.raises(CheckpointError, match="mixer"):
        train(other, run_dir=tmp_path, passes=4, max_steps=4, resume=True)


def test_a_reward_that_is_no_number_is_refused():
    objective = adaptive(Planted(lambda k: float("nan")), every_steps=1)
    with pytest.raises(RangeError, match="reward is not finite"):
        train(objective)


def test_what_leaves_no_choice_or_mixes_twice_is_refused():
    with pytest.raises(InvalidInputError, match="nothing to choose"):
        AdaptiveMixingObjective(Planted(float), mixers(3), strategy(2))
    with pytest.raises(ShapeError, match="chooses among 2"):
        AdaptiveMixingObjective(Planted(float), mixers(2, 3, 4), strategy(2))
    head = ArcFace(4, 16, seed=1)
    mixing = MarginObjective(ToyMasker(), ToyBackbone(MASKED), head, mixer=MixUp())
    with pytest.raises(InvalidInputError, match="mixes already"):
        adaptive(mixing)
    with pytest.raises(ProblemsError, match=r"(?s)every_steps=0.*reward_weights.*baseline_decay=1"):
        StrategySettings(every_steps=0, reward_weights=(0.0, 0.0), baseline_decay=1.0)
