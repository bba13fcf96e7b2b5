"""Noise of the operating system: its exact law, which outputs are possible, its measured loss, and its gradients."""

from __future__ import annotations

import decimal
import itertools
import math
import os
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from scipy import stats

from ppfr.core import Keystream
from ppfr.masking import Dctdp, Hfcf, LaplaceBudget, NoisyFrontEnd, Peep, Sensitivities, state_privacy
from ppfr.masking._dp_accountant import delta_of_ended_draws
from ppfr.masking._grid_noise import STEPS_PER_SCALE, Grid, SystemNoise, draw_steps, draw_table
from ppfr.masking._noise import LARGEST_DRAW, ImageNoise, laplace_from_bits
from support.noisy_masking import CPU, FEW, UNIT
from support.privacy_loss import worst_loss

LAST = 22 * STEPS_PER_SCALE


@pytest.fixture
def known_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys 0, 1, 2, ... in place of the operating system's, so that a test of a law gives one verdict."""
    keys = iter(range(1 << 30))
    monkeypatch.setattr(os, "urandom", lambda num: next(keys).to_bytes(num, "big"))


class Words:
    """A stream of given words."""

    def __init__(self, heads: Iterable[int], *others: Iterable[int]) -> None:
        self._parts = [np.array(list(heads), np.uint16), *(np.array(list(part), np.uint64) for part in others)]

    def words(self, num: int, dtype: object) -> np.ndarray:
        part = self._parts.pop(0)
        assert len(part) == num and part.dtype == dtype
        return part


# The law


def test_no_step_changes_a_probability_by_more_than_e_to_the_step() -> None:
    """In integers, for every pair of neighbouring outcomes: the proof that the privacy statement refers to."""
    counts = draw_table().counts
    assert sum(counts) == 2**64 and len(counts) == 2 * LAST + 1 and counts == counts[::-1]
    with decimal.localcontext() as context:
        context.prec = 60
        bound = (decimal.Decimal(1) / STEPS_PER_SCALE).exp()
        inner = counts[1:-1]
        for one, other in itertools.pairwise(inner):
            assert max(one, other) <= bound * min(one, other)
        # Beyond the end, P(22 t + j) = end * inner[j] / upper, with `upper` the draws without a minus sign.
        upper, end = sum(counts[LAST:]), counts[-1]
        at_the_end = decimal.Decimal(end) * counts[LAST] / upper
        assert 1 / bound <= counts[-2] / at_the_end <= bound
        assert decimal.Decimal(counts[-3]) > at_the_end


def test_draws_are_inversion_word_by_word() -> None:
    counts = draw_table().counts
    generator = np.random.default_rng(1)
    ends = np.cumsum(np.array(counts, dtype=object))
    at = [int(ends[number]) for number in (1, 40, 3000, LAST - 1, LAST, LAST + 1, 2 * LAST - 5)]
    words = [int(word) for word in generator.integers(0, 2**64, 3000, np.uint64)] + [w + d for w in at for d in (-1, 0)]
    wanted = [int(np.searchsorted(ends, word, side="right")) - LAST for word in words]
    heads = [word >> 48 for word in words]
    is_open = draw_table().guide_G[heads] == -(2**15)
    assert 0.02 < is_open[:3000].mean() < 0.08
    low = [word for word, is_open_ in zip(words, is_open, strict=True) if is_open_]
    out = np.empty(len(words), np.float32)
    draw_steps(Words(heads, low), out)  # type: ignore[arg-type]
    assert out.tolist() == wanted


def test_a_draw_at_the_end_of_the_table_goes_on() -> None:
    out = np.empty(2, np.float32)
    # 2^64 - 1 and 0 are the ends. Negative continuations are drawn again; 2^63 is the centre.
    words = Words([2**16 - 1, 0], [2**64 - 1, 0], [5], [2**64 - 1], [2**63], [2**63])
    draw_steps(words, out)  # type: ignore[arg-type]
    assert out.tolist() == [2 * LAST, -LAST]


def test_draws_have_laplace_s_law_and_streams_of_their_own(known_keys: None) -> None:
    drawn = SystemNoise(3).steps(300_000, CPU).double().numpy()
    assert np.array_equal(drawn, np.round(drawn))
    smooth = (drawn + np.random.default_rng(1).uniform(-0.5, 0.5, drawn.shape)) / STEPS_PER_SCALE
    assert stats.kstest(smooth.ravel(), stats.laplace().cdf).pvalue > 0.01
    for far in (6.0, 9.0):
        expected = drawn.size * math.exp(-far)
        assert abs((np.abs(smooth) > far).sum() - expected) < 4 * math.sqrt(expected)
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 5 / math.sqrt(300_000)
    assert SystemNoise(3, is_shared=True).steps(7, CPU).shape == (1, 7)
    assert SystemNoise(0).steps(7, CPU).shape == SystemNoise(0).flips(7, CPU, probability=0.3).shape == (0, 7)
    flips = SystemNoise(2).flips(200_000, CPU, probability=0.25).float().mean(1)
    assert (flips - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 200_000)


def test_flips_are_never_rarer_than_their_probability() -> None:
    class Edge:
        def words(self, num: int, dtype: object) -> np.ndarray:
            return np.arange(num, dtype=dtype)

    noise = SystemNoise(1)
    noise._streams = [Edge()]  # type: ignore[list-item]
    assert int(noise.flips(10, CPU, probability=3.2 / 2**32).sum()) == 4


# What is possible


def budget(eps: float, **given: object) -> LaplaceBudget:
    return LaplaceBudget(FEW, eps_mean=eps, sensitivities=UNIT, learns=False, **given)  # type: ignore[arg-type]


def sent(made: LaplaceBudget, value: float, noise: ImageNoise | SystemNoise, num: int) -> np.ndarray:
    return made.add_noise(torch.full((num, 1, 1, 1), value), noise).flatten().numpy().copy()


def possible_in_floating_point(made: LaplaceBudget, value: float, outputs: np.ndarray) -> np.ndarray:
    """Whether some word gives each output under `value`: all words are tried that come within four floats of it."""
    scale = float(made.scale(CPU))
    found = []
    for output in outputs:
        magnitude = abs(float(output) - value) / scale
        middle, width = math.exp(-magnitude) * 2**31, 4 + 2**31 * math.exp(-magnitude) * max(magnitude, 1) * 2**-20
        first, last = max(0, int(middle - width)), min(2**31 - 1, int(middle + width))
        numbers = np.arange(first, last + 1, dtype=np.uint32) << 1 | np.uint32(output < value)
        drawn = np.empty(len(numbers), np.float32)
        laplace_from_bits(numbers, drawn)
        values = torch.full((len(drawn), 1), value).addcmul_(torch.from_numpy(drawn)[:, None], made.scale(CPU))
        found.append(bool((values.flatten().numpy() == output).any()))
    return np.array(found)


def test_floating_point_noise_gives_outputs_that_are_impossible_under_a_neighbour() -> None:
    """The fault, on seeded noise, which keeps it: so the next test can find it."""
    made = budget(1.0)
    outputs = sent(made, 0.3, ImageNoise(300, rng=torch.Generator().manual_seed(1)), 300)
    assert possible_in_floating_point(made, 0.3, outputs).all()
    assert possible_in_floating_point(made, 0.8, outputs).mean() < 0.8


@pytest.mark.parametrize("eps", [0.05, 1.0, 3.0, 200.0])
def test_every_output_is_possible_under_every_neighbour(eps: float) -> None:
    made = budget(eps)
    reach = 20_000 + 256 * eps
    steps = torch.arange(-reach, reach + 1).round()
    for value in (0.0, 0.123, 0.8, 1.0, 7.0, -7.0):
        outputs = sent(made, value, SystemNoise(2000), 2000)
        for neighbour in (0.0, 0.3, 1.0):
            grid = made._grid(CPU)
            possible = grid.send(torch.full((len(steps), 1), neighbour), steps[:, None]).numpy()
            assert np.isin(outputs, possible).all()


def test_the_pictures_of_peep_come_from_one_grid(known_keys: None) -> None:
    masker = Peep(eps=2.0, num_components=4, in_shape=(3, 32, 32))
    for value in (0.0, 1.0, 0.37):
        noisy = masker._on_grid(torch.full((500, 4), value)).double() * 512
        assert torch.equal(noisy, noisy.round())


def test_a_clipped_range_has_at_most_256_eps_levels() -> None:
    for eps in (0.001, 0.3, 1.0, 17.3, 1e9):
        given = (torch.zeros(1), torch.ones(1), torch.ones(1) / eps, torch.tensor([eps], dtype=torch.float64))
        grid = Grid.of_ranges(*given)
        levels = grid.send(torch.linspace(-1, 2, 5000)[:, None], torch.zeros(5000, 1)) / grid.step_N
        assert float(levels.max() - levels.min()) <= STEPS_PER_SCALE * eps + 1e-3
        assert float(grid.most_N) * float(grid.step_N) <= 1.0 + 1e-6


# Privacy loss, measured


@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_the_measured_privacy_loss_stays_under_eps(eps: float, known_keys: None) -> None:
    made, num = budget(eps), 200_000
    drawn = [SystemNoise(1).steps(num, CPU).T for _ in range(2)]
    low, high = (
        made._grid(CPU).send(torch.full((num, 1), value), steps.clone()).numpy().ravel()
        for value, steps in zip((0.0, 1.0), drawn, strict=True)
    )
    assert 0.65 * eps < worst_loss(low, high) <= eps
    assert worst_loss(low / 2, high / 2 + 0.5) > eps, "noise of half the scale must be caught"


# Stated (eps, delta), by exact enumeration


def law_of_draws(*, goes_on: bool, num_steps: int = 80_000) -> np.ndarray:
    """log P(n) for n = 0..num_steps, from the counts out of 2^64, with or without the draws beyond the table."""
    counts = draw_table().counts[LAST:]
    log_total, log_upper = 64 * math.log(2), math.log(sum(counts))
    inner = np.array([math.log(count) for count in counts[:-1]]) - log_total
    if not goes_on:
        return np.append(inner, math.log(counts[-1]) - log_total)
    # From the end on, the law of |n| repeats: P(22 t + j) = P(22 t or more) * counts[j] / upper.
    parts, log_end = [inner], math.log(counts[-1]) - log_total
    while sum(map(len, parts)) <= num_steps:
        parts.append(log_end + inner + log_total - log_upper)
        log_end += math.log(counts[-1]) - log_upper
    return np.concatenate(parts)[: num_steps + 1]


def least_delta(log_law: np.ndarray, shift: int, eps: float, *, ends: bool) -> float:
    """The least delta of (eps, delta) for two inputs `shift` steps apart: the sum of max(0, P - e^eps Q).

    A law that does not end is compared where both probabilities were enumerated; beyond, it repeats itself.
    """
    both = np.concatenate([log_law[:0:-1], log_law])
    one, other = both[shift:], both[: len(both) - shift]
    if ends:
        one, other = np.append(np.full(shift, -np.inf), both), np.append(both, np.full(shift, -np.inf))
    # With a slack of 1e-12 for logarithms in float64; the table leaves 2^-12 of each step.
    total = 0.0
    for above, below in ((one, other), (other, one)):
        exceeds = np.isfinite(above) & (above > below + eps + 1e-12)
        total = max(total, math.fsum(np.exp(above[exceeds]) - np.exp(below[exceeds] + eps)))
    return total


@pytest.mark.parametrize("eps", [0.3, 1.0, 16.0, 29.2, 50.0])
def test_the_stated_delta_holds_for_every_outcome_of_the_sampler(eps: float) -> None:
    made = budget(eps)
    shift, eps_sent = int(made._grid(CPU).most_N), float(made.accounted_eps().item())
    stated = state_privacy("x", made.accounted_eps(), FEW)
    assert stated.delta == stated.delta_coefficient == 0 and stated.num_beyond_draws == 0
    assert least_delta(law_of_draws(goes_on=True), shift, eps_sent, ends=False) <= stated.delta_coefficient
    # The fault, planted: were the table's end the end of the draws, a delta of 0 would be too small, and so would half
    # of what the accountant says of draws that end. It says the least delta, without the mass at the end itself.
    ended = least_delta(law_of_draws(goes_on=False), shift, eps_sent, ends=True)
    expected = float(delta_of_ended_draws(eps, 22.0))
    if eps < 22:
        assert ended > 0.5 * expected > stated.delta_coefficient
        assert 0.99 * expected <= ended <= 1.01 * (expected + 0.5 * math.exp(-22))
    else:
        assert ended > 0.5 and expected == 1


@pytest.mark.parametrize("eps", [12.0, 15.0, 18.0])
def test_seeded_draws_near_their_end_are_as_likely_as_stated(eps: float) -> None:
    """Every word of the seeded sampler within eps of the end: outputs that are impossible under the other input."""
    beyond = int(2**31 * math.exp(eps - LARGEST_DRAW))
    words = np.arange(2 * beyond + 20, dtype=np.uint32) << 1  # the largest positive draws come first
    drawn = np.empty(len(words), np.float32)
    laplace_from_bits(words, drawn)
    assert drawn.max() == pytest.approx(LARGEST_DRAW) and drawn.min() < LARGEST_DRAW - eps
    impossible = int((drawn > LARGEST_DRAW - eps).sum()) / 2**32
    assert impossible == pytest.approx(float(delta_of_ended_draws(eps, LARGEST_DRAW)), rel=1e-2)
    assert impossible > 0.9 * state_privacy("x", np.full((1, 1, 1), eps), FEW, is_seeded=True).delta_coefficient


def test_statement_of_seeded_noise_says_where_draws_end_and_which_coefficients_exceed_it() -> None:
    front_end = NoisyFrontEnd(front_end="block", fuses=True, stride=8, num_channels=2, in_shape=(3, 8, 8))
    stated = state_privacy("x", np.array([16.0, 29.2]).reshape(2, 1, 1), front_end, is_seeded=True)
    assert (stated.delta, stated.delta_coefficient, stated.num_beyond_draws) == (1.0, 1.0, 1)
    assert stated.largest_draw == pytest.approx(22.18, abs=0.01)
    words = stated.in_words()
    assert "22.18" in words and "1.0e-03 at eps 16" in words and "1 of 2 coefficients have an eps above 22.18" in words
    assert "together" not in words
    pair = state_privacy("x", np.array([21.5, 21.5]).reshape(2, 1, 1), front_end, is_seeded=True)
    each = 0.5 * math.exp(21.5 - LARGEST_DRAW)
    assert f"{1 - (1 - each) ** 2:.1e} for these 2 coefficients together" in pair.in_words()
    found = small(Hfcf, colour="none").guarantee(is_seeded=True)
    assert 0 < found["delta_coefficient"] < 1e-9 and found["delta"] == 1


@pytest.mark.parametrize("make", [lambda: small(Hfcf), lambda: small(Dctdp), lambda: Peep(num_components=3)])
@pytest.mark.parametrize("is_seeded", [False, True])
def test_the_guarantee_names_epochs_and_who_holds_clean_values(
    make: Callable[[], Hfcf | Dctdp | Peep], is_seeded: bool
) -> None:
    words = make().guarantee(is_seeded=is_seeded)["in_words"]
    if not (is_seeded and isinstance(make(), Peep)):
        assert "each epoch masks them again" in words
        assert "holds clean coefficients" in words or "holds plain faces" in words
    assert not is_seeded or "draws end at" in words


# Whole maskers


def small(kind: type[Hfcf] | type[Dctdp], **given: object) -> Hfcf | Dctdp:
    front_end = {"front_end": "block", "stride": 8, "num_channels": 6, "in_shape": (3, 16, 16)}
    made = kind(eps_mean="inf", **front_end).front_end  # type: ignore[arg-type]
    crops = np.random.default_rng(1).integers(0, 256, (20, 16, 16, 3), np.uint8)
    return kind(sensitivities=Sensitivities.measure(crops, made), **front_end, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Hfcf, Dctdp])
def test_values_and_gradients_agree(kind: type[Hfcf] | type[Dctdp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    masker = small(kind)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        without = masker.mask(images)
    with_gradient = masker.mask(images.requires_grad_())
    assert torch.equal(without, with_gradient)
    rho = masker.budget.rho
    assert rho is not None
    gradients = torch.autograd.grad(with_gradient.square().sum(), [images, rho])
    assert all(bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0 for gradient in gradients)


def test_the_published_settings_draw_from_the_operating_system_too() -> None:
    settings = {"front_end": "block", "stride": 8, "num_channels": 6, "in_shape": (3, 128, 128)}
    masker = Dctdp(settings="published", **settings)
    images = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, other = masker.mask(images), masker.mask(images)
        clean = Dctdp(eps_mean="inf", **settings).mask(images)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first[0] - first[1], clean[0] - clean[1], rtol=0, atol=1e-5)
    noise = (first[0] - clean[0]) * 1024 * 4  # one draw that all images share: 1,536 values, of mean size 1 +- 0.026
    assert 0.8 < float(noise.abs().mean()) < 1.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [Hfcf, Dctdp])
def test_on_cuda_noise_is_the_cpu_s(kind: type[Hfcf] | type[Dctdp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    masker = small(kind, learns=False)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    here, there = masker.mask(images), masker.to("cuda").mask(images.to("cuda")).cpu()
    assert ((here - there).abs() < 1e-4).float().mean() > 0.99  # a rounding of the coefficient may differ


@pytest.mark.parametrize("make", [lambda: small(Hfcf), lambda: small(Dctdp), lambda: Peep(num_components=3)])
def test_seeded_noise_voids_the_statement(make: Callable[[], Hfcf | Dctdp | Peep]) -> None:
    sound, void = make().guarantee(), make().guarantee(is_seeded=True)
    assert sound["delta"] == 0 and "Proven" in sound["in_words"] and "Measured" in sound["in_words"]
    assert void["eps_image"] == "inf" and void["delta"] == 1 and "void: seeded noise" in void["in_words"]
    assert "Proven" not in void["in_words"]


def test_keys_of_32_bytes_are_used_whole() -> None:
    first = Keystream(bytes(32), 0).words(16, np.uint8)
    assert first.tobytes().hex() == "dc95c078a2408989ad48a21492842087"  # AES-256 of zeros under a key of zeros
    for byte in range(32):
        key = bytearray(32)
        key[byte] = 1
        assert not np.array_equal(Keystream(bytes(key), 0).words(16, np.uint8), first)
