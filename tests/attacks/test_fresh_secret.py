"""FreshSecret simulates the method and keeps nothing of the deployment."""

from __future__ import annotations

import gc
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.attacks import FreshSecret
from ppfr.core import UnsupportableError
from ppfr.masking import Constant, PpfrFd, Unprotected

FACES = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _deployed(byte: bytes = b"d") -> PpfrFd:
    return PpfrFd(secret=byte * 32)


@settings(max_examples=5, deadline=None)
@given(first=st.binary(min_size=32, max_size=32), second=st.binary(min_size=32, max_size=32), seed=st.integers(0, 99))
def test_simulation_does_not_depend_on_the_deployed_secret(first, second, seed):
    """Two deployments give the same simulation, so it contains nothing of either secret."""
    one, other = FreshSecret(PpfrFd(secret=first)), FreshSecret(PpfrFd(secret=second))
    assert torch.equal(one.mask(FACES, rng=_rng(seed)), other.mask(FACES, rng=_rng(seed)))
    assert one.public_config() == other.public_config() and repr(one) == repr(other)


def test_no_reference_leads_to_the_deployed_masker():
    """Everything reachable from it, through any attribute or container, is free of the masker and its permutations."""
    deployed = _deployed()
    secrets = [deployed, *deployed._shuffles]
    found, todo = set(), [FreshSecret(deployed)]
    while todo:
        thing = todo.pop()
        if id(thing) in found or isinstance(thing, type | types.ModuleType | types.FunctionType):
            continue
        found.add(id(thing))
        todo += gc.get_referents(thing)
        assert not any(thing is secret for secret in secrets)
        assert not isinstance(thing, tuple) or thing not in deployed._shuffles
    assert len(found) > 10


def test_each_call_draws_a_secret_and_the_same_rng_draws_the_same():
    simulated, rng = FreshSecret(_deployed()), _rng()
    first, second = simulated.mask(FACES, rng=rng), simulated.mask(FACES, rng=rng)
    assert first.shape == (3, *simulated.spec.out_shape)
    assert not torch.allclose(first, second, atol=1e-2)
    assert torch.equal(first, simulated.mask(FACES, rng=_rng()))
    assert not torch.allclose(first, _deployed().mask(FACES, rng=_rng()), atol=1e-2)


@pytest.mark.parametrize("per_image", [False, True])
def test_secrets_are_drawn_per_batch_or_per_image(per_image):
    twins = FACES[:1].repeat(4, 1, 1, 1)
    masked = FreshSecret(_deployed(), per_image=per_image).mask(twins, rng=_rng())
    is_shared = [torch.equal(masked[0], row) for row in masked[1:]]
    assert is_shared == [not per_image] * 3


def test_draw_returns_a_separate_deployment():
    simulated = FreshSecret(_deployed()).draw(rng=_rng())
    assert torch.equal(simulated.mask(FACES, rng=_rng(1)), simulated.mask(FACES, rng=_rng(2)))
    assert simulated.public_config() == _deployed().public_config()


def test_name_spec_and_configuration_describe_the_simulation():
    simulated = FreshSecret(_deployed())
    spec = simulated.spec
    assert (spec.is_keyed, spec.is_stochastic, spec.out_shape) == (False, True, _deployed().spec.out_shape)
    assert simulated.name == "ppfr-fd under fresh secrets"
    with pytest.raises(UnsupportableError, match="no secret"):
        simulated.with_new_secret(rng=_rng())


@pytest.mark.parametrize("masker", [Unprotected(), Constant(), PpfrFd(secret=None, permutation="per_image")])
def test_masker_without_a_secret_is_rejected(masker):
    with pytest.raises(UnsupportableError, match="Attack it directly"):
        FreshSecret(masker)


def test_empty_batch_stays_empty():
    assert FreshSecret(_deployed(), per_image=True).mask(FACES[:0], rng=_rng()).shape == (0, 36, 28, 28)
