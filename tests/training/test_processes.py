"""Training in several processes: equality with one process, error classes, and secrets that are not pickled."""

from __future__ import annotations

import pytest
import torch

from ppfr.core import CheckpointError, InvalidInputError, RangeError
from ppfr.masking import MixUp
from ppfr.models import ArcFace, StrategyNetwork
from ppfr.training import AdaptiveMixingTask, MarginTask, OptimizerSettings, Plan, StrategySettings
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
    # Each process counts its own choices, and counts are averaged like every buffer, so the sum is one per step.
    assert float(task.chosen_WA.sum()) == pytest.approx(record.steps)
    assert sum(record.outcome["shares"]) == pytest.approx(1)
    assert not torch.equal(weights(task.strategy), before)
