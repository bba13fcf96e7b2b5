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


def _recovered(kind, masker, public, victims, observe, *, passes):
    attack = ATTACKS[kind](plan=_plan(passes), knows_secret=True, device="cpu", progress=False)
    attack.fit(masker, public, seed=1)
    return attack.run(observe(masker, victims), seed=2).recovered_NCHW


@pytest.mark.parametrize("kind", ATTACKS)
def test_recovery_wins_where_nothing_is_protected(kind, public, victims, observe):
    recovered = _recovered(kind, Unprotected(), public, victims, observe, passes=1)
    assert recovered.shape == (len(victims), 3, 112, 112) and recovered.min() >= 0 and recovered.max() <= 1
    assert _mean_ssim(recovered, victims) > 0.9


@pytest.mark.parametrize("kind", ATTACKS)
def test_recovery_is_at_chance_where_nothing_is_said(kind, public, victims, observe):
    """Chance is one face for everybody, no nearer to the victims than the mean of the attacker's own faces."""
    recovered = _recovered(kind, Constant(), public, victims, observe, passes=1)
    # A GAN's noise gives each victim another face; it cannot be a better one.
    faces = victims.tensor()
    mean_face = public.tensor().mean(dim=0, keepdim=True).expand_as(faces)
    at_chance = (faces - mean_face).abs().mean()
    assert (faces - recovered).abs().mean() > 0.97 * at_chance
    assert _mean_ssim(recovered, victims) < _mean_ssim(mean_face, victims) + 0.02
    if kind == "unet":
        torch.testing.assert_close(recovered, recovered[:1].expand_as(recovered), atol=1e-5, rtol=0)


def _linked(masker, recogniser, card, public, victims, observe, *, student, passes, lr=1e-2):
    """Rank-1 rate of each victim's masked image among the plain images of all victims; their other capture included."""
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
    guessed_ND = attack.run(observe(masker, victims), seed=2).embeddings_ND
    np.testing.assert_allclose(np.linalg.norm(guessed_ND, axis=1), 1.0, atol=1e-5)
    plain_ND = NetworkEmbedder(recogniser).embed(victims.tensor()).numpy()
    best = (guessed_ND @ plain_ND.T).argmax(axis=1)
    subjects = np.array(victims.subject_ids)
    return float((subjects[best] == subjects).mean())


def test_linkage_wins_where_nothing_is_protected(recogniser, card, public, victims, observe):
    arguments = (Unprotected(), recogniser, card, public, victims, observe)
    assert _linked(*arguments, student="restemmed", passes=8) > 0.9


def test_linkage_is_at_chance_where_nothing_is_said(recogniser, card, public, victims, observe):
    """24 people: one in 24 by chance, and one guess for all victims can be no better."""
    arguments = (Constant(), recogniser, card, public, victims, observe)
    assert _linked(*arguments, student="restemmed", passes=1) <= 2 / 24


@pytest.mark.slow
def test_linkage_from_scratch_wins_where_the_secret_is_known(mixed_pixels, recogniser, card, public, victims, observe):
    """A secret mixing of pixels is no protection from one who knows it, nor is a pretrained student needed."""
    arguments = (mixed_pixels(1), recogniser, card, public, victims, observe)
    assert _linked(*arguments, student="scratch", passes=4, lr=2e-3) > 0.3
