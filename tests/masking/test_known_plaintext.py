"""One known photo and its masked image determine the shuffles of PPFR-FD."""

from __future__ import annotations

import pytest
import torch

from ppfr.core import InvalidInputError, RangeError, ShapeError, UnsupportableError
from ppfr.data import float_images
from ppfr.masking import Dctdp, PpfrFd, recover_shuffles, unmix
from ppfr.synthetic import SyntheticFaces


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return float_images(SyntheticFaces(6, 1, seed=3, first_subject=100).read(range(6)))


@pytest.mark.parametrize("number", range(5))
def test_one_photo_identifies_every_channel(number: int, faces: torch.Tensor) -> None:
    """36 of 36 outputs under each of five secrets, for photos that the adversary did not know."""
    deployed, own = PpfrFd(secret=bytes([number + 1] * 32)), PpfrFd(secret=PpfrFd.new_secret())
    found = recover_shuffles(faces[:1], deployed.mask(faces[:1]), own)
    torch.testing.assert_close(found.mask(faces), deployed.mask(faces), atol=1e-5, rtol=0)
    assert (own.mask(faces) - deployed.mask(faces)).abs().mean() > 0.5, "the method alone does not reproduce it"
    torch.testing.assert_close(
        unmix(deployed.mask(faces[1:]), found), unmix(deployed.mask(faces[1:]), deployed), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(("num_channels", "colours"), [(3, "y"), (35, "y"), (20, "ycbcr")])
def test_other_parameters(num_channels: int, colours: str, faces: torch.Tensor) -> None:
    options = {"num_channels": num_channels, "colours": colours}
    deployed, own = (PpfrFd(secret=bytes([i] * 32), **options) for i in (1, 2))
    rounded = deployed.mask(faces[:2]).half().float()
    found = recover_shuffles(faces[:2], rounded, own)
    torch.testing.assert_close(found.mask(faces), deployed.mask(faces), atol=1e-5, rtol=0)


def test_pairs_that_do_not_belong_together_are_refused(faces: torch.Tensor) -> None:
    deployed = PpfrFd(secret=bytes(32))
    with pytest.raises(InvalidInputError, match="of 36 output channels"):
        recover_shuffles(faces[:1], deployed.mask(faces[1:2]), deployed)
    once = deployed.mask(faces[:1])
    twice = torch.cat([once[:, :1], once[:, :1], once[:, 2:]], dim=1)
    with pytest.raises(InvalidInputError, match="36 of 36"):
        recover_shuffles(faces[:1], twice, deployed)


def test_other_methods_and_shapes_are_refused(faces: torch.Tensor) -> None:
    deployed = PpfrFd(secret=bytes(32))
    for method in (PpfrFd(secret=None, permutation="per_image"), PpfrFd(secret=bytes(32), num_channels=2), Dctdp()):
        with pytest.raises(UnsupportableError, match="permutation='fixed'"):
            recover_shuffles(faces[:1], deployed.mask(faces[:1]), method)
    with pytest.raises(ShapeError, match="one masked image"):
        recover_shuffles(faces[:2], deployed.mask(faces[:1]), deployed)


def test_shuffles_must_be_permutations() -> None:
    deployed = PpfrFd(secret=bytes(32), num_channels=3)
    with pytest.raises(RangeError, match=r"0\.\.2"):
        deployed.with_shuffles((0, 1, 1), (0, 1, 2))
    with pytest.raises(UnsupportableError, match="per_image"):
        PpfrFd(secret=None, permutation="per_image").with_shuffles((0, 1, 2), (0, 1, 2))
