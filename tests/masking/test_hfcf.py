"""HFCF and DCTDP: what leaves the device against slow loops, both settings, the statement, and what was learned."""

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

from ppfr.core import ImageMasker, InvalidInputError, RangeError, ShapeError
from ppfr.frequency import bdct_upsampled, block_dct, rgb_to_ycbcr
from ppfr.masking import (
    ColourChannels,
    Dctdp,
    FrequencyChannels,
    Hfcf,
    NoisyFrontEnd,
    PrivacyStatement,
    Sensitivities,
    state_privacy,
)
from ppfr.masking._local_binary_patterns import MAX_BITS_PER_PLACE, pattern_bits, plane_levels
from ppfr.masking._noise import ImageNoise
from reference import hybrid_frequency_colour as slow
from support.noisy_masking import as_images, rng

SHAPE = (3, 32, 32)
NAMES = {
    "none": [],
    "lbp": ["cb", "cr"],
    "lbp-ycbcr": ["y", "cb", "cr"],
    "lbp-difference": ["r-g", "g-b", "b-r"],
    "lbp-bits": ["cb", "cr"],
}


def pixels(num: int, *, seed: int = 1, size: int = 32) -> np.ndarray:
    """Smooth, so that colours are alike from place to place and patterns have ties."""
    draw = np.random.default_rng(seed).integers(0, 256, (num, size // 4, size // 4, 3)).astype(float)
    wide = draw.repeat(4, 1).repeat(4, 2)
    return np.asarray((wide + np.roll(wide, 1, 1) + np.roll(wide, 1, 2)) / 3, np.uint8)


FACES = pixels(6)


def ranges(**front_end: object) -> Sensitivities:
    return Sensitivities.measure(FACES, NoisyFrontEnd(in_shape=SHAPE, **front_end))  # type: ignore[arg-type]


BLOCK_HFCF = ranges(front_end="block", fuses=True)
BLOCK_DCTDP = ranges(front_end="block")


def hfcf(**given_: object) -> Hfcf:
    return Hfcf(**({"front_end": "block", "in_shape": SHAPE, "sensitivities": BLOCK_HFCF} | given_))  # type: ignore[arg-type]


# What leaves the device


@pytest.mark.parametrize("front_end", ["block", "upsampled"])
def test_without_noise_it_is_the_loops(front_end: str) -> None:
    masker = Hfcf(eps_mean=math.inf, front_end=front_end, in_shape=SHAPE)  # type: ignore[arg-type]
    masked = masker.mask(as_images(FACES), rng=rng())
    channels = tuple(range(1, 64))
    if front_end == "upsampled":
        all_colours = bdct_upsampled(as_images(FACES), channels=channels)
    else:
        planes = rgb_to_ycbcr(as_images(FACES) * 255) - 128
        all_colours = block_dct(planes, stride=4, channels=channels)
    fused = slow.strongest_colour(all_colours.numpy() / 1024)
    rows, columns = masked.shape[2:]
    assert masked.shape[1] == 65
    frequency, colours = masked[:, :63].numpy(), masked[:, 63:].numpy()
    np.testing.assert_allclose(np.abs(frequency), np.abs(fused), rtol=0, atol=1e-6)
    assert (np.sign(frequency) != np.sign(fused))[np.abs(fused) > 1e-4].mean() < 1e-4, "signs, but for ties"
    for face, colour in zip(FACES, colours, strict=True):
        levels = slow.summed_cells(slow.planes(face, ["cb", "cr"]), rows, columns)
        np.testing.assert_allclose(colour, slow.codes(slow.pattern_bits(levels)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", NAMES)
def test_colour_channels_equal_the_slow_reference(kind: str) -> None:
    colour = ColourChannels(kind=kind)  # type: ignore[arg-type]
    out = torch.empty(len(FACES), colour.num_channels, 8, 8)
    colour.write(as_images(FACES), out, ImageNoise(0, rng=rng()))
    assert colour.num_planes == len(NAMES[kind])
    for face, found in zip(FACES, out.numpy(), strict=True):
        if kind != "none":
            bits = slow.pattern_bits(slow.summed_cells(slow.planes(face, NAMES[kind]), 8, 8))
            wanted = bits.reshape(-1, 8, 8) if kind == "lbp-bits" else slow.codes(bits)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(
    kind=st.sampled_from([["y"], ["cb", "cr"], ["r-g", "g-b", "b-r"]]),
    rows=st.integers(2, 6),
    columns=st.integers(2, 6),
    seed=st.integers(0, 99),
    is_flat=st.booleans(),
)
def test_pattern_bits_equal_the_slow_reference(
    kind: list[str], rows: int, columns: int, seed: int, is_flat: bool
) -> None:
    picture = np.random.default_rng(seed).integers(0, 3 if is_flat else 256, (rows, columns, 3), np.uint8)
    levels = slow.planes(picture, kind)
    image = as_images(picture[None])
    found = plane_levels(image, tuple(kind), (rows, columns))
    np.testing.assert_array_equal(found[0].numpy(), levels)
    np.testing.assert_array_equal(pattern_bits(found)[0].numpy(), slow.pattern_bits(levels))


def test_randomised_response_flips_each_bit_with_its_odds() -> None:
    eps = 1.0
    colour, faces = ColourChannels(kind="lbp-bits", eps=eps), as_images(FACES[:1]).expand(2000, -1, -1, -1)
    out = torch.empty(2000, 16, 8, 8)
    colour.write(faces, out, ImageNoise(2000, rng=rng(3)))
    clean = torch.empty(1, 16, 8, 8)
    ColourChannels(kind="lbp-bits").write(faces[:1], clean, ImageNoise(0, rng=rng()))
    share = (out != clean).float().mean(0).double()
    odds = 1 / (1 + math.exp(eps))
    assert (share - odds).abs().max() < 5 * math.sqrt(odds * (1 - odds) / 2000)
    ratio = torch.where(clean[0] == 1, 1 - share, share) / torch.where(clean[0] == 1, share, 1 - share)
    assert ratio.log().abs().max() < eps + 0.3, "the odds of a bit differ by e^eps at most, up to the count's error"
    assert out[0].ne(out[1]).any()


def test_codes_under_randomised_response_are_codes_of_flipped_bits() -> None:
    bits, codes = torch.empty(6, 16, 8, 8), torch.empty(6, 2, 8, 8)
    for kind, out in (("lbp-bits", bits), ("lbp", codes)):
        colour = ColourChannels(kind=kind, eps=0.5)  # type: ignore[arg-type]
        colour.write(as_images(FACES), out, ImageNoise(6, rng=rng(5)))
    for found, wanted in zip(codes.numpy(), bits.numpy().astype(bool), strict=True):
        np.testing.assert_allclose(found, slow.codes(wanted.reshape(2, 8, 8, 8)), atol=1e-6)


def test_dctdp_without_noise_is_the_plain_channels() -> None:
    for front_end in ("block", "upsampled"):
        plain = FrequencyChannels(
            front_end=front_end,  # type: ignore[arg-type]
            colours="ycbcr",
            num_channels=63,
            keeps_dc=False,
            in_shape=SHAPE,
        )
        masker = Dctdp(eps_mean=math.inf, front_end=front_end, in_shape=SHAPE)  # type: ignore[arg-type]
        image = as_images(FACES)
        torch.testing.assert_close(masker.mask(image, rng=rng()), plain.mask(image, rng=rng()), rtol=0, atol=1e-6)


def test_every_face_of_the_reference_is_let_through_before_the_noise() -> None:
    """With a budget so large that there is no noise to speak of, clipping to the ranges takes nothing from them."""
    masked = hfcf(eps_mean=1e9, learns=False).mask(as_images(FACES), rng=rng())
    clean = hfcf(eps_mean=math.inf, sensitivities=None).mask(as_images(FACES), rng=rng())
    torch.testing.assert_close(masked, clean, rtol=0, atol=1e-5)
    other = as_images(np.random.default_rng(8).integers(0, 256, (2, 32, 32, 3), np.uint8))
    beyond = hfcf(eps_mean=1e9, learns=False).mask(other, rng=rng())[:, :63]
    assert (beyond >= torch.tensor(BLOCK_HFCF.low) - 1e-5).all() and (
        beyond <= torch.tensor(BLOCK_HFCF.high) + 1e-5
    ).all()


# The published settings


def test_the_published_settings_are_the_authors_code() -> None:
    """S = 1 on coefficients of +-1024, a learned shift, no clipping, one draw for all images."""
    masker = Dctdp(settings="published", front_end="block", in_shape=SHAPE)
    assert masker.budget.eps_mean == 4.0
    image = as_images(FACES)
    clean = Dctdp(eps_mean=math.inf, front_end="block", in_shape=SHAPE).mask(image, rng=rng())
    noise = (masker.mask(image, rng=rng(1)).detach() - clean) * 1024
    torch.testing.assert_close(noise, noise[:1].expand_as(noise), rtol=0, atol=1e-3)
    assert noise.std().item() == pytest.approx(math.sqrt(2) / 4, rel=0.02), "0.354 on coefficients of +-1000"
    shifted = copy.deepcopy(masker)
    with torch.no_grad():
        shifted.budget.loc += 5.0  # type: ignore[operator]
    moved = (shifted.mask(image, rng=rng(1)) - masker.mask(image, rng=rng(1))).detach() * 1024
    torch.testing.assert_close(moved, torch.full_like(moved, 5.0), rtol=0, atol=1e-3)
    statement = masker.privacy()
    assert len(statement.reasons_void) == 2 and math.isinf(statement.eps_image)
    assert "no guarantee" in statement.in_words() and "share one draw" in statement.in_words()
    with pytest.raises(InvalidInputError, match="omit sensitivities"):
        Dctdp(settings="published", front_end="block", in_shape=SHAPE, sensitivities=BLOCK_DCTDP)


# The statement


def statement(**given_: object) -> PrivacyStatement:
    return hfcf(**given_).privacy()


def test_statement_totals_equal_the_sums_of_its_parts() -> None:
    eps = np.random.default_rng(1).uniform(0.1, 3, BLOCK_DCTDP.low.shape)
    front_end = NoisyFrontEnd(front_end="block", in_shape=SHAPE)
    told = state_privacy("x", eps, front_end, colour=ColourChannels(kind="lbp", eps=0.25))
    assert told.eps_coefficients == pytest.approx(eps.sum())
    assert (told.eps_least, told.eps_largest) == (eps.min(), eps.max())
    assert told.eps_place == pytest.approx(eps.sum(0).max())
    assert told.num_colour_bits == 2 * 8 * 64 and told.eps_colour == pytest.approx(256.0)
    assert told.eps_image == pytest.approx(eps.sum() + 256.0)
    assert told.eps_of_images(7) == pytest.approx(7 * told.eps_image)
    json.dumps(told.as_dict(), allow_nan=False)


@pytest.mark.parametrize(("kind", "stride"), [("upsampled", 4), ("block", 4), ("block", 8), ("block", 2)])
def test_a_pixel_is_accounted_with_all_that_depends_on_it(kind: str, stride: int) -> None:
    """By changing single pixels and looking at which coefficients move."""
    front_end = NoisyFrontEnd(front_end=kind, stride=stride, num_channels=63, in_shape=(3, 16, 16))  # type: ignore[arg-type]
    reads_PH, reads_QW = front_end.blocks_that_read()
    grey = torch.full((1, 3, 16, 16), 0.5)
    before = front_end.coefficients(grey)
    for h, w in [(0, 0), (0, 7), (3, 15), (8, 8), (15, 15), (12, 1)]:
        changed = grey.clone()
        changed[0, :, h, w] = torch.tensor([1.0, 0.2, 0.7])
        moved_PQ = (front_end.coefficients(changed) - before).abs().amax((0, 1)) > 1e-7
        claimed_PQ = reads_PH[:, h][:, None] & reads_QW[:, w][None, :]
        assert not (moved_PQ.numpy() & ~claimed_PQ).any()
        if kind == "block":
            assert (moved_PQ.numpy() == claimed_PQ).all(), "and nothing more than those"


def test_bits_that_depend_on_a_place_are_at_most_those_accounted_for() -> None:
    most = 0
    draw = np.random.default_rng(1)
    for _ in range(30):
        levels = torch.tensor(draw.integers(0, 9, (1, 1, 4, 4))).float()
        for p in range(4):
            for q in range(4):
                moved = torch.zeros(1, 1, 8, 4, 4, dtype=torch.bool)
                for value in (-100.0, 4.5, 100.0):
                    other = levels.clone()
                    other[0, 0, p, q] = value
                    moved |= pattern_bits(other) != pattern_bits(levels)
                most = max(most, int(moved.sum()))
    assert 14 <= most <= MAX_BITS_PER_PLACE


def test_statement_lists_what_is_guaranteed_and_what_is_not() -> None:
    untouched = statement().in_words()
    assert "no guarantee, and therefore the output as a whole has none" in untouched and "eps unbounded" in untouched
    flipped = statement(colour_eps=0.1).in_words()
    assert "under randomised response, eps 0.1 each" in flipped and "unbounded" not in flipped
    bare = statement(colour="none", eps_mean=0.5)
    assert bare.eps_image == pytest.approx(0.5 * 63 * 64, rel=1e-5) and bare.eps_place == pytest.approx(31.5, rel=1e-5)
    assert "a factor of 1.65." in bare.in_words() and "no meaningful guarantee" in bare.in_words()
    assert "Mironov" in bare.in_words() and "training set" in bare.in_words()
    assert "There is no noise." in statement(eps_mean=math.inf, colour="none").in_words()
    json.dumps(statement(eps_mean=math.inf).as_dict(), allow_nan=False)
    front_end = NoisyFrontEnd(front_end="block", fuses=True, num_channels=1, in_shape=SHAPE)
    assert state_privacy("x", np.full((1, 8, 8), 1e-3), front_end).eps_image == pytest.approx(0.064)
    with pytest.raises(ShapeError, match=r"it must be the front end's \(1, 8, 8\)"):
        state_privacy("x", np.ones((8, 8)), front_end)
    with pytest.raises(RangeError, match="not a number"):
        state_privacy("x", np.full((1, 8, 8), np.nan), front_end)
    with pytest.raises(InvalidInputError, match="1 or more"):
        bare.eps_of_images(0)


# Learned, at rest, saved


@pytest.mark.parametrize(
    "make",
    [
        hfcf,
        lambda **g: hfcf(shares="channel", lr_scale=20.0, **g),
        lambda **g: Dctdp(front_end="block", in_shape=SHAPE, sensitivities=BLOCK_DCTDP, **g),
    ],
)
def test_frozen_masks_the_same_and_learns_nothing(make: object) -> None:
    masker = make()  # type: ignore[operator]
    with torch.no_grad():
        masker.budget.rho.normal_(generator=rng(1))
    config = masker.public_config()
    assert config == make().public_config(), "while it learns, its name does not change: a run can be resumed"  # type: ignore[operator]
    deployed = masker.frozen()
    image = as_images(FACES)
    assert deployed.mask(image, rng=rng(2)).equal(masker.mask(image, rng=rng(2)).detach())
    assert not deployed.spec.is_trainable and not any(p.requires_grad for p in deployed.parameters())
    assert not deployed.mask(image, rng=rng(2)).requires_grad
    assert deployed.public_config()["learned_sha256"] != make().frozen().public_config()["learned_sha256"]  # type: ignore[operator]
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in deployed.public_arrays().items():
        argument, _, part = name.partition(".")
        parts.setdefault(argument, {})[part] = array
    config = json.loads(json.dumps(deployed.public_config())) | {"in_shape": SHAPE}
    again = type(deployed)(**config, **parts)
    assert again.mask(image, rng=rng(2)).equal(deployed.mask(image, rng=rng(2)))
    with pytest.raises(InvalidInputError, match=f"expected {config['learned_sha256'][:12]}"):
        type(deployed)(**config, sensitivities=parts["sensitivities"])
    for twin in (pickle.loads(pickle.dumps(masker)), copy.deepcopy(masker)):
        assert twin.mask(image, rng=rng(2)).equal(masker.mask(image, rng=rng(2)))


def test_checkpoints_of_a_learned_masker_contain_only_its_parameters() -> None:
    masker = hfcf()
    assert isinstance(masker, ImageMasker) and isinstance(masker, torch.nn.Module)
    masker.mask(as_images(FACES), rng=rng())
    assert set(masker.state_dict()) == {"budget.rho"} and masker.budget.rho is not None
    assert masker.budget.rho.ndim == 1, "weight decay is for weights of two axes and more"
    other = hfcf()
    other.load_state_dict({"budget.rho": torch.randn(63 * 64, generator=rng(1))})
    image = as_images(FACES)
    assert not other.mask(image, rng=rng()).equal(masker.mask(image, rng=rng()))
    assert "array" not in repr(masker) and "tensor" not in repr(masker)


def test_signs_of_the_configuration() -> None:
    assert hfcf().spec.out_shape == (65, 8, 8)
    assert hfcf(colour="none").spec.out_shape == (63, 8, 8)
    assert hfcf(colour="lbp-bits").spec.out_shape == (79, 8, 8)
    assert hfcf(fuses=False, sensitivities=BLOCK_DCTDP).spec.out_shape == (191, 8, 8)
    assert Hfcf().spec.out_shape == (65, 112, 112) and Dctdp().spec.out_shape == (189, 112, 112)
    assert Hfcf(front_end="block").spec.out_shape == (65, 28, 28)
    quiet = hfcf(eps_mean=math.inf)
    assert not quiet.spec.is_stochastic and not quiet.spec.is_trainable
    assert hfcf(eps_mean=math.inf, colour_eps=1.0).spec.is_stochastic


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"eps_mean": 0.0}, RangeError, "above 0"),
        ({"colour": "rgb"}, RangeError, "'lbp-bits'"),
        ({"colour_eps": 0.0}, RangeError, "colour_eps is 0"),
        ({"colour_eps": math.inf}, RangeError, "finite"),
        ({"front_end": "upsampled"}, InvalidInputError, "another front end"),
        ({"num_channels": 0}, RangeError, "0"),
        ({"sensitivities_sha256": "0" * 64}, InvalidInputError, "expected 0{12}"),
    ],
)
def test_constructors_reject_invalid_arguments(change: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        hfcf(**change)
    if not {"colour", "colour_eps"} & set(change):
        with pytest.raises(error, match=words):
            Dctdp(**({"front_end": "block", "in_shape": SHAPE, "sensitivities": BLOCK_DCTDP} | change))  # type: ignore[arg-type]
