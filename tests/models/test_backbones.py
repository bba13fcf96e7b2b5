from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, ShapeError
from ppfr.models import IResNet, MobileFaceNet, StemAdapter, conv_stem, ir18, ir50, ir_se50

NARROW = {"widths": (8, 8, 16, 16), "dim": 24}


def _small(**options):
    return MobileFaceNet(variant="small", seed=0, **options)


BUILDERS = {
    "image": _small,
    "masked": lambda: _small(in_shape=(36, 28, 28), dim=64),
    "ir": lambda: IResNet((3, 112, 112), has_se=True, seed=0, **NARROW),
    "ir masked": lambda: IResNet((64, 14, 14), seed=0, **NARROW),
    "stem adapter": lambda: StemAdapter(
        conv_stem((36, 28, 28), (32, 28, 28), width=8, depth=1, seed=1), _small(), "down28"
    ),
    "late stem adapter": lambda: StemAdapter(
        conv_stem((192, 14, 14), (64, 14, 14), width=8, depth=1, seed=1), _small(), "stage14"
    ),
}


@pytest.fixture(scope="module", params=BUILDERS)
def network(request, noisy):
    return noisy(BUILDERS[request.param]())


def test_forward_until_and_forward_from_compose_to_forward(network):
    x = torch.rand(2, *network.in_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(x)
        again, tapped = network.forward_taps(x, list(network.tap_shapes))
        assert whole.shape == (2, network.dim)
        assert torch.equal(whole, again)
        assert list(tapped) == list(network.tap_shapes)
        for tap, shape in network.tap_shapes.items():
            features = network.forward_until(x, tap)
            assert features.shape[1:] == shape
            assert torch.equal(features, tapped[tap])
            assert torch.equal(network.forward_from(features, tap), whole)


def test_rows_of_a_batch_are_independent(network):
    x = torch.rand(3, *network.in_shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-4)


def test_gradients_reach_input_and_all_trainable_parameters(network):
    trained = copy.deepcopy(network).train()
    x = torch.rand(4, *network.in_shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
    trained(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert [name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None] == []


def test_network_can_be_pickled(network):
    assert pickle.loads(pickle.dumps(network)).tap_shapes == network.tap_shapes


def test_network_rejects_unknown_taps_and_wrong_shapes(network):
    with pytest.raises(InvalidInputError, match=r"unknown tap nothing; available: .*stage"):
        network.forward_until(torch.rand(1, *network.in_shape), "nothing")
    with pytest.raises(ShapeError, match=r"has shape \(1, 2, 5, 5\); expected \(B, "):
        network(torch.rand(1, 2, 5, 5))
    tap = next(iter(network.tap_shapes))
    with pytest.raises(ShapeError, match=f"the feature map after '{tap}'"):
        network.forward_from(torch.rand(1, 1, 1, 1), tap)


@pytest.mark.parametrize(
    ("in_shape", "grids"),
    [
        ((3, 112, 112), [56, 28, 28, 14, 14, 7, 7]),
        ((192, 112, 112), [56, 28, 28, 14, 14, 7, 7]),
        ((9, 56, 56), [56, 28, 28, 14, 14, 7, 7]),
        ((36, 28, 28), [28, 28, 28, 14, 14, 7, 7]),
        ((36, 27, 27), [27, 27, 27, 14, 14, 7, 7]),
        ((36, 14, 14), [14, 14, 14, 14, 14, 7, 7]),
        ((5, 7, 7), [7] * 7),
    ],
)
def test_small_grids_skip_the_early_strides(in_shape, grids):
    assert [shape[1] for shape in _small(in_shape=in_shape).tap_shapes.values()] == grids
    ir = IResNet(in_shape, seed=0, **NARROW)
    assert [shape[1] for shape in ir.tap_shapes.values()][-4:] == [grids[0], grids[2], grids[4], grids[6]]


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 12), st.integers(7, 60), st.integers(7, 60), st.integers(1, 40))
def test_every_input_shape_gives_an_embedding(channels, rows, columns, dim):
    network = _small(in_shape=(channels, rows, columns), dim=dim).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, channels, rows, columns)).shape == (2, dim)


def test_initial_weights_depend_only_on_the_seed():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = _small(), _small(), MobileFaceNet(variant="small", seed=1)
    assert torch.equal(torch.get_rng_state(), before), "building a network drew from the global generator"
    assert torch.equal(one.head.linear.weight, same.head.linear.weight)
    assert not torch.equal(one.head.linear.weight, other.head.linear.weight)


def test_numbers_of_parameters_match_the_papers():
    def count(build):
        with torch.device("meta"):  # shapes without numbers: a large network takes no time
            network = build()
        return sum(parameter.numel() for parameter in network.parameters())

    # Public implementations of IR-18 and IR-50 have 24.0 M and 43.6 M, MobileFaceNet about 1 M.
    assert count(lambda: ir18(seed=0)) == 24_020_352
    assert count(lambda: ir50(seed=0)) == 43_585_600
    assert count(lambda: ir_se50(seed=0)) - count(lambda: ir50(seed=0)) == sum(
        units * 2 * width * (width // 16) for units, width in zip((3, 4, 14, 3), (64, 128, 256, 512), strict=True)
    )
    assert 0.9e6 < count(lambda: MobileFaceNet(seed=0)) < 1.1e6
    assert count(_small) == 197_920


def test_image_networks_scale_their_input_and_masked_networks_do_not():
    image, masked = _small(), _small(takes_image=False)
    x = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(image.entry(x).flatten(), torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(masked.entry(x), x)
    assert not _small(in_shape=(36, 28, 28)).takes_image


def test_narrow_network_uses_only_columns_8_to_103(noisy):
    network = noisy(MobileFaceNet(variant="casia_112x96", seed=0))
    x = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(4))
    changed = x.clone()
    changed[..., :8] = 0.0
    changed[..., 104:] = 1.0
    with torch.no_grad():
        assert torch.equal(network(x), network(changed))
        changed[..., 103] = 0.0
        assert not torch.equal(network(x), network(changed))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MobileFaceNet(variant="y2", seed=0), "available: y1, casia"),
        (lambda: MobileFaceNet((3, 6, 6), seed=0), "at least 7x7"),
        (lambda: MobileFaceNet((112, 112), seed=0), r"not \(K, P, Q\)"),
        (lambda: MobileFaceNet(dim=0, seed=0), "at least 1"),
        (lambda: IResNet(units=(2, 2, 2), seed=0), "four positive numbers"),
        (lambda: IResNet(dropout=1.0, seed=0), r"dropout=1"),
    ],
)
def test_networks_reject_invalid_arguments(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
