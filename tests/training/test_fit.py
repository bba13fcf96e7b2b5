"""The loop: the same numbers as a plain loop, the same bits after being killed, and clear refusals."""

from __future__ import annotations

import json
import multiprocessing
import signal

import pytest
import torch
from toy_training import ToyGan, ToyImages, ToyObjective, weights

from ppfr.core import CheckpointError, DatasetError, DeviceError, InvalidInputError, RangeError, ShapeError
from ppfr.training import Plan, fit

PLAN = Plan(passes=3, batch_size=8, warmup_steps=2, clip_norm=1.0, checkpoint_every_steps=5, channels_last=False)


def _fit(objective, run_dir, *, plan=PLAN, seed=1, **options):
    return fit(objective, ToyImages(), plan=plan, seed=seed, run_dir=run_dir, device="cpu", progress=False, **options)


def _load(name):
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "reference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_computes_what_a_plain_loop_computes():
    plain = ToyObjective()
    with torch.random.fork_rng():
        _load("training_loop").train_plainly(
            plain, ToyImages(), passes=3, batch_size=8, warmup_steps=2, clip_norm=1.0, flip=0.5, seed=1
        )
    ours = ToyObjective()
    record = _fit(ours, None)
    assert torch.equal(weights(ours), weights(plain))
    assert (record.steps, record.images_seen, record.seed, record.device) == (12, 96, 1, "cpu")


def test_another_seed_and_no_mirroring_give_another_result():
    results = []
    for seed, flip in ((1, 0.5), (2, 0.5), (1, 0.0)):
        objective = ToyObjective()
        _fit(objective, None, seed=seed, plan=Plan(passes=1, batch_size=8, flip=flip))
        results.append(weights(objective))
    assert not any(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("optimiser", "step", "num_prefetch", "channels_last"),
    [("sgd", 3, 2, False), ("sgd", 5, 0, True), ("adamw", 6, 2, True), ("adam", 11, 1, True)],
)
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, optimiser, step, num_prefetch, channels_last):
    plan = Plan(
        passes=3, batch_size=8, checkpoint_every_steps=5, num_prefetch=num_prefetch, channels_last=channels_last
    )
    whole = ToyObjective(optimiser=optimiser)
    expected = _fit(whole, None, plan=plan)
    with pytest.raises(KeyboardInterrupt):
        _fit(ToyObjective(optimiser=optimiser, raises_at=step), tmp_path, plan=plan)
    # Other first weights: the checkpoint holds all of them. Without one yet, the run begins again, so keep them.
    resumed = ToyObjective(optimiser=optimiser)
    if step >= 5:
        with torch.no_grad():
            for parameter in resumed.parameters():
                parameter.zero_()
    record = _fit(resumed, tmp_path, plan=plan, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert record.losses == expected.losses
    assert record.curve == expected.curve
    assert record.resumed_at_steps == [] if step < 5 else [step // 5 * 5]


@pytest.mark.parametrize(("step", "times"), [(3, 2), (6, 1)], ids=["before a checkpoint", "after one"])
def test_first_weights_are_made_anew_only_where_no_checkpoint_holds_them(tmp_path, step, times):
    calls = []
    for objective, options in ((ToyObjective(raises_at=step), {}), (ToyObjective(), {"resume": True})):

        def prepare(objective=objective):
            calls.append(objective)
            with torch.no_grad():
                for parameter in objective.parameters():
                    parameter.mul_(0.5)

        try:
            _fit(objective, tmp_path, prepare=prepare, **options)
        except KeyboardInterrupt:
            assert step == 3 or list((tmp_path / "checkpoints").iterdir())
    assert len(calls) == times
    whole = ToyObjective()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(0.5)
    _fit(whole, None)
    assert torch.equal(weights(objective), weights(whole))


def _run_until_killed(run_dir):
    torch.set_num_threads(1)
    _fit(ToyObjective(killed_at=8), run_dir)


def test_a_run_that_was_killed_by_the_system_resumes_to_the_same_bits(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_run_until_killed, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    whole, resumed = ToyObjective(), ToyObjective()
    _fit(whole, None)
    record = _fit(resumed, tmp_path, resume=True)
    assert record.resumed_at_steps == [5]
    assert torch.equal(weights(resumed), weights(whole))


def test_a_gan_killed_between_its_players_turns_resumes_to_the_same_bits(tmp_path):
    whole, resumed = ToyGan(), ToyGan()
    _fit(whole, None)
    with pytest.raises(KeyboardInterrupt):
        _fit(ToyGan(killed_at=(7, "painter")), tmp_path)
    _fit(resumed, tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path):
    first, again = ToyObjective(), ToyObjective(raises_at=0)
    expected = _fit(first, tmp_path)
    record = _fit(again, tmp_path, resume=True)
    assert torch.equal(weights(again), weights(first))
    assert record.losses == expected.losses
    assert record.wall_s == pytest.approx(expected.wall_s, rel=0.5)


def test_the_callers_draws_settings_and_images_are_left_alone(tmp_path):
    torch.manual_seed(11)
    before, images = torch.get_rng_state(), ToyImages()
    pixels = images.pixels.copy()
    objective = ToyObjective()
    record = fit(objective, images, plan=PLAN, seed=1, run_dir=tmp_path, device="cpu", progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (images.pixels == pixels).all()
    assert not objective.training
    assert all(p.grad is None and p.requires_grad for p in objective.parameters())
    assert json.loads(json.dumps(record.as_dict())) == record.as_dict()
    assert record.peak_memory_bytes > 2**20
    assert len(record.curve) == 12


def test_a_checkpoint_of_another_configuration_is_refused_and_the_difference_named(tmp_path):
    _fit(ToyObjective(), tmp_path)
    with pytest.raises(CheckpointError, match=r"seed: 1 in the checkpoint, 2 now"):
        _fit(ToyObjective(), tmp_path, seed=2, resume=True)
    plan = Plan(passes=3, batch_size=16, warmup_steps=2, clip_norm=1.0, channels_last=False)
    with pytest.raises(CheckpointError, match=r"plan\.batch_size: 8 in the checkpoint, 16 now"):
        _fit(ToyObjective(), tmp_path, plan=plan, resume=True)
    with pytest.raises(CheckpointError, match=r"objective\.settings\.lr: 0\.05 in the checkpoint, 0\.01 now"):
        _fit(ToyObjective(lr=0.01), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"data\.num_images: 32 in the checkpoint, 48 now"):
        fit(ToyObjective(), ToyImages(num_each=12), plan=PLAN, seed=1, run_dir=tmp_path, device="cpu", resume=True)
    with pytest.raises(CheckpointError, match="holds checkpoints of an earlier run"):
        _fit(ToyObjective(), tmp_path)
    with pytest.raises(CheckpointError, match="needs a run_dir"):
        _fit(ToyObjective(), None, resume=True)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    class Wider(ToyObjective):
        def __init__(self):
            super().__init__()
            self.network[5] = torch.nn.Linear(512, 9)

    _fit(ToyObjective(), tmp_path)
    with pytest.raises(CheckpointError, match=r"another model: 2 tensors differ .*network\.5\.bias"):
        _fit(Wider(), tmp_path, resume=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device that the test wants missing")
def test_a_device_that_is_not_there_is_an_error():
    for asked in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match="was asked for"):
            fit(ToyObjective(), ToyImages(), plan=PLAN, seed=1, run_dir=None, device=asked)


def test_settings_that_cannot_be_kept_are_refused():
    with pytest.raises(DeviceError, match="'16-mixed' needs a GPU"):
        _fit(ToyObjective(), None, plan=Plan(passes=1, batch_size=8, precision="16-mixed"))
    with pytest.raises(InvalidInputError, match="sync_batchnorm needs several CUDA devices"):
        _fit(ToyObjective(), None, plan=Plan(passes=1, batch_size=8, sync_batchnorm=True))
    with pytest.raises(InvalidInputError, match="divides the batch"):
        _fit(ToyObjective(), None, num_devices=3)
    with pytest.raises(DatasetError, match="32 images and a batch has 64"):
        _fit(ToyObjective(), None, plan=Plan(passes=1, batch_size=64))
    with pytest.raises(InvalidInputError, match="tensorboard=True needs a run_dir"):
        _fit(ToyObjective(), None, tensorboard=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_good_checkpoints(tmp_path):
    class Bursting(ToyObjective):
        def loss(self, player, batch, *, rng, progress):
            terms = super().loss(player, batch, rng=rng, progress=progress)
            return {"loss": terms["loss"] * (float("nan") if self._step == 6 else 1.0)}

    with pytest.raises(
        RangeError, match=r"net/loss is not finite at step 6; lower the rate of player 'net' \(now 0.05"
    ):
        _fit(Bursting(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000005.safetensors"]


def test_a_broken_image_set_is_named():
    class Grey(ToyImages):
        def read(self, indices):
            return super().read(indices)[..., 0]

    with pytest.raises(ShapeError, match=r"'toy' gave uint8 of shape \(8, 16, 16\)"):
        fit(ToyObjective(), Grey(), plan=PLAN, seed=1, run_dir=None, device="cpu", progress=False)


def test_half_precision_trains_close_to_full_precision():
    full, half = ToyObjective(has_draws=False), ToyObjective(has_draws=False)
    plan = {"passes": 6, "batch_size": 8, "flip": 0.0}
    expected = _fit(full, None, plan=Plan(**plan)).losses["net/loss"]
    record = _fit(half, None, plan=Plan(**plan, precision="bf16-mixed"))
    assert record.precision == "bf16-mixed"
    assert record.losses["net/loss"] == pytest.approx(expected, rel=0.1)
    assert all(p.dtype == torch.float32 for p in half.parameters())
