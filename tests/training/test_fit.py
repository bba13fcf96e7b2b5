"""`fit`: equality with a plain loop, bit-exact resuming, and rejected input."""

from __future__ import annotations

import json
import multiprocessing
import signal

import pytest
import torch

from ppfr.core import CheckpointError, DatasetError, DeviceError, InvalidInputError, RangeError, ShapeError
from ppfr.training import Plan
from reference import training_loop
from support.toy_training import ToyGan, ToyImages, ToyTask, run_fit, weights

PLAN = Plan(epochs=3, batch_size=8, warmup_steps=2, clip_norm=1.0, checkpoint_every_steps=5, channels_last=False)


def _fit(task, run_dir, *, plan=PLAN, **options):
    return run_fit(task, run_dir, plan=plan, **options)


def test_fit_equals_a_plain_training_loop():
    plain = ToyTask()
    with torch.random.fork_rng():
        training_loop.train_plainly(
            plain, ToyImages(), epochs=3, batch_size=8, warmup_steps=2, clip_norm=1.0, flip=0.5, seed=1
        )
    task = ToyTask()
    record = _fit(task, None)
    assert torch.equal(weights(task), weights(plain))
    assert (record.steps, record.images_seen, record.seed, record.device) == (12, 96, 1, "cpu")


def test_seed_and_mirroring_change_the_result():
    results = []
    for seed, flip in ((1, 0.5), (2, 0.5), (1, 0.0)):
        task = ToyTask()
        _fit(task, None, seed=seed, plan=Plan(epochs=1, batch_size=8, flip=flip))
        results.append(weights(task))
    assert not any(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("optimizer", "step", "num_prefetch", "channels_last"),
    [("sgd", 3, 2, False), ("sgd", 5, 0, True), ("adamw", 6, 2, True), ("adam", 11, 1, True)],
)
def test_interrupted_run_resumes_bit_exactly(tmp_path, optimizer, step, num_prefetch, channels_last):
    plan = Plan(
        epochs=3, batch_size=8, checkpoint_every_steps=5, num_prefetch=num_prefetch, channels_last=channels_last
    )
    whole = ToyTask(optimizer=optimizer)
    expected = _fit(whole, None, plan=plan)
    with pytest.raises(KeyboardInterrupt):
        _fit(ToyTask(optimizer=optimizer, raises_at=step), tmp_path, plan=plan)
    # The checkpoint holds all weights, so different initial weights do not matter. Without a checkpoint, keep them.
    resumed = ToyTask(optimizer=optimizer)
    if step >= 5:
        with torch.no_grad():
            for parameter in resumed.parameters():
                parameter.zero_()
    record = _fit(resumed, tmp_path, plan=plan, resumes=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert record.losses == expected.losses
    assert record.curve == expected.curve
    assert record.resumed_at_steps == [] if step < 5 else [step // 5 * 5]


@pytest.mark.parametrize(("step", "times"), [(3, 2), (6, 1)], ids=["before a checkpoint", "after one"])
def test_prepare_is_called_only_without_a_checkpoint(tmp_path, step, times):
    calls = []
    for task, options in ((ToyTask(raises_at=step), {}), (ToyTask(), {"resumes": True})):

        def prepare(task=task):
            calls.append(task)
            with torch.no_grad():
                for parameter in task.parameters():
                    parameter.mul_(0.5)

        try:
            _fit(task, tmp_path, prepare=prepare, **options)
        except KeyboardInterrupt:
            assert step == 3 or list((tmp_path / "checkpoints").iterdir())
    assert len(calls) == times
    whole = ToyTask()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(0.5)
    _fit(whole, None)
    assert torch.equal(weights(task), weights(whole))


def _run_until_killed(run_dir):
    torch.set_num_threads(1)
    _fit(ToyTask(killed_at=8), run_dir)


def test_run_killed_by_signal_resumes_bit_exactly(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_run_until_killed, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    whole, resumed = ToyTask(), ToyTask()
    _fit(whole, None)
    record = _fit(resumed, tmp_path, resumes=True)
    assert record.resumed_at_steps == [5]
    assert torch.equal(weights(resumed), weights(whole))


def test_gan_interrupted_between_optimizer_groups_resumes_bit_exactly(tmp_path):
    whole, resumed = ToyGan(), ToyGan()
    _fit(whole, None)
    with pytest.raises(KeyboardInterrupt):
        _fit(ToyGan(killed_at=(7, "painter")), tmp_path)
    _fit(resumed, tmp_path, resumes=True)
    assert torch.equal(weights(resumed), weights(whole))


def test_finished_run_is_loaded_without_training(tmp_path):
    first, again = ToyTask(), ToyTask(raises_at=0)
    expected = _fit(first, tmp_path)
    record = _fit(again, tmp_path, resumes=True)
    assert torch.equal(weights(again), weights(first))
    assert record.losses == expected.losses
    assert record.wall_s == pytest.approx(expected.wall_s, rel=0.5)


def test_fit_leaves_global_state_and_images_unchanged(tmp_path):
    torch.manual_seed(11)
    before, images = torch.get_rng_state(), ToyImages()
    pixels = images.pixels.copy()
    task = ToyTask()
    record = _fit(task, tmp_path, images=images)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (images.pixels == pixels).all()
    assert not task.training
    assert all(p.grad is None and p.requires_grad for p in task.parameters())
    assert json.loads(json.dumps(record.as_dict())) == record.as_dict()
    assert record.peak_memory_bytes > 2**20
    assert len(record.curve) == 12


def test_resuming_rejects_another_configuration_and_names_the_difference(tmp_path):
    _fit(ToyTask(), tmp_path)
    with pytest.raises(CheckpointError, match=r"seed: 1 in the checkpoint, 2 now"):
        _fit(ToyTask(), tmp_path, seed=2, resumes=True)
    plan = Plan(epochs=3, batch_size=16, warmup_steps=2, clip_norm=1.0, channels_last=False)
    with pytest.raises(CheckpointError, match=r"plan\.batch_size: 8 in the checkpoint, 16 now"):
        _fit(ToyTask(), tmp_path, plan=plan, resumes=True)
    with pytest.raises(CheckpointError, match=r"task\.settings\.lr: 0\.05 in the checkpoint, 0\.01 now"):
        _fit(ToyTask(lr=0.01), tmp_path, resumes=True)
    with pytest.raises(CheckpointError, match=r"data\.num_images: 32 in the checkpoint, 48 now"):
        _fit(ToyTask(), tmp_path, images=ToyImages(num_each=12), resumes=True)
    with pytest.raises(CheckpointError, match="holds checkpoints of an earlier run"):
        _fit(ToyTask(), tmp_path)
    with pytest.raises(CheckpointError, match="resumes=True needs the run_dir"):
        _fit(ToyTask(), None, resumes=True)


def test_resuming_rejects_a_checkpoint_of_another_model(tmp_path):
    class Wider(ToyTask):
        def __init__(self):
            super().__init__()
            self.network[5] = torch.nn.Linear(512, 9)

    _fit(ToyTask(), tmp_path)
    with pytest.raises(CheckpointError, match=r"another model: 2 tensors differ .*network\.5\.bias"):
        _fit(Wider(), tmp_path, resumes=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="requires a machine without CUDA")
def test_fit_rejects_missing_device():
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=device):
            _fit(ToyTask(), None, device=device)


def test_fit_rejects_contradicting_settings():
    with pytest.raises(DeviceError, match="'16-mixed' requires a GPU"):
        _fit(ToyTask(), None, plan=Plan(epochs=1, batch_size=8, precision="16-mixed"))
    with pytest.raises(InvalidInputError, match="sync_batchnorm requires several CUDA devices"):
        _fit(ToyTask(), None, plan=Plan(epochs=1, batch_size=8, sync_batchnorm=True))
    with pytest.raises(InvalidInputError, match="num_devices=3 with batch_size=8"):
        _fit(ToyTask(), None, num_devices=3)
    with pytest.raises(DatasetError, match="32 images and a batch has 64"):
        _fit(ToyTask(), None, plan=Plan(epochs=1, batch_size=64))
    with pytest.raises(InvalidInputError, match="with_tensorboard=True needs a run_dir"):
        _fit(ToyTask(), None, with_tensorboard=True)


def test_non_finite_loss_stops_the_run_and_keeps_earlier_checkpoints(tmp_path):
    class Bursting(ToyTask):
        def loss(self, group, batch, *, rng, progress):
            terms = super().loss(group, batch, rng=rng, progress=progress)
            return {"loss": terms["loss"] * (float("nan") if self._step == 6 else 1.0)}

    with pytest.raises(RangeError, match=r"net/loss is not finite at step 6.*optimizer group 'net' \(now 0.05"):
        _fit(Bursting(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000005.safetensors"]


def test_fit_rejects_image_set_with_wrong_shape():
    class Grey(ToyImages):
        def read(self, indices):
            return super().read(indices)[..., 0]

    with pytest.raises(ShapeError, match=r"'toy' returned uint8 of shape \(8, 16, 16\)"):
        _fit(ToyTask(), None, images=Grey())


def test_bf16_loss_is_close_to_full_precision():
    full, half = ToyTask(has_draws=False), ToyTask(has_draws=False)
    plan = {"epochs": 6, "batch_size": 8, "flip": 0.0}
    expected = _fit(full, None, plan=Plan(**plan)).losses["net/loss"]
    record = _fit(half, None, plan=Plan(**plan, precision="bf16-mixed"))
    assert record.precision == "bf16-mixed"
    assert record.losses["net/loss"] == pytest.approx(expected, rel=0.1)
    assert all(p.dtype == torch.float32 for p in half.parameters())
