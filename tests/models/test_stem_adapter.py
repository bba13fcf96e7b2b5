from __future__ import annotations

import pytest
import torch
from torch import nn

from ppfr.core import InvalidInputError, ShapeError
from ppfr.models import MobileFaceNet, StemAdapter, conv_stem


@pytest.fixture(scope="module")
def body(noisy):
    return noisy(MobileFaceNet(variant="small", seed=0))


def test_adapter_with_own_first_parts_equals_the_body(body):
    own = nn.Sequential(body.entry, body.parts["stem"], body.parts["down28"])
    network = StemAdapter(own, body, "down28", in_shape=body.in_shape, takes_image=True).eval()
    x = torch.rand(2, *body.in_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(x), body(x))
    assert list(network.tap_shapes.items()) == list(body.tap_shapes.items())[1:]


def test_training_the_adapter_does_not_change_the_body(body):
    network = StemAdapter(conv_stem((4, 28, 28), (32, 28, 28), width=8, depth=1, seed=0), body, "down28").train()
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.rand(4, 4, 28, 28)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in body.state_dict().items())


def test_stem_and_body_parameters_partition_the_network(body):
    network = StemAdapter(conv_stem((4, 28, 28), (32, 28, 28), width=8, depth=1, seed=0), body, "down28")
    stem, rest = list(network.stem.parameters()), network.body_parameters()
    assert {id(p) for p in stem} | {id(p) for p in rest} == {id(p) for p in network.parameters()}
    assert {id(p) for p in stem} & {id(p) for p in rest} == set()
    assert rest


@pytest.mark.parametrize(
    ("in_shape", "out_shape", "reduce"),
    [
        ((36, 28, 28), (64, 28, 28), "unshuffle"),
        ((36, 27, 27), (64, 28, 28), "unshuffle"),
        ((64, 14, 14), (64, 28, 28), "unshuffle"),
        ((3, 112, 112), (64, 28, 28), "unshuffle"),
        ((192, 112, 112), (64, 28, 28), "stride"),
        ((108, 112, 112), (64, 56, 56), "stride"),
        ((20, 84, 84), (64, 28, 28), "unshuffle"),
        ((36, 28, 28), (64, 28, 24), "unshuffle"),
    ],
)
def test_conv_stem_reaches_every_grid(in_shape, out_shape, reduce):
    stem = conv_stem(in_shape, out_shape, width=8, depth=1, seed=0)
    assert stem.reduce == reduce
    assert stem(torch.randn(2, *in_shape)).shape == (2, *out_shape)


def test_narrow_body_gets_the_middle_columns():
    stem = conv_stem((1, 28, 28), (2, 28, 24), width=4, depth=0, seed=0).eval()
    x = torch.randn(1, 1, 28, 28)
    edge = x.clone()
    edge[..., 0] += 5.0  # outside columns 2..25 and beyond the reach of the one 3x3 convolution
    with torch.no_grad():
        assert torch.equal(stem(x), stem(edge))


def test_conv_stem_learns_a_feature_map():
    # A linear filter of the input must be learned well in sixty steps.
    rng = torch.Generator().manual_seed(0)
    stem = conv_stem((8, 14, 14), (4, 14, 14), width=24, depth=1, seed=0)
    target = nn.Conv2d(8, 4, 3, padding=1)
    nn.init.normal_(target.weight, generator=rng)
    optimizer = torch.optim.AdamW(stem.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        x = torch.randn(8, 8, 14, 14, generator=rng) * torch.logspace(-3, 2, 8).view(1, 8, 1, 1)
        with torch.no_grad():
            wanted = target(x / torch.logspace(-3, 2, 8).view(1, 8, 1, 1))
        error = (stem(x) - wanted).square().mean() / wanted.var()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.1 < errors[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda body: conv_stem((3, 28, 28), (8, 28, 28), width=0, seed=0), InvalidInputError, "width=0"),
        (lambda body: conv_stem((3, 28), (8, 28, 28), seed=0), ShapeError, r"\(K, P, Q\)"),
        (lambda body: conv_stem((3, 28, 28), (8, 28, 28), reduce="pool", seed=0), InvalidInputError, "use auto"),
        (lambda body: conv_stem((3, 84, 84), (8, 28, 28), reduce="stride", seed=0), InvalidInputError, "= 3"),
        (lambda body: StemAdapter(conv_stem((3, 28, 28), (8, 28, 28), seed=0), body, "down28"), ShapeError, "32, 28"),
        (
            lambda body: StemAdapter(conv_stem((3, 28, 28), (8, 28, 28), seed=0), body, "no"),
            InvalidInputError,
            "has stem",
        ),
        (lambda body: StemAdapter(nn.Conv2d(3, 32, 1), body, "down28"), InvalidInputError, "give in_shape"),
    ],
)
def test_adapter_rejects_mismatched_parts(body, call, error, message):
    with pytest.raises(error, match=message):
        call(body)
