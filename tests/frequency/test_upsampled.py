"""The collapsed front end against the straightforward one, and the properties that its experiment states."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.frequency import bdct_upsampled, inverse_bdct_upsampled
from reference import bdct_upsampled as slow

SIZES = [(112, 112), (8, 16), (64, 40), (2, 3), (160, 96)]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("size", SIZES)
def test_encode_and_its_gradient_equal_the_straightforward_path(size: tuple[int, int]) -> None:
    image = noise(2, 3, *size).requires_grad_()
    ours, theirs = bdct_upsampled(image), slow.bdct_upsampled(image)
    assert ours.shape == (2, 192, *size)
    assert (ours - theirs).abs().max() < 1e-2
    weight = noise(*ours.shape, seed=1) - 0.5
    (our_grad,) = torch.autograd.grad(ours, image, weight)
    (their_grad,) = torch.autograd.grad(theirs, image, weight)
    torch.testing.assert_close(our_grad, their_grad, rtol=1e-4, atol=1e-4 * float(their_grad.abs().max()))


def test_in_double_precision_the_two_are_the_same_function() -> None:
    image = noise(1, 3, 112, 112, dtype=torch.float64)
    torch.testing.assert_close(bdct_upsampled(image), slow.bdct_upsampled(image), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_decode_equals_the_straightforward_path(size: tuple[int, int]) -> None:
    coefficients = (noise(2, 192, *size) - 0.5) * 300
    ours = inverse_bdct_upsampled(coefficients)
    torch.testing.assert_close(ours, slow.inverse_bdct_upsampled(coefficients), rtol=0, atol=1e-3)
    double = coefficients.double()
    ours = inverse_bdct_upsampled(double, clamp=False)
    theirs = slow.inverse_bdct_upsampled(double, clamp=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    channels=st.lists(st.integers(0, 63), min_size=1, max_size=12, unique=True),
    colours=st.sampled_from(["y", "ycbcr"]),
    height=st.integers(2, 12),
    width=st.integers(2, 12),
    batch=st.integers(0, 3),
)
def test_a_choice_of_channels_is_that_part_of_all(
    channels: list[int], colours: str, height: int, width: int, batch: int
) -> None:
    image = noise(batch, 3, height, width, seed=height * width)
    everything = bdct_upsampled(image).view(batch, 3, 64, height, width)
    num_colours = 1 if colours == "y" else 3
    wanted = everything[:, :num_colours, channels].flatten(1, 2)
    chosen = bdct_upsampled(image, colours=colours, channels=channels)  # type: ignore[arg-type]
    torch.testing.assert_close(chosen, wanted, rtol=0, atol=1e-3)
    # and back: absent channels count as zero
    filled = torch.zeros_like(everything)
    filled[:, :num_colours, channels] = chosen.view(batch, num_colours, len(channels), height, width)
    back = inverse_bdct_upsampled(chosen, colours=colours, channels=channels)  # type: ignore[arg-type]
    torch.testing.assert_close(back, inverse_bdct_upsampled(filled.flatten(1, 2)), rtol=0, atol=1e-5)


def test_many_planes_go_through_in_pieces_unchanged() -> None:
    image = noise(9, 3, 48, 56)
    torch.testing.assert_close(
        bdct_upsampled(image), torch.cat([bdct_upsampled(x[None]) for x in image]), rtol=0, atol=0
    )


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # inside torch, on forward mode
def test_derivatives_of_first_and_second_order_and_forward_mode() -> None:
    image = noise(1, 3, 4, 5, dtype=torch.float64).requires_grad_()
    channels = (3, 9, 8, 63, 0, 10)

    def encode(x: torch.Tensor) -> torch.Tensor:
        return bdct_upsampled(x, channels=channels, checks_range=False) / 500

    assert torch.autograd.gradcheck(encode, image, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: encode(x) ** 2, image)
    coefficients = encode(image).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c: inverse_bdct_upsampled(c, channels=channels, clamp=False), coefficients, check_forward_ad=True
    )


def test_constant_grey_has_only_dc() -> None:
    coefficients = bdct_upsampled(torch.full((1, 3, 24, 32), 200 / 255)).view(1, 3, 64, 24, 32)
    torch.testing.assert_close(coefficients[:, 0, 0], torch.full((1, 24, 32), 8 * (200 - 128.0)), rtol=0, atol=1e-2)
    assert coefficients[:, 0, 1:].abs().max() < 1e-2
    assert coefficients[:, 1:].abs().max() < 1e-2


def test_parseval_block_by_block() -> None:
    image = noise(1, 3, 10, 12, dtype=torch.float64)
    pixels = slow.upsampled_ycbcr(image).view(1, 3, 10, 8, 12, 8)
    energy = bdct_upsampled(image).view(1, 3, 64, 10, 12).square().sum(2)
    torch.testing.assert_close(energy, pixels.square().sum((3, 5)))


def test_decode_inverts_encode_on_a_smooth_image() -> None:
    ramp = torch.linspace(0.2, 0.8, 112)
    image = torch.stack([ramp[:, None].expand(112, 112), ramp.expand(112, 112), (ramp[:, None] * ramp)])[None]
    assert (inverse_bdct_upsampled(bdct_upsampled(image)) - image).abs().max() < 2 / 255


def test_minusface_identity_of_affine_decoding() -> None:
    """decode(encode(x) - encode-like residue) - 128/255 = x - x' where nothing is clamped."""
    first, second = 0.5 + 0.2 * noise(1, 3, 16, 16), 0.5 + 0.2 * noise(1, 3, 16, 16, seed=1)
    residue = bdct_upsampled(first) - bdct_upsampled(second)
    decoded = [inverse_bdct_upsampled(bdct_upsampled(x), clamp=False) for x in (first, second)]
    difference = inverse_bdct_upsampled(residue, clamp=False) - 128 / 255
    torch.testing.assert_close(difference, decoded[0] - decoded[1], rtol=0, atol=1e-5)


def test_out_is_written_in_place() -> None:
    image = noise(2, 3, 16, 24)
    out = torch.full((2, 64, 16, 24), float("nan"))
    assert bdct_upsampled(image, colours="y", out=out) is out
    torch.testing.assert_close(out, bdct_upsampled(image, colours="y"), rtol=0, atol=0)
    with pytest.raises(ShapeError, match="contiguous"):
        bdct_upsampled(image, out=out)
    with pytest.raises(InvalidInputError, match="gradient"):
        bdct_upsampled(image.requires_grad_(), colours="y", out=out)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.zeros(3, 16, 16), ShapeError, "batch axis"),
        (torch.zeros(1, 16, 16, 3), ShapeError, "permute"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), RangeError, "255"),
        (torch.full((1, 3, 16, 16), 128.0), RangeError, "divide by 255"),
        (torch.full((1, 3, 16, 16), -0.5), RangeError, "clamp"),
        (torch.full((1, 3, 16, 16), float("nan")), RangeError, "not finite"),
        (torch.zeros(1, 3, 16, 1), ShapeError, "at least 2"),
    ],
)
def test_mask_rejects_invalid_images(image: torch.Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bdct_upsampled(image)


def test_front_end_rejects_invalid_options() -> None:
    image = torch.zeros(1, 3, 8, 8)
    for channels, words in (((64,), "0..63"), ((1, 1), "twice"), ((), "empty")):
        with pytest.raises(RangeError, match=words):
            bdct_upsampled(image, channels=channels)
    with pytest.raises(RangeError, match="ycbcr"):
        bdct_upsampled(image, colours="rgb")  # type: ignore[arg-type]
    with pytest.raises(RangeError, match="ycbcr"):
        inverse_bdct_upsampled(image, colours="rgb")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="192"):
        inverse_bdct_upsampled(image)
