"""Several processes: the same training as one, errors of their own class, nothing secret pickled."""

from __future__ import annotations

import pytest
import torch
from toy_training import SIZE, KeyedObjective, ToyBackbone, ToyImages, ToyMasker, ToyObjective, build_keyed, weights

from ppfr.core import CheckpointError, InvalidInputError, RangeError
from ppfr.masking import MixUp
from ppfr.models import ArcFace, StrategyNetwork
from ppfr.training import AdaptiveMixingObjective, MarginObjective, OptimiserSettings, Plan, StrategySettings, fit
from ppfr.training._batches import BatchSource

PLAN = Plan(passes=3, batch_size=8, flip=0.0, clip_norm=1.0, checkpoint_every_steps=5)


def _fit(objective, run_dir, **options):
    return fit(objective, ToyImages(), plan=PLAN, seed=1, run_dir=run_dir, device="cpu", progress=False, **options)


def test_ranks_share_out_the_batch_of_a_single_process():
    one = BatchSource(ToyImages(), plan=PLAN, seed=4)
    ranks = [BatchSource(ToyImages(), plan=PLAN, seed=4, rank=rank, num_ranks=2) for rank in range(2)]
    for step in (0, 3, 4, 11):
        assert torch.equal(torch.cat([rank.indices(step) for rank in ranks]), one.indices(step))
    seen = torch.cat([one.indices(step) for step in range(4, 8)])
    assert sorted(seen.tolist()) == list(range(32))


@pytest.mark.slow
def test_two_processes_fail_resume_and_end_where_one_process_ends(tmp_path):
    with pytest.raises(RangeError, match="asked for by the test"):
        _fit(ToyObjective(has_draws=False, raises_at=7, raised=RangeError), tmp_path, num_devices=2)
    single, double = ToyObjective(has_draws=False), ToyObjective(has_draws=False)
    expected = _fit(single, None)
    record = _fit(double, tmp_path, num_devices=2, resume=True)
    assert (record.num_devices, record.resumed_at_steps, record.images_seen) == (2, [5], 96)
    torch.testing.assert_close(weights(double), weights(single), rtol=1e-4, atol=1e-5)
    assert record.losses["net/loss"] == pytest.approx(expected.losses["net/loss"], rel=0.5)
    with pytest.raises(CheckpointError, match="num_devices: 2 in the checkpoint, 1 now"):
        _fit(ToyObjective(has_draws=False), tmp_path, resume=True)


@pytest.mark.slow
def test_an_objective_that_refuses_pickling_is_rebuilt_in_each_process():
    with pytest.raises(InvalidInputError, match=r"the objective cannot .*holds a secret.*give rebuild="):
        _fit(KeyedObjective(has_draws=False), None, num_devices=2)
    objective, single = KeyedObjective(has_draws=False), ToyObjective(has_draws=False)
    for given in (objective, single):
        # Not the weights that `build_keyed` draws: they have to travel.
        torch.nn.init.constant_(given.network[5].bias, 0.5)
    _fit(objective, None, num_devices=2, rebuild=build_keyed)
    _fit(single, None)
    torch.testing.assert_close(weights(objective), weights(single), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_strategy_chooses_in_every_process_and_all_learn_from_all():
    masked = (5, SIZE, SIZE)
    recogniser = MarginObjective(
        ToyMasker(), ToyBackbone(masked), ArcFace(4, 16, scale=16.0, seed=1), optimiser=OptimiserSettings(lr=0.01)
    )
    objective = AdaptiveMixingObjective(
        recogniser,
        [MixUp(num_images=2), MixUp(num_images=3)],
        StrategyNetwork(masked, 2, width=4, seed=1),
        settings=StrategySettings(every_steps=2, baseline_decay=0.9),
    )
    before = weights(objective.strategy)
    record = _fit(objective, None, num_devices=2)
    # Each process counts its own choices, and counts are averaged like every buffer: one a step remains.
    assert float(objective.chosen_WA.sum()) == pytest.approx(record.steps)
    assert sum(record.outcome["shares"]) == pytest.approx(1)
    assert not torch.equal(weights(objective.strategy), before)
