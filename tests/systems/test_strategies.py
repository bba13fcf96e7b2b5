"""Training strategies: reproducible tasks, rejected names, and keyed maskers in several processes."""

from __future__ import annotations

import pytest
import torch

from ppfr.core import InvalidInputError, RunOptions
from ppfr.masking import PpfrFd
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import Distillation, FineTuning, FromScratch
from ppfr.training import Plan

STRATEGY = FromScratch(
    plan=Plan(epochs=1, batch_size=8, max_steps=2, channels_last=False), network="mobilefacenet-small", scale=16.0
)
SECRET = bytes(range(32))


def test_build_is_deterministic():
    masker = PpfrFd(secret=SECRET)
    first, second = (STRATEGY.build(masker, num_classes=4, seed=3)[1].state_dict() for _ in range(2))
    other = STRATEGY.build(masker, num_classes=4, seed=4)[1].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("strategy", "options", "name"),
    [
        (FromScratch, {"network": "vgg"}, "ir18"),
        (FromScratch, {"head": "softmax"}, "arcface"),
        (Distillation, {"teacher": "me"}, "mobilefacenet-y1"),
        (Distillation, {"network": "vgg"}, "ir18"),
        (FineTuning, {"teacher": "me"}, "mobilefacenet-y1"),
        (FineTuning, {"head": "softmax"}, "arcface"),
    ],
)
def test_strategies_reject_unknown_names_and_list_valid_ones(strategy, options, name):
    (given,) = options.values()
    with pytest.raises(InvalidInputError, match=f"'{given}'.*{name}"):
        strategy(plan=STRATEGY.plan, **options)


@pytest.mark.slow
def test_two_processes_use_the_given_secret(tmp_path):
    images = SyntheticFaces(4, 4, seed=1)
    masker = PpfrFd(secret=SECRET)
    losses = {}
    for num_devices in (1, 2):
        options = RunOptions(
            run_dir=tmp_path / str(num_devices),
            device="cpu",
            num_devices=num_devices,
            shows_progress=False,
        )
        _, record = STRATEGY.train(masker, images, seed=1, options=options, secret=SECRET)
        losses[num_devices] = record.losses["recogniser/loss"]
    other = RunOptions(run_dir=tmp_path / "other", device="cpu", num_devices=2, shows_progress=False)
    wrong = STRATEGY.train(masker, images, seed=1, options=other, secret=bytes(32))[1].losses["recogniser/loss"]
    # BatchNorm uses half batches in two processes, so the losses agree only roughly. Another secret changes the input.
    assert losses[2] == pytest.approx(losses[1], rel=0.15)
    assert wrong != losses[2]
    assert SECRET not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
