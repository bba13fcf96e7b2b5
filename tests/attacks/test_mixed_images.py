"""Attacks on a mixed training set: random signs do not protect magnitudes, and secrets stay secret."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppfr.attacks import FreshSecret, UNetRecovery
from ppfr.attacks._fresh_secret import MagnitudeMasker
from ppfr.core import MaskedImages, MixedImages, ThreatModelError
from ppfr.masking import InstaHide, MixedMasker, MixUp, PpfrFd, Unprotected
from ppfr.metrics import ssim
from ppfr.training import Plan

FACES = torch.rand(5, 3, 112, 112, generator=torch.Generator().manual_seed(0))
HIDDEN = MixedMasker(Unprotected(), [InstaHide(num_images=2)])
SAME_WITHOUT_COINS = MixedMasker(Unprotected(), [MixUp(num_images=2, max_weight=0.65)])


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _recovery(*, ignores_signs: bool, steps: int | None = None, **options) -> UNetRecovery:
    plan = Plan(epochs=1, batch_size=16, clip_norm=1.0, num_prefetch=0, flip=0.0, max_steps=steps)
    return UNetRecovery(
        width=8,
        max_width=32,
        num_blocks=0,
        lr=3e-3,
        plan=plan,
        ignores_signs=ignores_signs,
        sees=MixedImages,
        device="cpu",
        progress=False,
        **{"knows_secret": True, **options},
    )


def _seen(masker, faces_NCHW, seed: int = 3) -> MixedImages:
    return MixedImages(images_NKPQ=masker.mask(faces_NCHW, rng=_rng(seed)))


def test_magnitudes_of_instahide_equal_mixup_for_any_signs():
    unsigned = MagnitudeMasker(HIDDEN)
    seen = unsigned.mask(FACES, rng=_rng())
    assert HIDDEN.mask(FACES, rng=_rng()).min() < 0 <= seen.min()
    torch.testing.assert_close(seen, SAME_WITHOUT_COINS.mask(FACES, rng=_rng()))
    assert HIDDEN.spec.value_range == (-1.0, 1.0) and unsigned.spec.value_range == (0.0, 1.0)
    assert unsigned.public_config() == HIDDEN.public_config() and "magnitudes" in unsigned.name
    low, high = PpfrFd(secret=bytes(32)).spec.value_range
    assert MagnitudeMasker(PpfrFd(secret=bytes(32))).spec.value_range == (0.0, max(-low, high))


def test_attack_on_magnitudes_does_not_depend_on_signs(few, targets):
    """Neither in its training nor in its observation."""
    seen = _seen(HIDDEN, targets.tensor())
    coins = torch.randint(0, 2, seen.images_NKPQ.shape, generator=_rng(9)) * 2 - 1
    flipped = MixedImages(images_NKPQ=seen.images_NKPQ * coins)
    recovered = {}
    for ignores_signs in (True, False):
        attack = _recovery(ignores_signs=ignores_signs, steps=2)
        attack.fit(HIDDEN, few, seed=1)
        assert attack.public_config()["ignores_signs"] is ignores_signs
        recovered[ignores_signs] = [attack.run(each, seed=2).recovered_NCHW for each in (seen, flipped)]
    assert torch.equal(*recovered[True])
    assert not torch.equal(*recovered[False])


@pytest.mark.slow
def test_instahide_is_recovered_from_magnitudes_and_not_from_signed_values(public, targets):
    """The same network, data and steps: on signed values the attack learns little more than the mean face."""
    faces = targets.tensor()
    seen = _seen(HIDDEN, faces)
    found = {}
    for ignores_signs in (True, False):
        attack = _recovery(ignores_signs=ignores_signs)
        attack.fit(HIDDEN, public, seed=1)
        found[ignores_signs] = attack.run(seen, seed=2).recovered_NCHW
    mean_face = public.tensor().mean(dim=0, keepdim=True).expand_as(faces)
    at_chance = (mean_face - faces).abs().mean()
    assert (found[True] - faces).abs().mean() < 0.8 * at_chance < (found[False] - faces).abs().mean()
    with_signs, without = (float(np.mean(ssim(found[key].numpy(), faces.numpy()))) for key in (False, True))
    assert without > with_signs + 0.1


def test_mixed_masker_is_simulated_under_fresh_secrets(few, targets):
    deployed, other = (MixedMasker(PpfrFd(secret=byte * 32), [MixUp(num_images=3)]) for byte in (b"d", b"e"))
    simulated = FreshSecret(deployed)
    assert deployed.spec.is_keyed and not simulated.spec.is_keyed
    first = simulated.mask(FACES, rng=_rng())
    assert torch.equal(first, FreshSecret(other).mask(FACES, rng=_rng())), "nothing of the secret is in the simulation"
    assert not torch.allclose(first, deployed.mask(FACES, rng=_rng()), atol=1e-2)
    assert simulated.public_config()["config"] == deployed.public_config()

    attack = _recovery(ignores_signs=False, steps=2, knows_secret=False)
    with pytest.raises(ThreatModelError, match="give it FreshSecret"):
        attack.fit(deployed, few, seed=1)
    attack.fit(simulated, few, seed=1)
    assert attack.run(_seen(deployed, targets.tensor()), seed=2).recovered_NCHW.shape == (len(targets), 3, 112, 112)


def test_attack_on_mixed_images_rejects_masked_images(few, targets):
    attack = _recovery(ignores_signs=False, steps=2)
    attack.fit(SAME_WITHOUT_COINS, few, seed=1)
    alone = MaskedImages(images_NKPQ=targets.tensor())
    with pytest.raises(ThreatModelError, match="grants MixedImages only"):
        attack.run(alone, seed=1)
    assert attack.needs.name == "thief of the training set with the secret"
    assert "mixed" in attack.needs.in_words()
