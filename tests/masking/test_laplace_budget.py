"""The Laplace budget: its shares, its noise, its gradients, and rejected arguments."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.masking import Dctdp, LaplaceBudget
from ppfr.masking._noise import ImageNoise
from support.noisy_masking import CPU, RANGES, TINY, budget, rng


@settings(deadline=None, max_examples=20)
@given(eps_mean=st.floats(0.01, 100), spread=st.floats(0, 30), seed=st.integers(0, 99))
def test_shares_sum_to_the_total_whatever_was_learned(eps_mean: float, spread: float, seed: int) -> None:
    rho = spread * np.random.default_rng(seed).normal(size=TINY.out_shape)
    made = budget(eps_mean, learned={"rho": rho})
    assert made.eps().double().sum().item() == pytest.approx(eps_mean * 120, rel=1e-5)
    wanted = eps_mean * 120 * np.exp(rho - rho.max()) / np.exp(rho - rho.max()).sum()
    np.testing.assert_allclose(made.eps().detach().numpy(), wanted, rtol=1e-3, atol=1e-30)
    scale = made.scale(CPU).detach()
    assert scale.isfinite().all()


def test_an_even_budget_is_eps_mean_everywhere_and_exact_over_millions() -> None:
    masker = Dctdp(eps_mean=0.5, sensitivities=None)
    eps = masker.budget.eps().detach()
    assert eps.shape == (189, 112, 112)
    torch.testing.assert_close(eps, torch.full_like(eps, 0.5), rtol=1e-5, atol=0)
    with torch.no_grad():
        masker.budget.rho.normal_(std=3.0, generator=rng())  # type: ignore[union-attr]
    assert masker.budget.eps().double().sum().item() == pytest.approx(0.5 * 189 * 112 * 112, rel=1e-5)


def test_noise_has_zero_mean_and_the_scale_that_the_shares_say() -> None:
    rho = np.random.default_rng(1).normal(size=TINY.out_shape)
    made = budget(0.7, learned={"rho": rho}, learns=False)
    centre = torch.tensor((RANGES.low + RANGES.high) / 2)
    num = 20_000
    noise = made.add_noise(centre.expand(num, *TINY.out_shape).clone(), ImageNoise(num, rng=rng(3))) - centre
    scaled = (noise.flatten(1).double() / made.scale(CPU)).numpy()
    assert np.abs(scaled.mean(0)).max() < 5 * math.sqrt(2 / num)
    assert np.abs(np.abs(scaled).mean(0) - 1).max() < 5 / math.sqrt(num)
    assert np.abs(np.corrcoef(scaled.T) - np.eye(120)).max() < 6 / math.sqrt(num), "each has a draw of its own"


def test_with_and_without_gradient_the_noise_is_the_same() -> None:
    made, values = budget(), torch.rand(5, *TINY.out_shape, generator=rng(1))
    with_gradient = made.add_noise(values.clone(), ImageNoise(5, rng=rng(2)))
    assert with_gradient.requires_grad
    with torch.no_grad():
        without = made.add_noise(values.clone(), ImageNoise(5, rng=rng(2)))
    torch.testing.assert_close(with_gradient.detach(), without)


def test_what_is_learned_counts_at_once_also_without_gradient() -> None:
    made, values = budget(), torch.zeros(1, *TINY.out_shape)
    with torch.no_grad():
        before = made.add_noise(values.clone(), ImageNoise(1, rng=rng(2)))
        made.rho[:4] += 3.0  # type: ignore[index]
        after = made.add_noise(values.clone(), ImageNoise(1, rng=rng(2)))
    assert not before.equal(after)
    wanted = made.add_noise(values.clone(), ImageNoise(1, rng=rng(2)))
    torch.testing.assert_close(after, wanted.detach())


def test_the_gradient_is_the_formula_and_moves_budget_to_where_noise_costs() -> None:
    made = budget(learned={"rho": np.random.default_rng(1).normal(size=TINY.out_shape)})
    weight = torch.zeros(120)
    weight[:10] = 1.0  # a recogniser that looks at ten coefficients alone
    values, num = torch.zeros(1, *TINY.out_shape), 64
    noisy = made.add_noise(values.expand(num, -1, -1, -1).clone(), ImageNoise(num, rng=rng(4)))
    loss = (weight * noisy.flatten(1).square()).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, [made.rho])  # type: ignore[list-item]
    with torch.no_grad():
        draws = ImageNoise(num, rng=rng(4)).laplace(120, CPU)
        clean = values.flatten().clamp(torch.tensor(RANGES.low).flatten(), torch.tensor(RANGES.high).flatten())
        a = (2 * weight * (clean + draws * made.scale(CPU)) * draws * made.scale(CPU)).mean(0)
        share = torch.softmax(made.rho, 0)  # type: ignore[arg-type]
        torch.testing.assert_close(gradient, -a + share * a.sum(), rtol=1e-4, atol=1e-6)
        before = made.eps().flatten()
        made.rho -= 2.0 * gradient / gradient.abs().max()
        after = made.eps().flatten()
    assert after[:10].sum() > before[:10].sum() and after[10:].sum() < before[10:].sum()
    assert after.sum() == pytest.approx(before.sum().item(), rel=1e-5), "it is moved, never made"


def test_shares_of_channels_are_shares_of_all_their_places() -> None:
    rho_K = np.random.default_rng(1).normal(size=30)
    whole = budget(learned={"rho": np.broadcast_to(rho_K[:, None, None], TINY.out_shape).copy()})
    channels = budget(shares="channel", learned={"rho": rho_K.reshape(30, 1, 1)})
    assert channels.rho is not None and channels.rho.shape == (30,)
    torch.testing.assert_close(channels.eps(), whole.eps())
    losses = [(made.scale(CPU) * torch.arange(120)).sum() for made in (whole, channels)]
    by_place, by_channel = (
        torch.autograd.grad(*pair)[0] for pair in zip(losses, [whole.rho, channels.rho], strict=True)
    )
    torch.testing.assert_close(by_channel, by_place.view(30, 4).sum(1))


def test_a_scaled_rate_is_a_scaled_rate() -> None:
    """One step of Adam at a tenth of the rate with ten times the scale ends where the plain one does."""
    ends = []
    for lr, lr_scale in ((0.1, 1.0), (0.01, 10.0)):
        made = budget(lr_scale=lr_scale, learned={"rho": np.random.default_rng(1).normal(size=TINY.out_shape)})
        optimiser = torch.optim.Adam(made.parameters(), lr=lr)
        for step in range(3):
            optimiser.zero_grad()
            values = torch.zeros(8, *TINY.out_shape)
            made.add_noise(values, ImageNoise(8, rng=rng(step))).abs().sum().backward()
            optimiser.step()
        ends.append(made.learned()["rho"])
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-3)


def test_no_noise_is_no_noise_and_reads_no_ranges() -> None:
    made = LaplaceBudget(TINY, eps_mean=math.inf)
    values = 5 * torch.rand(2, *TINY.out_shape)
    assert made.add_noise(values.clone(), ImageNoise(2, rng=rng())).equal(values)
    assert made.sensitivities is None and not list(made.parameters()) and made.eps().isinf().all()
    assert json.loads(json.dumps(made.config()))["eps_mean"] == "inf"
    assert not LaplaceBudget(TINY, eps_mean="inf").has_noise


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"eps_mean": 0.0}, RangeError, "must be a number above 0"),
        ({"eps_mean": -1.0}, RangeError, "above 0"),
        ({"eps_mean": math.nan}, RangeError, "eps_mean is nan"),
        ({"eps_mean": "much"}, RangeError, "'much'"),
        ({"learned": {"rho": np.zeros((30, 2, 3))}}, ShapeError, r"rho has shape \(30, 2, 3\)"),
        ({"shares": "channel", "learned": {"rho": np.zeros((30, 2, 2))}}, ShapeError, r"it must be \(30, 1, 1\)"),
        ({"shares": "place"}, RangeError, "'coefficient', 'channel'"),
        ({"lr_scale": 0.0}, RangeError, "above 0"),
        ({"learned": {"rho": np.full((30, 2, 2), np.nan)}}, RangeError, "not finite"),
        (
            {"learned": {"loc": np.zeros((30, 2, 2))}},
            InvalidInputError,
            "learned contains loc; this masker expects rho",
        ),
        ({"learned_sha256": "0" * 64}, InvalidInputError, "expected 0{12}"),
        ({"sensitivities": "ranges.npz"}, InvalidInputError, "is a str"),
        ({"sensitivities": {"low": RANGES.low}}, InvalidInputError, "consist of front_end, high, low, origin"),
        ({"is_measured": False}, InvalidInputError, "omit sensitivities"),
    ],
)
def test_constructor_rejects_invalid_arguments(change: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        LaplaceBudget(TINY, **({"eps_mean": 1.0, "sensitivities": RANGES} | change))  # type: ignore[arg-type]
