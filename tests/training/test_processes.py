"""Training in several processes: equality with one process, error classes, and secrets that are not pickled."""

from __future__ import annotations

import pytest
import torch

from ppfr.core import CheckpointError, InvalidInputError, RangeError
from ppfr.masking import MixUp
from ppfr.models import ArcFace, StrategyNetwork
from ppfr.training import AdaptiveMixingTask, Batch, MarginTask, OptimizerSettings, Plan, StrategySettings
from ppfr.training._adaptive_mixing import _of_all_ranks
from ppfr.training._batches import BatchSource
from support.toy_training import (
    SIZE,
    KeyedTask,
    ToyBackbone,
    ToyImages,
    ToyMasker,
    ToyTask,
    build_keyed,
    run_fit,
    weights,
)

PLAN = Plan(epochs=3, batch_size=8, flip=0.0, clip_norm=1.0, checkpoint_every_steps=5)


def _fit(task, run_dir, **options):
    return run_fit(task, run_dir, plan=PLAN, **options)


@pytest.mark.slow
def test_ranks_partition_the_batch_of_a_single_process():
    one = BatchSource(ToyImages(), plan=PLAN, seed=4)
    ranks = [BatchSource(ToyImages(), plan=PLAN, seed=4, rank=rank, num_ranks=2) for rank in range(2)]
    for step in (0, 3, 4, 11):
        assert torch.equal(torch.cat([rank.indices(step) for rank in ranks]), one.indices(step))
    seen = torch.cat([one.indices(step) for step in range(4, 8)])
    assert sorted(seen.tolist()) == list(range(32))


@pytest.mark.slow
def test_two_processes_fail_resume_and_match_one_process(tmp_path):
    with pytest.raises(RangeError, match="requested by the test"):
        _fit(ToyTask(has_draws=False, raises_at=7, raised=RangeError), tmp_path, num_devices=2)
    single, double = ToyTask(has_draws=False), ToyTask(has_draws=False)
    expected = _fit(single, None)
    record = _fit(double, tmp_path, num_devices=2, resumes=True)
    assert (record.num_devices, record.resumed_at_steps, record.images_seen) == (2, [5], 96)
    torch.testing.assert_close(weights(double), weights(single), rtol=1e-4, atol=1e-5)
    assert record.losses["net/loss"] == pytest.approx(expected.losses["net/loss"], rel=0.5)
    with pytest.raises(CheckpointError, match="num_devices: 2 in the checkpoint, 1 now"):
        _fit(ToyTask(has_draws=False), tmp_path, resumes=True)


@pytest.mark.slow
def test_task_that_cannot_be_pickled_is_rebuilt_in_each_process():
    with pytest.raises(InvalidInputError, match=r"the task cannot .*holds a secret.*give rebuild="):
        _fit(KeyedTask(has_draws=False), None, num_devices=2)
    task, single = KeyedTask(has_draws=False), ToyTask(has_draws=False)
    for given in (task, single):
        # These weights differ from those of `build_keyed`, so they must be transferred.
        torch.nn.init.constant_(given.network[5].bias, 0.5)
    _fit(task, None, num_devices=2, rebuild=build_keyed)
    _fit(single, None)
    torch.testing.assert_close(weights(task), weights(single), rtol=1e-4, atol=1e-5)


def test_two_ranks_choose_one_mixture_by_the_images_of_both(tmp_path):
    """Each rank has other images and another generator; the policy, its gradient and the reward are those of both."""
    torch.multiprocessing.spawn(_strategy_step, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["choices"] == second["choices"] and len(set(first["choices"])) == 2
    assert torch.equal(first["policy"], second["policy"]) and torch.equal(first["reward"], second["reward"])
    # One process that holds the images of both ranks; the strategy has no BatchNorm statistics in evaluation mode.
    strategy = _strategy()
    masked_BKPQ = torch.cat([_masked(0), _masked(1)])
    log_probabilities_A = strategy(masked_BKPQ)
    torch.testing.assert_close(first["policy"], log_probabilities_A.detach())
    log_probabilities_A[0].backward()
    gradient = torch.cat([p.grad.flatten() for p in strategy.parameters()])
    torch.testing.assert_close((first["gradient"] + second["gradient"]) / 2, gradient, rtol=1e-3, atol=1e-6)


def _strategy() -> StrategyNetwork:
    strategy = StrategyNetwork((5, SIZE, SIZE), 2, width=4, seed=1).eval()
    torch.nn.init.normal_(strategy.last.weight, generator=torch.Generator().manual_seed(3))
    return strategy


def _masked(rank: int) -> torch.Tensor:
    return torch.rand(4, 5, SIZE, SIZE, generator=torch.Generator().manual_seed(rank)) * (1 + rank)


def _strategy_step(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )  # fmt: skip
    strategy = _strategy()
    policy_A = _of_all_ranks(strategy(_masked(rank)))
    policy_A[0].backward()
    recogniser = MarginTask(ToyMasker(), ToyBackbone((5, SIZE, SIZE)), ArcFace(4, 16, scale=16.0, seed=1))
    task = AdaptiveMixingTask(recogniser, [MixUp(num_images=2), MixUp(num_images=3)], _strategy())
    batch = Batch(
        images_BCHW=torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(rank)),
        labels_B=torch.arange(4),
        indices_B=torch.arange(4),
    )
    rng, choices, terms = torch.Generator().manual_seed(rank), [], {}
    for step in range(12):
        task.begin_step(step, 0.0)
        terms = task.loss("strategy", batch, rng=rng, progress=0.0)
        assert task._mixed is not None
        choices.append(task._mixed[0])
    torch.save(
        {
            "choices": choices,
            "policy": policy_A.detach(),
            "gradient": torch.cat([p.grad.flatten() for p in strategy.parameters() if p.grad is not None]),
            "reward": terms["reward"],
        },
        f"{folder}/{rank}.pt",
    )
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_adaptive_mixing_in_two_processes():
    masked = (5, SIZE, SIZE)
    recogniser = MarginTask(
        ToyMasker(), ToyBackbone(masked), ArcFace(4, 16, scale=16.0, seed=1), optimizer=OptimizerSettings(lr=0.01)
    )
    task = AdaptiveMixingTask(
        recogniser,
        [MixUp(num_images=2), MixUp(num_images=3)],
        StrategyNetwork(masked, 2, width=4, seed=1),
        settings=StrategySettings(every_steps=2, baseline_decay=0.9),
    )
    before = weights(task.strategy)
    record = _fit(task, None, num_devices=2)
    # Counts are averaged over processes like every buffer: they are whole numbers only if the choices are the same.
    assert float(task.chosen_WA.sum()) == pytest.approx(record.steps)
    assert torch.equal(task.chosen_WA, task.chosen_WA.round())
    assert sum(record.outcome["shares"]) == pytest.approx(1)
    assert not torch.equal(weights(task.strategy), before)
