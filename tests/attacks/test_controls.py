"""The controls that make a privacy number mean anything: each attack wins where nothing is protected, and is at chance
where nothing is said. Toy faces of disjoint people, tiny networks, seconds of training.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppfr.attacks import ConditionalGan, IdentityLinkage, UNetRecovery
from ppfr.masking import Constant, Unprotected
from ppfr.metrics import ssim
from ppfr.models import NetworkEmbedder
from ppfr.training import Plan

SMALL = {"width": 8, "max_width": 32, "num_blocks": 0}
ATTACKS = {
    "unet": lambda **options: UNetRecovery(**SMALL, lr=3e-3, **options),
    "gan": lambda **options: ConditionalGan(**SMALL, discriminator_width=4, lr=3e-3, **options),
}


def _plan(passes: int) -> Plan:
    return Plan(epochs=passes, batch_size=16, clip_norm=1.0, num_prefetch=0, flip=0.0)


def _mean_ssim(recovered_NCHW, faces) -> float:
    return float(np.mean(ssim(np.asarray(recovered_NCHW), faces.tensor().numpy())))


def _recovered(kind, masker, public, targets, observe, *, passes):
    attack = ATTACKS[kind](plan=_plan(passes), knows_secret=True, device="cpu", progress=False)
    attack.fit(masker, public, seed=1)
    return attack.run(observe(masker, targets), seed=2).recovered_NCHW


@pytest.mark.parametrize("kind", ATTACKS)
def test_recovery_wins_on_unprotected_faces(kind, public, targets, observe):
    recovered = _recovered(kind, Unprotected(), public, targets, observe, passes=1)
    assert recovered.shape == (len(targets), 3, 112, 112) and recovered.min() >= 0 and recovered.max() <= 1
    assert _mean_ssim(recovered, targets) > 0.9


@pytest.mark.parametrize("kind", ATTACKS)
def test_recovery_is_at_chance_on_a_constant(kind, public, targets, observe):
    """Chance level is one face for everybody, no closer to the targets than the mean of the attacker's own faces."""
    recovered = _recovered(kind, Constant(), public, targets, observe, passes=1)
    # A GAN's noise gives each target another face, which cannot be a better one.
    faces = targets.tensor()
    mean_face = public.tensor().mean(dim=0, keepdim=True).expand_as(faces)
    at_chance = (faces - mean_face).abs().mean()
    assert (faces - recovered).abs().mean() > 0.97 * at_chance
    assert _mean_ssim(recovered, targets) < _mean_ssim(mean_face, targets) + 0.02
    if kind == "unet":
        torch.testing.assert_close(recovered, recovered[:1].expand_as(recovered), atol=1e-5, rtol=0)


def _linked(masker, recogniser, card, public, targets, observe, *, student, passes, lr=1e-2):
    """Rank-1 rate of each target's masked image among the plain images of all targets, the other capture included."""
    attack = IdentityLinkage(
        recogniser,
        teacher_card=card,
        student=student,
        stem_width=16,
        stem_depth=0,
        lr=lr,
        plan=_plan(passes),
        knows_secret=True,
        device="cpu",
        progress=False,
    )
    attack.fit(masker, public, seed=1)
    guessed_ND = attack.run(observe(masker, targets), seed=2).embeddings_ND
    np.testing.assert_allclose(np.linalg.norm(guessed_ND, axis=1), 1.0, atol=1e-5)
    plain_ND = NetworkEmbedder(recogniser).embed(targets.tensor()).numpy()
    best = (guessed_ND @ plain_ND.T).argmax(axis=1)
    subjects = np.array(targets.subject_ids)
    return float((subjects[best] == subjects).mean())


def test_linkage_wins_on_unprotected_faces(recogniser, card, public, targets, observe):
    arguments = (Unprotected(), recogniser, card, public, targets, observe)
    assert _linked(*arguments, student="restemmed", passes=8) > 0.9


def test_linkage_is_at_chance_on_a_constant(recogniser, card, public, targets, observe):
    """24 people: the chance level is 1 / 24, and one estimate for all targets cannot exceed it."""
    arguments = (Constant(), recogniser, card, public, targets, observe)
    assert _linked(*arguments, student="restemmed", passes=1) <= 2 / 24


@pytest.mark.slow
def test_linkage_from_scratch_wins_with_the_secret(mixed_pixels, recogniser, card, public, targets, observe):
    """A secret mixing of pixels does not protect against an adversary who knows it, even without pretraining."""
    arguments = (mixed_pixels(1), recogniser, card, public, targets, observe)
    assert _linked(*arguments, student="scratch", passes=4, lr=2e-3) > 0.3
