"""The plain frequency channels: against SciPy's DCT, and back to the image they came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Generator, Tensor

from ppfr.core import RangeError
from ppfr.frequency import bdct_upsampled, inverse_bdct_upsampled, inverse_block_dct, luma, rgb_to_ycbcr, zigzag
from ppfr.masking import FrequencyChannels, PpfrFd


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def images(num: int = 3) -> Tensor:
    return torch.rand(num, 3, 112, 112, generator=rng(1))


@pytest.mark.parametrize(("num_channels", "keeps_dc"), [(36, True), (64, True), (63, False)])
def test_equals_scipys_dct_of_every_block(num_channels: int, keeps_dc: bool) -> None:
    masker = FrequencyChannels(stride=8, num_channels=num_channels, keeps_dc=keeps_dc)
    image = images()
    planes = luma(image.double(), scale=255.0)[:, 0].numpy() - 128.0
    blocks = planes.reshape(3, 14, 8, 14, 8).transpose(0, 1, 3, 2, 4)
    all_channels = dctn(blocks, axes=(-2, -1), norm="ortho").reshape(3, 14, 14, 64)
    kept = sorted(zigzag()[(0 if keeps_dc else 1) :][:num_channels])
    wanted = all_channels[..., kept].transpose(0, 3, 1, 2) / 1024.0
    np.testing.assert_allclose(masker.mask(image, rng=rng()).numpy(), wanted, rtol=0, atol=2e-6)
    assert masker.kept_channels == tuple(kept)


def test_a_flat_image_has_its_brightness_in_dc_and_nothing_else() -> None:
    levels = torch.tensor([0.0, 0.25, 1.0])
    masked = FrequencyChannels(num_channels=64).mask(levels.view(3, 1, 1, 1).expand(-1, 3, 112, 112), rng=rng())
    torch.testing.assert_close(masked[:, 0], ((levels * 255 - 128) / 128).view(3, 1, 1).expand(-1, 28, 28))
    assert masked[:, 1:].abs().max() < 1e-6


@pytest.mark.parametrize(("block", "stride"), [(8, 8), (8, 4), (4, 2)])
def test_the_full_data_of_three_colours_is_the_image(block: int, stride: int) -> None:
    masker = FrequencyChannels(colours="ycbcr", block=block, stride=stride, num_channels=block * block)
    image = images(2)
    planes = inverse_block_dct(masker.mask(image, rng=rng()) * masker.scale, block=block, stride=stride) + 128.0
    torch.testing.assert_close(planes, rgb_to_ycbcr(image * 255), rtol=0, atol=2e-3)


@pytest.mark.parametrize("colours", ["y", "ycbcr"])
def test_the_upsampled_front_end_is_the_library_s(colours: str) -> None:
    masker = FrequencyChannels(front_end="upsampled", colours=colours, num_channels=64)  # type: ignore[arg-type]
    image = images(2)
    wanted = bdct_upsampled(image, colours=colours) / 1024.0  # type: ignore[arg-type]
    masked = masker.mask(image, rng=rng())
    torch.testing.assert_close(masked, wanted, rtol=0, atol=1e-6)
    if colours == "ycbcr":
        smooth = torch.nn.functional.avg_pool2d(image, 9, 1, 4, count_include_pad=False)
        back = inverse_bdct_upsampled(masker.mask(smooth, rng=rng()) * masker.scale)
        assert (back - smooth).abs().max() < 0.02


def test_ppfr_fd_works_on_these_very_channels() -> None:
    """Normalised, they are what PPFR-FD mixes: its front end and this one are one."""
    image = torch.nn.functional.avg_pool2d(images(2), 5, 1, 2)
    plain = FrequencyChannels(num_channels=2, keeps_dc=False).mask(image, rng=rng())
    normalised = (plain - plain.mean((2, 3), keepdim=True)) / plain.std((2, 3), keepdim=True, correction=0)
    mixed = normalised.sum(1)
    mixed = (mixed - mixed.mean((1, 2), keepdim=True)) / mixed.std((1, 2), keepdim=True, correction=0)
    masked = PpfrFd(secret=bytes(32), num_channels=2).mask(image, rng=rng())
    torch.testing.assert_close(masked, mixed[:, None].expand(-1, 2, -1, -1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"front_end": "fft"}, "front_end is 'fft'"),
        ({"colours": "rgb"}, "colours is 'rgb'"),
        ({"front_end": "upsampled", "block": 4}, r"block is 4.*use block=8"),
        ({"num_channels": 65}, r"1\.\.64"),
        ({"num_channels": 64, "keeps_dc": False}, r"1\.\.63"),
        ({"stride": 9}, r"1\.\.block=8"),
        ({"stride": 5}, "multiples of the stride"),
        ({"in_shape": (1, 112, 112)}, r"\(3, H, W\)"),
    ],
)
def test_constructor_rejects_invalid_arguments(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RangeError, match=words):
        FrequencyChannels(**arguments)  # type: ignore[arg-type]
