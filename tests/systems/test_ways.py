"""Ways of training: what they build is repeatable, and a keyed masker reaches other processes without pickling it."""

from __future__ import annotations

import pytest
import torch

from ppfr.masking import PpfrFd
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import FitOptions, FromScratch
from ppfr.training import Plan

WAY = FromScratch(
    plan=Plan(passes=1, batch_size=8, max_steps=2, channels_last=False), network="mobilefacenet-small", scale=16.0
)
SECRET = bytes(range(32))


def test_building_twice_gives_the_same_weights():
    masker = PpfrFd(secret=SECRET)
    first, second = (WAY.build(masker, num_classes=4, seed=3)[1].state_dict() for _ in range(2))
    other = WAY.build(masker, num_classes=4, seed=4)[1].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_two_processes_train_under_the_secret_of_the_deployment(tmp_path):
    images = SyntheticFaces(4, 4, seed=1)
    masker = PpfrFd(secret=SECRET)
    losses = {}
    for num_devices in (1, 2):
        options = FitOptions(
            run_dir=tmp_path / str(num_devices),
            device="cpu",
            num_devices=num_devices,
            shows_progress=False,
            secret=SECRET,
        )
        losses[num_devices] = WAY.train(masker, images, seed=1, options=options)[1].losses["recogniser/loss"]
    other = FitOptions(run_dir=tmp_path / "other", device="cpu", num_devices=2, shows_progress=False, secret=bytes(32))
    wrong = WAY.train(masker, images, seed=1, options=other)[1].losses["recogniser/loss"]
    # BatchNorm sees half batches in two processes, so the two agree roughly; another secret is another input.
    assert losses[2] == pytest.approx(losses[1], rel=0.15)
    assert wrong != losses[2]
    assert SECRET not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
