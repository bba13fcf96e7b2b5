"""`ImageMasker.noise`: what an adversary computes from public parameters agrees with what leaves the device."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.support.noisy_masking import as_images, pixels, rng

from ppfr.masking import Constant, Dctdp, Hfcf, Peep, PpfrFd, Unprotected

SMALL = {"front_end": "block", "stride": 8, "num_channels": 10, "in_shape": (3, 32, 32)}
FACES = as_images(pixels(2, size=32))


def _maskers() -> dict[str, object]:
    rho = {"rho": np.random.default_rng(0).normal(size=(30, 4, 4)).astype(np.float32)}
    return {
        "dctdp, even": Dctdp(eps_mean=1.0, **SMALL),
        "dctdp, learned": Dctdp(eps_mean=1.0, learned=rho, learns=False, **SMALL),
        "dctdp, published": Dctdp(settings="published", **SMALL),
        "hfcf": Hfcf(eps_mean=2.0, **SMALL),
        "hfcf, bits": Hfcf(eps_mean=2.0, colour="lbp-bits", **SMALL),
    }


@pytest.mark.parametrize("name", list(_maskers()))
def test_centre_and_scale_are_those_of_the_output(name):
    """Median and mean absolute deviation of 600 draws, value by value."""
    masker = _maskers()[name]
    noise = masker.noise()
    drawn = torch.stack([noise.values(masker.mask(FACES[:1], rng=rng(n)).detach())[0] for n in range(600)])
    centre_F, scale_F = noise.centre(FACES[:1])[0], noise.scale_F
    assert scale_F.shape == centre_F.shape == (math.prod(masker.spec.out_shape),)
    assert noise.law == "laplace" and not centre_F.requires_grad and not scale_F.requires_grad
    deviation = (drawn - centre_F).abs().mean(dim=0)
    torch.testing.assert_close(deviation, scale_F, rtol=0.25, atol=1e-6)
    noisy = scale_F > 0
    assert ((drawn.median(dim=0).values - centre_F).abs() <= 0.25 * scale_F + 1e-6).all() and noisy.any()


def test_system_noise_has_the_same_law_up_to_its_grid():
    masker = Dctdp(eps_mean=1.0, **SMALL)
    noise = masker.noise()
    with torch.no_grad():
        many = noise.values(masker.mask(FACES[:1].expand(400, -1, -1, -1)))
    deviation = (many - noise.centre(FACES[:1])).abs().mean(dim=0) / noise.scale_F
    assert deviation.mean() == pytest.approx(1.0, abs=0.02)


def test_flipped_bits_are_not_additive():
    masker = Hfcf(eps_mean=2.0, colour="lbp-bits", colour_eps=1.0, **SMALL)
    num = 16 * math.prod(masker.spec.out_shape[1:])
    scale_F = masker.noise().scale_F
    assert scale_F[-num:].isinf().all() and scale_F[:-num].isfinite().all()


def test_peep_states_the_noise_of_its_coefficients():
    """Where the picture is not clamped, its coefficients are the noisy ones exactly."""
    masker = Peep(eps=400.0, num_components=8, in_shape=(3, 32, 32))
    grey = 0.5 + 0.1 * (FACES[:1] - 0.5)
    noise = masker.noise()
    drawn = torch.cat([noise.values(masker.mask(grey, rng=rng(n))) for n in range(600)])
    centre_F = noise.centre(grey)[0]
    assert ((centre_F >= 0) & (centre_F <= 1)).all()
    torch.testing.assert_close((drawn - centre_F).abs().mean(dim=0), noise.scale_F, rtol=0.2, atol=0)


@pytest.mark.parametrize(
    "masker",
    [
        Unprotected(in_shape=(3, 32, 32)),
        Constant(out_shape=(1, 2, 2), in_shape=(3, 32, 32)),
        PpfrFd(secret=bytes(range(32))),
        Dctdp(eps_mean=math.inf, **SMALL),
        Hfcf(eps_mean=math.inf, **SMALL),
    ],
    ids=lambda masker: masker.name,
)
def test_without_randomness_there_is_no_noise(masker):
    assert not masker.spec.is_stochastic and masker.noise() is None
