"""Seeded Laplace noise: the sampler against its law, and the privacy loss measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ppfr.masking import Dctdp, Hfcf, LaplaceBudget, Sensitivities
from ppfr.masking._noise import LARGEST_DRAW, ImageNoise, laplace_from_bits, laplace_of
from reference import hybrid_frequency_colour as slow
from support.noisy_masking import CPU, FEW, REFERENCE, TINY, UNIT, as_images, rng
from support.privacy_loss import worst_loss


def test_the_sampler_is_inversion_word_by_word() -> None:
    words = np.concatenate([np.random.default_rng(1).integers(0, 2**32, 5000, np.uint32), [0, 1, 2**32 - 1, 2**31]])
    out = np.empty(len(words), np.float32)
    laplace_from_bits(words.astype(np.uint32), out)
    wanted = np.array([slow.laplace(int(word)) for word in words])
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-6)
    assert np.abs(out).max() == pytest.approx(LARGEST_DRAW)


def test_draws_have_laplace_s_law_and_tails_and_no_infinities() -> None:
    draw = ImageNoise(4, rng=rng(1)).laplace(250_000, CPU).double().numpy().ravel()
    assert np.isfinite(draw).all()
    assert stats.kstest(draw, stats.laplace().cdf).pvalue > 0.01
    assert stats.kstest(draw, stats.laplace(scale=1.01).cdf).pvalue < 1e-3, "the test can tell"
    for at in (8.0, 10.0):
        expected = 1e6 * math.exp(-at)
        assert abs((np.abs(draw) > at).sum() - expected) < 4 * math.sqrt(expected)


def test_draws_of_other_devices_have_the_same_distribution() -> None:
    draw = laplace_of(rng(4), (4, 50_000)).double().numpy().ravel()
    assert stats.kstest(draw, stats.laplace().cdf).pvalue > 0.01
    assert np.isfinite(draw).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_masks_have_the_same_law_and_gradients() -> None:
    for kind in (Hfcf, Dctdp):
        given_ = {"front_end": "block", "stride": 8, "num_channels": 10, "in_shape": (3, 16, 16)}
        ranges = Sensitivities.measure(REFERENCE, kind(eps_mean="inf", **given_).front_end)  # type: ignore[arg-type]
        masker = kind(sensitivities=ranges, eps_mean=1.0, **given_)  # type: ignore[arg-type]
        images = as_images(REFERENCE[:1]).expand(4000, -1, -1, -1)
        num = masker.front_end.out_shape[0]
        here, there = (masker.mask(images.to(place), rng=rng(1))[:, :num].detach().cpu() for place in ("cpu", "cuda"))
        assert stats.ks_2samp(here[:, 3, 1, 1], there[:, 3, 1, 1]).pvalue > 1e-3
        loss = masker.mask(images[:8].to("cuda"), rng=rng(1)).square().sum()
        (gradient,) = torch.autograd.grad(loss, [masker.budget.rho])  # type: ignore[list-item]
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_images_have_draws_of_their_own_and_a_shared_stream_has_one() -> None:
    own = ImageNoise(3, rng=rng(1)).laplace(100_000, CPU).numpy()
    assert np.abs(np.corrcoef(own) - np.eye(3)).max() < 5 / math.sqrt(100_000)
    neighbours = np.corrcoef(own[0, :-1], own[0, 1:])[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(100_000)
    assert ImageNoise(3, rng=rng(1), is_shared=True).laplace(7, CPU).shape == (1, 7)
    flips = ImageNoise(2, rng=rng(2)).flips(200_000, CPU, probability=0.25).float().mean(1)
    assert (flips - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 200_000)


def noisy_ends(eps: float, *, num: int = 50_000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The one coefficient of many images at either end of its range: the farthest neighbours that there are."""
    mechanism = LaplaceBudget(FEW, eps_mean=eps, sensitivities=UNIT, learns=False)
    found = []
    for value, label in ((0.0, seed), (1.0, seed + 1000)):
        values = torch.full((num, 1, 1, 1), value)
        found.append(mechanism.add_noise(values, ImageNoise(num, rng=rng(label))).numpy().ravel().copy())
    return found[0], found[1]


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_the_measured_privacy_loss_stays_under_eps(eps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.65 * eps < worst_loss(*noisy_ends(eps)) <= eps
    sound = ImageNoise.laplace_row

    def too_little(self: ImageNoise, row: int, out_N: Tensor) -> Tensor:
        return sound(self, row, out_N).mul_(0.5)

    monkeypatch.setattr(ImageNoise, "laplace_row", too_little)
    assert worst_loss(*noisy_ends(eps)) > eps, "a sampler of half the scale must be caught"


def test_the_measured_loss_of_whole_masked_images_stays_under_eps() -> None:
    """Two faces that are the ends of a coefficient's range, through the masker."""
    eps, num = 1.0, 40_000
    masker = Dctdp(
        eps_mean=eps,
        front_end="block",
        stride=8,
        num_channels=10,
        in_shape=(3, 16, 16),
        sensitivities=Sensitivities.measure(REFERENCE[:2], TINY),
        learns=False,
    )
    both = as_images(REFERENCE[:2])
    samples = [masker.mask(both[i : i + 1].expand(num, -1, -1, -1), rng=rng(i))[:, 3, 1, 0].numpy() for i in (0, 1)]
    assert 0.75 * eps < worst_loss(*samples) <= eps
    gap = abs(float(np.mean(samples[0]) - np.mean(samples[1])))
    reach = float(masker.budget.sensitivities.range_KPQ[3, 1, 0])  # type: ignore[union-attr]
    assert gap == pytest.approx(reach, abs=5 * 2 * reach / eps / math.sqrt(num)), "they are its ends"
