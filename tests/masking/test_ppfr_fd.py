"""PPFR-FD: the experiment step by step, the shuffles, and what the secret is worth."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections import Counter

import pytest
import torch
from torch import Generator, Tensor

from ppfr.core import InvalidInputError, RangeError, ShapeError, UnsupportableError
from ppfr.frequency import block_dct, luma, rgb_to_ycbcr, zigzag
from ppfr.masking import PpfrFd, unmix
from ppfr.masking._permutations import permutation_from

SECRET = bytes(range(32))


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def textured_faces(num: int = 3, size: int = 112) -> Tensor:
    """Pixels with the falling spectrum of photographs: noise at several scales."""
    image = torch.zeros(num, 3, size, size)
    for level in range(1, 5):
        noise = torch.rand(num, 3, size >> level, size >> level, generator=rng(level))
        image += 2**level * torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
    image += torch.rand(num, 3, size, size, generator=rng(9))
    image -= image.amin((1, 2, 3), keepdim=True)
    return image / image.amax((1, 2, 3), keepdim=True)


def normalised(x: Tensor) -> Tensor:
    x = x - x.mean((2, 3), keepdim=True)
    return x / x.std((2, 3), keepdim=True, correction=0)


def test_mask_equals_the_steps_of_the_paper() -> None:
    image = textured_faces()
    kept = sorted(zigzag()[1:37])
    channels = block_dct(luma(image.double(), scale=255.0), block=8, stride=4)[:, kept]
    shuffle_1 = list(permutation_from(SECRET, "ppfr-fd/1/shuffle-1", 36))
    shuffle_2 = list(permutation_from(SECRET, "ppfr-fd/1/shuffle-2", 36))
    x = normalised(channels[:, shuffle_1])
    x = torch.stack([x[:, i] + x[:, (i + 1) % 36] for i in range(36)], 1)
    wanted = normalised(x[:, shuffle_2])
    masked = PpfrFd(secret=SECRET).mask(image, rng=rng())
    assert masked.shape == (3, 36, 28, 28)
    torch.testing.assert_close(masked.double(), wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("front_end", ["block", "upsampled"])
def test_each_channel_has_mean_zero_and_std_one(front_end: str) -> None:
    masked = PpfrFd(secret=SECRET, front_end=front_end).mask(textured_faces(2), rng=rng())  # type: ignore[arg-type]
    assert masked.mean((2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(masked.std((2, 3), correction=0), torch.ones(2, 36), rtol=0, atol=1e-3)


@pytest.mark.parametrize("front_end", ["block", "upsampled"])
def test_dc_is_gone(front_end: str) -> None:
    """A change that only DC sees does not change the output; a flat image puts out nothing."""
    masker = PpfrFd(secret=SECRET, front_end=front_end)  # type: ignore[arg-type]
    image = 0.5 * textured_faces(2)
    torch.testing.assert_close(masker.mask(image, rng=rng()), masker.mask(image + 0.25, rng=rng()), rtol=0, atol=0.05)
    assert masker.mask(torch.full((1, 3, 112, 112), 0.7), rng=rng()).abs().max() == 0
    assert 0 not in masker.kept_channels


def test_dead_channels_stay_zero_in_place_of_amplified_rounding() -> None:
    """Stripes along one axis leave all channels with vertical frequency empty."""
    stripes = textured_faces(1)[:, :, :1].expand(-1, -1, 112, -1)
    masker = PpfrFd(secret=SECRET)
    masked = masker.mask(stripes, rng=rng())
    alive = torch.tensor([channel < 8 for channel in masker.kept_channels])
    first, second = masker._shuffles or ((), ())
    for place, i in enumerate(second):
        is_alive = bool(alive[first[i]]) or bool(alive[first[(i + 1) % 36]])
        assert (masked[0, place].abs().max() > 0) == is_alive


def test_explicit_channels_follow_the_same_steps() -> None:
    """Naming the default's channels changes no bit; naming others, DC among them, keeps exactly those."""
    image = textured_faces(2)
    lowest = PpfrFd(secret=SECRET)
    named = PpfrFd(secret=SECRET, channels=tuple(reversed(lowest.kept_channels)))
    assert torch.equal(named.mask(image, rng=rng()), lowest.mask(image, rng=rng()))

    masker = PpfrFd(secret=SECRET, channels=(17, 0, 9), colours="ycbcr")
    assert masker.kept_channels == (0, 9, 17) and masker.spec.out_shape == (9, 28, 28)
    planes = rgb_to_ycbcr(image.double() * 255)
    truth = block_dct(planes, block=8, stride=4).unflatten(1, (3, 64))[:, :, [0, 9, 17]].flatten(1, 2)
    recovered = unmix(masker.mask(image, rng=rng()), masker)
    torch.testing.assert_close(recovered.double(), normalised(truth), rtol=0, atol=2e-2)


def test_the_configuration_says_which_argument_chose_the_channels() -> None:
    assert PpfrFd(secret=SECRET).public_config() == {
        "front_end": "block",
        "colours": "y",
        "block": 8,
        "stride": 4,
        "num_channels": 36,
        "permutation": "fixed",
        "in_shape": [3, 112, 112],
    }
    config = PpfrFd(secret=SECRET, channels=[9, 1]).public_config()
    assert config["channels"] == [1, 9] and "num_channels" not in config
    again = PpfrFd(secret=SECRET, channels=[9, 1]).with_new_secret(rng=rng())
    assert again.public_config() == config and "channels=(1, 9)" in repr(again)


def test_the_default_s_output_is_what_it_was_before_channels_could_be_named() -> None:
    """Deployments trained on the default rest on these numbers; they were taken from the version before."""
    image = torch.rand(2, 3, 112, 112, generator=rng(1))
    masked = PpfrFd(secret=SECRET).mask(image, rng=rng(2))
    wanted = torch.tensor([-2.7465, -0.2111, -0.7643, 0.5502])
    torch.testing.assert_close(masked[1, ::9, 3, 5], wanted, rtol=0, atol=2e-4)


def test_per_image_permutations_differ_between_images() -> None:
    image = textured_faces(1).expand(6, -1, -1, -1)
    masker = PpfrFd(secret=None, permutation="per_image", num_channels=3)
    masked = masker.mask(image, rng=rng())
    # 3 channels mix pairwise into the same 3 sums in any order: only their places differ.
    ordered = masked[torch.arange(6)[:, None], masked[:, :, 0, 0].argsort(1)]
    torch.testing.assert_close(ordered, ordered[:1].expand(6, -1, -1, -1), rtol=0, atol=1e-5)
    assert len({tuple(row.tolist()) for row in masked[:, :, 0, 0].argsort(1)}) > 1


def test_permutations_are_even_and_independent() -> None:
    counts = Counter(permutation_from(hashlib.sha256(bytes([i % 256, i // 256])).digest(), "x", 4) for i in range(4800))
    assert set(counts) == set(itertools.permutations(range(4)))
    chi2 = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi2 < 49.7  # 23 degrees of freedom, p = 0.001; the secrets are fixed, so this never flickers
    assert permutation_from(SECRET, "a", 36) != permutation_from(SECRET, "b", 36)
    assert sorted(permutation_from(SECRET, "a", 500)) == list(range(500))


def test_permutations_never_change_between_versions() -> None:
    """A deployment's templates die with a changed derivation: these numbers are part of the format."""
    assert permutation_from(SECRET, "ppfr-fd/1/shuffle-1", 8) == (0, 7, 6, 2, 5, 3, 1, 4)


@pytest.mark.parametrize("num_channels", [21, 35])
def test_unmix_recovers_an_odd_number_of_channels(num_channels: int) -> None:
    image = textured_faces()
    masker = PpfrFd(secret=SECRET, num_channels=num_channels)
    truth = normalised(block_dct(luma(image, scale=255.0), stride=4, channels=masker.kept_channels))
    recovered = unmix(masker.mask(image, rng=rng()), masker)
    torch.testing.assert_close(recovered, truth, rtol=0, atol=2e-2)


@pytest.mark.parametrize(("front_end", "num_channels"), [("block", 36), ("upsampled", 12)])
def test_unmix_recovers_an_even_number_of_channels_except_one_direction(front_end: str, num_channels: int) -> None:
    image = textured_faces()
    masker = PpfrFd(secret=SECRET, num_channels=num_channels, front_end=front_end)  # type: ignore[arg-type]
    truth = normalised(masker._front_end.channels_of(image))
    right = (unmix(masker.mask(image, rng=rng()), masker) * truth).mean((2, 3))
    wrong_masker = masker.with_new_secret(rng=rng(1))
    wrong = (unmix(masker.mask(image, rng=rng()), wrong_masker) * truth).mean((2, 3))
    assert right.min() > (1 - 1 / num_channels) ** 0.5 - 0.04
    assert wrong.abs().median() < 0.5  # channels of one image are alike in part


def test_unmix_rejects_other_shapes_and_per_image_permutations() -> None:
    masker = PpfrFd(secret=SECRET)
    with pytest.raises(ShapeError, match="36, 28, 28"):
        unmix(torch.zeros(1, 35, 28, 28), masker)
    with pytest.raises(UnsupportableError, match="per_image"):
        unmix(torch.zeros(1, 36, 28, 28), PpfrFd(secret=None, permutation="per_image"))


def test_secrets_come_from_the_system_and_copies_share_them() -> None:
    assert len(PpfrFd.new_secret()) == 32 and PpfrFd.new_secret() != PpfrFd.new_secret()
    masker = PpfrFd(secret=SECRET)
    assert copy.deepcopy([masker])[0] is masker and copy.copy(masker) is masker


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"secret": b"short"}, "5 bytes"),
        ({"secret": "0" * 32}, "a str"),
        ({"secret": None}, "new_secret"),
        ({"secret": SECRET, "permutation": "per_image"}, "secret=None"),
    ],
)
def test_invalid_secrets_are_rejected_without_being_shown(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        PpfrFd(**arguments)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"front_end": "wavelet"}, "front_end"),
        ({"colours": "rgb"}, "colours"),
        ({"permutation": "none"}, "permutation"),
        ({"num_channels": 64}, r"1\.\.63"),
        ({"num_channels": 0}, r"1\.\.63"),
        ({"channels": ()}, "one or more"),
        ({"channels": (1, 64)}, r"0\.\.63"),
        ({"channels": (1, 1)}, "distinct"),
        ({"channels": (1.0, 2)}, r"1\.0, 2.*integers"),
        ({"channels": (1, 2), "num_channels": 2}, "pass only one"),
        ({"stride": 9}, "stride"),
        ({"stride": 3}, "multiples of the stride"),
        ({"in_shape": (1, 112, 112)}, "in_shape"),
        ({"in_shape": (3, 4, 4)}, "not smaller than the block"),
        ({"front_end": "upsampled", "block": 4}, r"block is 4.*use block=8"),
    ],
)
def test_constructor_rejects_invalid_arguments(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RangeError, match=words):
        PpfrFd(secret=SECRET, **arguments)  # type: ignore[arg-type]
