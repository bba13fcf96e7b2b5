"""Known-plaintext recovery: the closed-form attack wins without the secret, and its controls hold."""

from __future__ import annotations

import pytest
import torch

from ppfr.attacks import FreshSecret, KnownPlaintextRecovery
from ppfr.core import (
    InvalidInputError,
    MaskedImages,
    MaskedImagesWithPairs,
    PpfrError,
    RangeError,
    ShapeError,
    ThreatModelError,
    UnsupportableError,
)
from ppfr.data import float_images
from ppfr.masking import Constant, PpfrFd, Unprotected, recover_shuffles, unmix
from ppfr.synthetic import SyntheticFaces


@pytest.fixture(scope="module")
def others() -> SyntheticFaces:
    return SyntheticFaces(64, 1, seed=1, first_subject=0)


@pytest.fixture(scope="module")
def victims() -> torch.Tensor:
    return float_images(SyntheticFaces(12, 1, seed=1, first_subject=5000).read(range(12)))


def attack(**options) -> KnownPlaintextRecovery:
    return KnownPlaintextRecovery(recover=recover_shuffles, unmask=unmix, reach=1, **options)


def with_pair(masker, images, photo, *, masked_photo=None) -> MaskedImagesWithPairs:
    known = masker.mask(photo) if masked_photo is None else masked_photo
    return MaskedImagesWithPairs(images_NKPQ=masker.mask(images), known_BCHW=photo, known_BKPQ=known)


def test_faces_are_recovered_without_the_secret(others, victims):
    """Recovered faces match their own victims better than any other: the mean face identifies nobody."""
    deployed, photo = PpfrFd(secret=bytes(range(32))), float_images(others.read([0]))
    adversary = attack()
    adversary.fit(FreshSecret(deployed), others, seed=1)
    found = adversary.run(with_pair(deployed, victims, photo), seed=2).recovered_NCHW
    assert found.shape == victims.shape and found.min() >= 0 and found.max() <= 1
    mean_face = float_images(others.read(range(64))).mean(0)
    error, chance = (found - victims).abs().mean(), (mean_face - victims).abs().mean()
    assert error < 0.93 * chance
    assert not adversary.needs.knows_secret and "one photo of somebody else" in adversary.needs.in_words()
    details = torch.nn.functional.normalize((found - mean_face).flatten(1), dim=1)
    truth = torch.nn.functional.normalize((victims - mean_face).flatten(1), dim=1)
    assert ((details @ truth.T).argmax(1) == torch.arange(len(victims))).float().mean() >= 0.9

    secret_of_another = PpfrFd(secret=bytes(32))
    with pytest.raises(InvalidInputError, match="of 36 output channels"):
        adversary.run(with_pair(deployed, victims, photo, masked_photo=secret_of_another.mask(victims[:1])), seed=2)
    wrong = adversary.run(
        MaskedImagesWithPairs(
            images_NKPQ=deployed.mask(victims), known_BCHW=photo, known_BKPQ=secret_of_another.mask(photo)
        ),
        seed=2,
    ).recovered_NCHW
    assert (wrong - victims).abs().mean() > 0.97 * chance, "another deployment's pair is worth nothing"


def test_unprotected_faces_are_recovered(others, victims):
    adversary = attack(ridge=1e-6)
    adversary.fit(Unprotected(), others, seed=1)
    found = adversary.run(with_pair(Unprotected(), victims, victims[:1]), seed=2).recovered_NCHW
    torch.testing.assert_close(found, victims, atol=5e-3, rtol=0)


def test_a_constant_gives_one_face_for_everybody(others, victims):
    adversary = attack()
    adversary.fit(Constant(), others, seed=1)
    found = adversary.run(with_pair(Constant(), victims, victims[:1]), seed=2).recovered_NCHW
    torch.testing.assert_close(found, found[:1].expand_as(found), atol=0, rtol=0)
    mean_face = float_images(others.read(range(64))).mean(0)
    assert (found - victims).abs().mean() > 0.97 * (mean_face - victims).abs().mean()


def test_threat_model_is_enforced(others, victims, mixed_pixels):
    deployed, adversary = PpfrFd(secret=bytes(range(32))), attack()
    seen = with_pair(deployed, victims, victims[:1])
    with pytest.raises(PpfrError, match="call fit"):
        adversary.run(seen, seed=0)
    with pytest.raises(ThreatModelError, match="FreshSecret"):
        adversary.fit(deployed, others, seed=0)
    with pytest.raises(UnsupportableError, match="mixed-pixels"):
        adversary.fit(FreshSecret(mixed_pixels(1)), others, seed=0)
    with pytest.raises(UnsupportableError, match="9x9"):
        adversary.fit(FreshSecret(PpfrFd(secret=bytes(32), block=8, stride=4, in_shape=(3, 36, 36))), others, seed=0)
    adversary.fit(FreshSecret(deployed), others, seed=0)
    with pytest.raises(ThreatModelError, match="grants MaskedImagesWithPairs only"):
        adversary.run(MaskedImages(images_NKPQ=seen.images_NKPQ), seed=0)
    for bad in ({"num_faces": 0}, {"reach": -1}, {"ridge": 0.0}):
        with pytest.raises(RangeError, match=str(next(iter(bad)))):
            KnownPlaintextRecovery(recover=recover_shuffles, unmask=unmix, **bad)


def test_pairs_are_checked():
    images = torch.zeros(2, 4, 7, 7)
    with pytest.raises(ShapeError, match="B >= 1"):
        MaskedImagesWithPairs(images_NKPQ=images, known_BCHW=torch.zeros(1, 3, 28, 28), known_BKPQ=images)
    bad = torch.full((1, 4, 7, 7), float("nan"))
    with pytest.raises(RangeError, match="not finite"):
        MaskedImagesWithPairs(images_NKPQ=images, known_BCHW=torch.zeros(1, 3, 28, 28), known_BKPQ=bad)
