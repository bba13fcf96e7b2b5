from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Generator

from ppfr.core import MixedBatch, RangeError, ShapeError
from ppfr.masking import Constant, InstaHide, MixedMasker, MixUp, PpfrFd, Unprotected, draw_partners, draw_weights
from reference.mixing import blended, weights_by_rejection


def rng(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


def faces(num: int = 12, seed: int = 1) -> torch.Tensor:
    coarse = torch.rand(num, 3, 14, 14, generator=rng(seed))
    return torch.nn.functional.interpolate(coarse, size=(112, 112), mode="bilinear")


@given(
    num_images=st.integers(2, 8), slack=st.floats(0.15, 1.0), num_rows=st.integers(0, 200), seed=st.integers(0, 2**31)
)
@settings(max_examples=60, deadline=None)
def test_weights_keep_their_cap_and_sum_to_one(num_images, slack, num_rows, seed):
    cap = 1 / num_images + slack * (1 - 1 / num_images)
    weights = draw_weights(num_rows, num_images, max_weight=cap, rng=rng(seed))
    assert weights.shape == (num_rows, num_images)
    assert bool((weights > 0).all())
    assert weights.double().max().item() <= cap if num_rows else True
    assert torch.allclose(weights.sum(dim=1), torch.ones(num_rows), atol=1e-5)


@pytest.mark.parametrize(("num_images", "cap"), [(2, 0.55), (2, 0.8), (3, 0.55), (4, 0.65), (2, 1.0)])
def test_weights_have_the_distribution_of_rejection_sampling(num_images, cap):
    slow = np.random.default_rng(1)
    wanted = np.stack([weights_by_rejection(num_images, cap, slow) for _ in range(1500)])
    found = draw_weights(6000, num_images, max_weight=cap, rng=rng()).numpy()
    assert stats.ks_2samp(found[:, 0], wanted[:, 0]).pvalue > 0.01
    assert stats.ks_2samp(found.max(axis=1), wanted.max(axis=1)).pvalue > 0.01


def test_a_cap_of_one_kth_gives_equal_weights():
    assert torch.equal(draw_weights(5, 4, max_weight=0.25, rng=rng()), torch.full((5, 4), 0.25))
    assert torch.equal(draw_weights(5, 1, max_weight=1.0, rng=rng()), torch.ones(5, 1))


@pytest.mark.parametrize(
    ("num_images", "cap", "words"),
    [(2, 0.49, "cap from 0.5 to 1"), (4, 0.2, "cap from 0.25"), (2, 1.1, "cap from"), (0, 0.5, "num_images is 0")],
)
def test_draw_weights_rejects_impossible_caps(num_images, cap, words):
    with pytest.raises(RangeError, match=words):
        draw_weights(5, num_images, max_weight=cap, rng=rng())


def test_draw_weights_rejects_caps_that_almost_no_draw_satisfies():
    with pytest.raises(RangeError, match="raise it"):
        draw_weights(64, 8, max_weight=0.1251, rng=rng())


def test_partners_are_the_row_itself_and_permutations():
    partners = draw_partners(50, 5, rng=rng())
    assert torch.equal(partners[:, 0], torch.arange(50))
    assert all(torch.equal(column.sort().values, torch.arange(50)) for column in partners.T)
    assert len({tuple(column.tolist()) for column in partners.T}) == 5


@pytest.mark.parametrize("num_images", [2, 3, 6])
def test_mixup_equals_the_slow_reference_with_labels(num_images):
    values = torch.randn(12, 5, 4, 6, generator=rng())
    labels = torch.arange(100, 112)
    mixed = MixUp(num_images=num_images).mix(values, labels, rng=rng())
    wanted = blended(values.numpy(), mixed.partners_Bk.numpy(), mixed.weights_Bk.numpy())
    np.testing.assert_allclose(mixed.values_BKPQ.numpy(), wanted, atol=1e-6)
    assert torch.equal(mixed.labels_Bk, labels[mixed.partners_Bk])
    assert torch.equal(mixed.labels_Bk[:, 0], labels)
    assert float(mixed.weights_Bk.max()) <= 0.55


def test_the_gradient_reaches_a_trained_mask():
    values = torch.randn(6, 2, 3, 3, generator=rng(), requires_grad=True)
    MixUp(num_images=3).mix(values, torch.arange(6), rng=rng()).values_BKPQ.sum().backward()
    # Each column of partners is a permutation, and the weights of a row sum to 1.
    assert torch.allclose(values.grad.sum(), torch.tensor(6.0 * 18))


def test_instahide_flips_signs_independently_of_magnitudes():
    values = torch.randn(16, 8, 14, 14, generator=rng())
    labels = torch.arange(16)
    hidden = InstaHide(num_images=2).mix(values, labels, rng=rng(5))
    plain = MixUp(num_images=2, max_weight=0.65).mix(values, labels, rng=rng(5))
    assert torch.equal(hidden.weights_Bk, plain.weights_Bk)
    assert torch.allclose(hidden.values_BKPQ.abs(), plain.values_BKPQ.abs())
    signs = (hidden.values_BKPQ * plain.values_BKPQ).sign()
    assert abs(float(signs.mean())) < 5 / signs.numel() ** 0.5
    assert float(hidden.weights_Bk.max()) <= 0.65


@pytest.mark.parametrize("mixer", [MixUp(num_images=4), InstaHide(num_images=4)])
def test_mix_rejects_small_batches_and_wrong_labels(mixer):
    with pytest.raises(ShapeError, match=r"batch of 3 .* num_images=4"):
        mixer.mix(torch.rand(3, 1, 2, 2), torch.arange(3), rng=rng())
    with pytest.raises(ShapeError, match=r"\(5,\)"):
        mixer.mix(torch.rand(5, 1, 2, 2), torch.arange(4), rng=rng())


def test_a_batch_of_one_identity_is_mixed_all_the_same():
    mixed = MixUp(num_images=2).mix(torch.rand(4, 1, 2, 2), torch.full((4,), 9), rng=rng())
    assert bool((mixed.labels_Bk == 9).all())


@pytest.mark.parametrize("make", [MixUp, InstaHide])
def test_one_image_is_no_mixture(make):
    with pytest.raises(RangeError, match="num_images is 1"):
        make(num_images=1)


def test_mixed_masker_draws_a_mixer_per_image_by_share():
    # Two constant images: the mixture's value tells the weights, and an equal-weight mixer tells itself by 1/2.
    image = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]).repeat(200, 1, 1, 1)
    masker = MixedMasker(
        Unprotected(in_shape=(3, 4, 4)),
        [MixUp(num_images=2, max_weight=0.5), MixUp(num_images=4, max_weight=0.25)],
        shares=[1, 3],
    )
    masked = masker.mask(image, rng=rng())
    is_quarter = ((masked[:, 0, 0, 0] * 4) % 2 == 1).float().mean()  # 1/4 or 3/4: four images, odd number of ones
    assert 0.75 * 0.5 - 0.08 < float(is_quarter) < 0.75 * 0.5 + 0.08
    assert masker.spec.is_stochastic
    assert masker.public_config()["shares"] == [0.25, 0.75]


def test_a_mixed_masker_keeps_range_secret_and_small_batches():
    masker = MixedMasker(PpfrFd(secret=bytes(32)), [MixUp(num_images=3)])
    assert masker.spec.is_keyed
    other = masker.with_new_secret(rng=rng())
    assert not torch.allclose(masker.mask(faces(), rng=rng()), other.mask(faces(), rng=rng()))
    assert masker.mask(faces(2), rng=rng()).shape == (2, 36, 28, 28)
    assert masker.mask(faces(0), rng=rng()).shape == (0, 36, 28, 28)
    assert "secret=<redacted>" in repr(masker)
    hidden = MixedMasker(Unprotected(), [InstaHide()])
    assert hidden.spec.value_range == (-1.0, 1.0)
    assert float(hidden.mask(faces(), rng=rng()).min()) < 0


def test_a_single_image_mixed_with_itself_stays_itself():
    masker = MixedMasker(PpfrFd(secret=bytes(32)), [MixUp(num_images=3)])
    alone = PpfrFd(secret=bytes(32)).mask(faces(1), rng=rng())
    assert torch.allclose(masker.mask(faces(1), rng=rng()), alone, atol=1e-5)


@pytest.mark.parametrize("shares", [[], [1.0], [-1.0, 2.0], [0.0, 0.0]])
def test_mixed_masker_rejects_invalid_shares(shares):
    with pytest.raises(RangeError, match="one share >= 0 each"):
        MixedMasker(Constant(), [MixUp(), InstaHide()], shares=shares)


def test_constant_stays_constant():
    masker = MixedMasker(Constant(), [MixUp()])
    assert torch.allclose(masker.mask(faces(), rng=rng()), torch.tensor(0.5))


@pytest.mark.parametrize("mixer", [MixUp(), MixUp(num_images=3), InstaHide(num_images=4)])
def test_without_rng_mixtures_come_from_the_operating_system(
    mixer: MixUp | InstaHide, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, labels = torch.rand(64, 3, 4, 4, generator=rng(1)), torch.arange(64)
    before = torch.random.get_rng_state()
    first, other = mixer.mix(faces, labels), mixer.mix(faces, labels)
    assert not torch.equal(first.values_BKPQ, other.values_BKPQ)
    assert not torch.equal(first.partners_Bk, other.partners_Bk)
    assert torch.equal(first.partners_Bk.sort(0).values, torch.arange(64)[:, None].expand(-1, mixer.num_images))
    assert float(first.weights_Bk.max()) <= mixer.public_config()["max_weight"]
    monkeypatch.setattr(os, "urandom", bytes)
    assert torch.equal(mixer.mix(faces, labels).values_BKPQ, mixer.mix(faces, labels).values_BKPQ)
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"


def test_weights_of_the_operating_system_have_the_law_of_seeded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    for num_images, cap in ((2, 0.55), (3, 0.5)):
        pair = [draw_weights(6000, num_images, max_weight=cap, rng=given)[:, 0] for given in (None, rng(1))]
        assert stats.ks_2samp(*pair).pvalue > 1e-3


def test_mixers_of_a_mixed_masker_are_chosen_with_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter(range(1 << 20))
    monkeypatch.setattr(os, "urandom", lambda num: next(keys).to_bytes(num, "big"))
    masker = MixedMasker(Unprotected(in_shape=(3, 4, 4)), [MixUp(), InstaHide()], shares=[1.0, 3.0])
    mixed = masker.mask(torch.full((4000, 3, 4, 4), 0.5))
    is_signed = (mixed < 0).flatten(1).any(1).float().mean()
    assert abs(float(is_signed) - 0.75) < 5 * (0.75 * 0.25 / 4000) ** 0.5


# What mixtures consist of


def _of_partners(plain_BCHW: torch.Tensor, mixed: MixedBatch) -> torch.Tensor:
    return torch.einsum("bk,bkchw->bchw", mixed.weights_Bk, plain_BCHW[mixed.partners_Bk])


@pytest.mark.parametrize("num", [1, 2, 9])
def test_partners_and_weights_of_a_mixture_give_its_values(num: int) -> None:
    """Also for mixers of different k, and for batches that are repeated because they are smaller than k."""
    faces = torch.rand(num, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    masker = MixedMasker(Unprotected(), [MixUp(num_images=2), MixUp(num_images=4)])
    mixed = masker.mask_and_mix(faces, rng=torch.Generator().manual_seed(2))
    assert torch.equal(mixed.values_BKPQ, masker.mask(faces, rng=torch.Generator().manual_seed(2)))
    assert mixed.partners_Bk.shape == mixed.weights_Bk.shape == (num, 4)
    torch.testing.assert_close(_of_partners(faces, mixed), mixed.values_BKPQ)
    assert torch.equal(mixed.partners_Bk[:, 0], torch.arange(num))
    torch.testing.assert_close(mixed.weights_Bk.sum(dim=1), torch.ones(num))


def test_epochs_are_averaged_with_all_their_partners() -> None:
    faces = torch.rand(9, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    masker = MixedMasker(Unprotected(), [MixUp(num_images=3)])
    mixed = masker.over_epochs(40).mask_and_mix(faces, rng=torch.Generator().manual_seed(2))
    assert mixed.partners_Bk.shape == (9, 120)
    torch.testing.assert_close(_of_partners(faces, mixed), mixed.values_BKPQ)
    one = masker.mask(faces, rng=torch.Generator().manual_seed(2))
    own, rest = (each - faces.mean(dim=0) for each in (mixed.values_BKPQ, one))
    similarity = [torch.cosine_similarity((faces - faces.mean(dim=0)).flatten(1), e.flatten(1)) for e in (own, rest)]
    assert similarity[0].min() > 0.9 > similarity[1].max()
    assert masker.over_epochs(1).name == masker.name != masker.over_epochs(2).name
    assert "num_epochs" not in masker.public_config() and masker.over_epochs(2).public_config()["num_epochs"] == 2


def test_epochs_of_instahide_are_averaged_as_magnitudes() -> None:
    """Signs average out to zero; magnitudes do not."""
    faces = 0.5 + torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(1)) / 2
    seen = MixedMasker(Unprotected(), [InstaHide(num_images=2)], num_epochs=16).mask(
        faces, rng=torch.Generator().manual_seed(2)
    )
    assert seen.min() > 0.49


def test_no_epoch_is_refused() -> None:
    with pytest.raises(RangeError, match="num_epochs is 0"):
        MixedMasker(Unprotected(), [MixUp()]).over_epochs(0)
