from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from ppfr.core import ChecksumError, MissingWeightsError, RangeError, ShapeError
from ppfr.metrics import lpips
from ppfr.models import Lpips


@pytest.fixture(scope="module")
def untrained():
    """Random weights, for properties that hold for all weights."""
    network = Lpips()
    rng = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        drawn = 0.1 * torch.randn(parameter.shape, generator=rng)
        parameter.copy_(drawn.abs() if name.startswith("lin") else drawn)
    return network


def images(num, side=40, seed=0):
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_distance_properties(untrained):
    a, b = images(5), images(5, seed=1)
    found = untrained(a, b)
    assert found.shape == (5,) and (found > 0).all()
    torch.testing.assert_close(found, untrained(b, a))
    assert (untrained(a, a) == 0).all()
    torch.testing.assert_close(found[3:4], untrained(a[3:4], b[3:4]))
    np.testing.assert_allclose(lpips(a.numpy(), b.numpy(), untrained.distance, batch_size=2), found.numpy(), rtol=1e-5)


def test_gradient_reaches_the_image_and_stays_finite_on_dead_features(untrained):
    import copy

    dead = copy.deepcopy(untrained)
    dead.features[0].bias.fill_(-100.0)  # every ReLU of the first layer is off
    for network in (untrained, dead):
        a = images(1).requires_grad_()
        network(a, images(1, seed=1)).sum().backward()
        assert a.grad.isfinite().all()
    a = images(1).requires_grad_()
    untrained(a, images(1, seed=1)).sum().backward()
    assert a.grad.abs().max() > 0
    assert not any(p.requires_grad for p in untrained.parameters())


def test_lpips_stays_in_evaluation_mode(untrained):
    holder = torch.nn.ModuleList([untrained]).train()
    assert not untrained.training and not untrained.features.training and holder.training


def test_lpips_rejects_invalid_images(untrained):
    with pytest.raises(ShapeError, match="at least 17 pixels per side"):
        untrained(images(1, side=16), images(1, side=16))
    with pytest.raises(ShapeError, match="images have shapes"):
        untrained(images(1), images(2))
    with pytest.raises(RangeError, match="clamp recovered images first"):
        untrained.distance(images(1).numpy() * 3, images(1).numpy())
    assert untrained(images(1, side=17), images(1, side=17, seed=1)).isfinite().all()


def test_from_weights_rejects_missing_and_damaged_files(tmp_path, monkeypatch):
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    with pytest.raises(MissingWeightsError, match="PPFR_WEIGHTS") as missing:
        Lpips.from_weights()
    assert re.search(r"\b[0-9a-f]{64}\b", str(missing.value)), "the checksum of the file"
    with pytest.raises(MissingWeightsError, match="Give --weights DIR"):
        Lpips.from_weights(tmp_path)
    (tmp_path / missing.value.name).write_bytes(b"not the network")
    with pytest.raises(ChecksumError, match=r"lpips_squeeze\.safetensors has sha256 .*download it again"):
        Lpips.from_weights(tmp_path)


@pytest.mark.real_data
def test_lpips_equals_published_implementation(data_root, weights_root):
    network = Lpips.from_weights(weights_root)

    def read(name, number):
        path = data_root / "lfw112" / name / f"{name}_{number:04d}.jpg"
        return np.asarray(Image.open(path)).transpose(2, 0, 1)[None].astype(np.float32) / 255

    first = read("Aaron_Peirsol", 1)
    assert network.distance(first, read("Aaron_Peirsol", 2))[0] == pytest.approx(0.218051, abs=1e-4)
    assert network.distance(first, read("George_W_Bush", 1))[0] == pytest.approx(0.264241, abs=1e-4)
