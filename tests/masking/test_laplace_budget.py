"""The Laplace budget: its noise against its law, its privacy loss measured, its shares, its ranges, its gradients."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Generator, Tensor

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.data import ArrayImageSet
from ppfr.masking import Dctdp, Hfcf, LaplaceBudget, NoisyFrontEnd, Sensitivities
from ppfr.masking._noise import LARGEST_DRAW, ImageNoise, laplace_from_bits, laplace_of
from reference import hybrid_frequency_colour as slow

CPU = torch.device("cpu")
TINY = NoisyFrontEnd(front_end="block", stride=8, num_channels=10, in_shape=(3, 16, 16))  # 30 x 2 x 2
FEW = NoisyFrontEnd(front_end="block", stride=8, num_channels=1, fuses=True, in_shape=(3, 8, 8))  # 1 x 1 x 1


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def pixels(num: int, *, seed: int = 1, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, size, size, 3), np.uint8)


def as_images(pixels_NHWC: np.ndarray) -> Tensor:
    return torch.tensor(pixels_NHWC).permute(0, 3, 1, 2).float() / 255


REFERENCE = pixels(40)
RANGES = Sensitivities.measure(REFERENCE, TINY)
UNIT = Sensitivities(low=np.zeros((1, 1, 1)), high=np.ones((1, 1, 1)), front_end=FEW.facts())


def budget(eps_mean: float = 1.0, **given_: object) -> LaplaceBudget:
    return LaplaceBudget(TINY, eps_mean=eps_mean, sensitivities=RANGES, **given_)  # type: ignore[arg-type]


# The sampler


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


# Privacy loss, measured


def worst_loss(first: np.ndarray, second: np.ndarray, *, num_bins: int = 24, confidence: float = 0.999) -> float:
    """Largest log ratio of bin probabilities that the samples prove, Clopper-Pearson, corrected for all bins."""
    edges = np.quantile(np.concatenate([first, second]), np.linspace(0, 1, num_bins + 1)[1:-1])
    counts = [np.bincount(np.searchsorted(edges, sample), minlength=num_bins) for sample in (first, second)]
    alpha = (1 - confidence) / (4 * num_bins)
    low = [stats.beta.ppf(alpha, c, len(first) - c + 1) for c in counts]
    high = [stats.beta.ppf(1 - alpha, c + 1, len(first) - c) for c in counts]
    ratios = [np.log(np.nan_to_num(low[a], nan=1e-300) / high[b]) for a, b in ((0, 1), (1, 0))]
    return float(np.max(ratios))


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


# The budget


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


# Sensitivities


def test_ranges_are_the_extremes_of_the_reference() -> None:
    found = TINY.coefficients(as_images(REFERENCE)).numpy()
    np.testing.assert_array_equal(RANGES.low, found.min(0))
    np.testing.assert_array_equal(RANGES.high, found.max(0))
    images = ArrayImageSet(REFERENCE, [str(i) for i in range(40)], name="reference", signatures=None)
    assert Sensitivities.measure(images, TINY).sha256 == RANGES.sha256


def test_what_lies_outside_is_clipped_so_that_the_guarantee_holds_for_any_face() -> None:
    huge = budget(1e9, learns=False)  # noise of a billionth
    wild = 100 * (torch.rand(4, *TINY.out_shape, generator=rng(1)) - 0.5)
    wanted = wild.clamp(torch.tensor(RANGES.low), torch.tensor(RANGES.high))
    assert (wanted != wild).any()
    torch.testing.assert_close(huge.add_noise(wild.clone(), ImageNoise(4, rng=rng())), wanted, rtol=0, atol=1e-4)
    with_gradient = budget(1e9).add_noise(wild.clone(), ImageNoise(4, rng=rng()))
    torch.testing.assert_close(with_gradient.detach(), wanted, rtol=0, atol=1e-4)


def test_a_coefficient_in_which_all_faces_agree_says_nothing_and_has_no_noise() -> None:
    flat = np.full((3, 16, 16, 3), 77, np.uint8)
    made = LaplaceBudget(TINY, eps_mean=1.0, sensitivities=Sensitivities.measure(flat, TINY))
    masked = made.add_noise(TINY.coefficients(as_images(REFERENCE)), ImageNoise(40, rng=rng()))
    assert (masked == masked[:1]).all()


def test_sensitivities_of_another_front_end_or_data_set_are_rejected() -> None:
    other_front_end = NoisyFrontEnd(front_end="block", stride=8, num_channels=10, fuses=True, in_shape=(3, 16, 16))
    names = {
        RANGES.sha256,
        Sensitivities.measure(REFERENCE[:39], TINY).sha256,
        Sensitivities.measure(REFERENCE[::-1], TINY).sha256,
        Sensitivities.measure(REFERENCE, other_front_end).sha256,
    }
    assert len(names) == 4
    another_set = Sensitivities.measure(pixels(40, seed=2), TINY)
    with pytest.raises(InvalidInputError, match="Those of another data set have other ranges"):
        LaplaceBudget(TINY, eps_mean=1.0, sensitivities=another_set, sensitivities_sha256=RANGES.sha256)
    with pytest.raises(InvalidInputError, match=r"another front end \(fuses=False, expected True"):
        LaplaceBudget(other_front_end, eps_mean=1.0, sensitivities=RANGES)
    again = Sensitivities.from_arrays(RANGES.arrays())
    assert again.sha256 == RANGES.sha256 and (again.low == RANGES.low).all() and again.front_end == RANGES.front_end
    for twin in (pickle.loads(pickle.dumps(RANGES)), copy.deepcopy(RANGES)):
        assert twin.sha256 == RANGES.sha256
    with pytest.raises(ValueError, match="read-only"):
        RANGES.low[0, 0, 0] = 1.0


def test_built_in_ranges_are_named_before_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(front_end: NoisyFrontEnd) -> Sensitivities:
        measured.append(front_end)
        return Sensitivities.measure(pixels(3, size=32), front_end)

    monkeypatch.setattr("ppfr.masking._laplace_budget.built_in_sensitivities", measure)
    masker = Hfcf(front_end="block", stride=8, num_channels=3, in_shape=(3, 32, 32))
    config = masker.public_config()
    assert len(config["sensitivities_sha256"]) == 64 and masker.spec.out_shape == (5, 4, 4) and not measured
    masker.mask(torch.rand(2, 3, 32, 32), rng=rng())
    masker.mask(torch.rand(2, 3, 32, 32), rng=rng())
    assert len(measured) == 1
    with pytest.raises(InvalidInputError, match="even side"):
        Hfcf(front_end="block", stride=8, num_channels=3, in_shape=(3, 32, 48))


def test_the_built_in_name_is_that_of_what_is_measured() -> None:
    masker = Hfcf(front_end="block", stride=8, num_channels=3, in_shape=(3, 32, 32))
    found = masker.budget.sensitivities
    assert found is not None and found.sha256 == masker.public_config()["sensitivities_sha256"]
    assert (found.range_KPQ > 0).all()


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


@pytest.mark.parametrize(
    ("low", "high", "error", "words"),
    [
        (np.zeros((1, 2)), np.ones((1, 2)), ShapeError, r"\(K, P, Q\)"),
        (np.zeros((1, 2, 2)), np.ones((1, 2, 3)), ShapeError, "same"),
        (np.ones((1, 2, 2)), np.zeros((1, 2, 2)), RangeError, "low <= high"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), np.inf), RangeError, "finite"),
    ],
)
def test_sensitivities_reject_inconsistent_arrays(
    low: np.ndarray, high: np.ndarray, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Sensitivities(low=low, high=high, front_end="{}")


def test_identification_rejects_inconsistent_input() -> None:
    with pytest.raises(ShapeError, match="no images"):
        Sensitivities.measure(REFERENCE[:0], TINY)
    with pytest.raises(ShapeError, match="another in_shape"):
        Sensitivities.measure(pixels(2, size=24), TINY)
    with pytest.raises(ShapeError, match="float64"):
        Sensitivities.measure(REFERENCE / 255, TINY)
    with pytest.raises(InvalidInputError, match="front_end of the sensitivities"):
        Sensitivities.from_arrays({**RANGES.arrays(), "front_end": np.frombuffer(b"{", np.uint8)})
    with pytest.raises(RangeError, match="'block', 'upsampled'"):
        NoisyFrontEnd(front_end="dct")  # type: ignore[arg-type]
    with pytest.raises(RangeError):
        NoisyFrontEnd(num_channels=64)
