from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.models import StrategyNetwork

SHAPES = [(36, 28, 28), (35, 14, 14), (3, 112, 112), (36, 112, 112), (5, 7, 9)]


def _batch(shape, num=6, seed=0):
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed))


def _network(shape=(5, 14, 14), num_choices=4, *, width=8, seed=0, is_uniform=False):
    network = StrategyNetwork(shape, num_choices, width=width, seed=seed)
    if not is_uniform:
        rng = torch.Generator().manual_seed(seed + 1)
        nn.init.normal_(network.last.weight, std=0.5, generator=rng)
        nn.init.normal_(network.last.bias, std=0.5, generator=rng)
    return network


def _state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _equal_states(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_network_has_the_parameters_of_resnet_18():
    network = StrategyNetwork((3, 112, 112), 1000, seed=0)
    assert sum(p.numel() for p in network.parameters()) == 11_689_512
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len([c for c in convolutions if c.kernel_size != (1, 1)]) + 1 == 18
    with torch.no_grad():
        features = network.eval().stages(network.stem(torch.zeros(1, 3, 224, 224)))
    assert features.shape == (1, 512, 7, 7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_training", [True, False])
def test_distribution_does_not_depend_on_the_order_of_the_batch(shape, is_training):
    network = _network(shape).train(is_training)
    x = _batch(shape)
    with torch.no_grad():
        found = network(x)
        shuffled = network(x[torch.randperm(6, generator=torch.Generator().manual_seed(1))])
        repeated = network(torch.cat([x, x]))
    assert found.shape == (4,)
    assert found.dtype is torch.float32
    assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(shuffled, found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(repeated, found, rtol=1e-4, atol=1e-4)
    assert float(found.max() - found.min()) > 0.01, "a uniform answer would be invariant to anything"


def test_features_are_averaged_before_the_last_layer():
    network = _network().eval()
    x = _batch((5, 14, 14))
    with torch.no_grad():
        pooled = network.stages(network.stem(x)).mean(dim=(2, 3))
        expected = network.last(pooled.mean(dim=0)).log_softmax(dim=0)
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


def test_initial_policy_is_uniform_and_later_depends_on_the_batch():
    x, y = _batch((5, 14, 14), seed=1), 3 * _batch((5, 14, 14), seed=2) + 1
    fresh = _network(is_uniform=True)
    assert torch.equal(fresh(x), torch.full((4,), 0.25).log())
    for is_training in (False, True):
        later = _network().train(is_training)
        assert not torch.allclose(later.log_probabilities(x), later.log_probabilities(y), atol=1e-3)
        sees_gain = not torch.allclose(later.log_probabilities(x), later.log_probabilities(3 * x), atol=1e-3)
        assert sees_gain == (not is_training)


def test_first_step_changes_only_the_last_layer():
    network = _network(is_uniform=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x = _batch((5, 14, 14))
    for is_first in (True, False):
        optimizer.zero_grad()
        (-network(x)[2]).backward()
        without = [name for name, p in network.named_parameters() if not bool(p.grad.abs().sum() > 0)]
        if is_first:
            assert all(not name.startswith("last.") for name in without)
        else:
            assert without == []
        before = float(network.log_probabilities(x)[2])
        optimizer.step()
        assert float(network.log_probabilities(x)[2]) > before, "a rewarded choice must become likelier"


def test_log_probabilities_equal_forward_without_updating_statistics():
    network = _network().train()
    before, x = _state(network), _batch((5, 14, 14))
    drawn = network.log_probabilities(x)
    assert not drawn.requires_grad
    assert _equal_states(_state(network), before)
    stepped = network(x)
    assert stepped.requires_grad
    assert torch.equal(stepped.detach(), drawn)
    moved = [name for name, tensor in _state(network).items() if not torch.equal(tensor, before[name])]
    assert moved
    assert all("running_" in name or "num_batches" in name for name in moved)

    network.eval()
    in_evaluation = network.log_probabilities(x)
    assert torch.equal(in_evaluation, network(x).detach())
    assert not torch.allclose(in_evaluation, drawn, atol=1e-4), "running statistics, not those of the batch"


def test_rejected_batch_restores_statistics_tracking():
    network = _network().train()
    with pytest.raises(ShapeError):
        network.log_probabilities(_batch((4, 14, 14)))
    before = _state(network)
    network(_batch((5, 14, 14)))
    assert not _equal_states(_state(network), before)


def test_weights_depend_on_seed_and_global_generator_is_unchanged():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (StrategyNetwork((5, 14, 14), 3, width=8, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert _equal_states(first.state_dict(), again.state_dict())
    assert not torch.equal(first.stem[0].weight, other.stem[0].weight)


def test_input_is_unchanged_and_copy_gives_equal_output():
    network = _network()
    x = _batch((5, 14, 14))
    kept = x.clone()
    twin = copy.deepcopy(network)
    remade = StrategyNetwork(**json.loads(json.dumps(network.config())), seed=9)
    remade.load_state_dict(network.state_dict())
    found = network.log_probabilities(x)
    assert torch.equal(x, kept)
    assert torch.equal(twin.log_probabilities(x), found)
    assert torch.equal(remade.log_probabilities(x), found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_output_is_float32_under_autocast(dtype):
    network = _network().train()
    x = _batch((5, 14, 14))
    plain = network.log_probabilities(x)
    with torch.autocast("cpu", dtype=dtype):
        mixed = network.log_probabilities(x)
        assert network(x).dtype is torch.float32
    assert mixed.dtype is torch.float32
    assert float(mixed.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(mixed, plain, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("shape", "num_choices", "width", "error", "message"),
    [
        ((36, 6, 28), 3, 8, ShapeError, "at least 7x7"),
        ((0, 28, 28), 3, 8, ShapeError, "K >= 1"),
        ((28, 28), 3, 8, ShapeError, r"not \(K, P, Q\)"),
        ((36, 28, 28), 1, 8, InvalidInputError, "fixed number of images"),
        ((36, 28, 28), 3, 0, InvalidInputError, "width=0"),
    ],
)
def test_strategy_network_rejects_invalid_arguments(shape, num_choices, width, error, message):
    with pytest.raises(error, match=message):
        StrategyNetwork(shape, num_choices, width=width, seed=0)


def test_strategy_network_rejects_invalid_batches():
    network = _network().train()
    with pytest.raises(ShapeError, match=r"\(B, 5, 14, 14\)"):
        network(torch.zeros(2, 5, 28, 28))
    with pytest.raises(ShapeError, match="at least 2"):
        network(torch.zeros(1, 5, 14, 14))
    assert network.eval()(torch.zeros(1, 5, 14, 14)).shape == (4,)
    with pytest.raises(ShapeError, match="at least 1"):
        network(torch.zeros(0, 5, 14, 14))
    with pytest.raises(RangeError, match="not finite"):
        network.log_probabilities(torch.full((2, 5, 14, 14), float("nan")))
    # One image is enough if the last grid has several positions.
    assert _network((3, 112, 112)).train()(_batch((3, 112, 112), num=1)).shape == (4,)
