"""Channel alignment finds a secret linear map of channels from masked faces alone."""

from __future__ import annotations

import dataclasses

import torch

from ppfr.attacks import ChannelAlignment, FreshSecret
from ppfr.attacks._alignment import AlignedDeployments, _shifts, _statistics
from ppfr.masking import PpfrFd


def _unexplained(aligned, wanted):
    """Share of the surrogate's variance (about its mean picture) that the aligned channels miss."""
    spread = wanted - wanted.mean(dim=0, keepdim=True)
    return float((aligned - wanted).square().mean() / spread.square().mean())


def test_secret_mixing_is_undone_with_faces_of_other_people(mixed_pixels, public, targets):
    """The deployment's masked images are mapped to those under the surrogate, without the matrix."""
    surrogate, deployed, rng = mixed_pixels(1), mixed_pixels(2), torch.Generator()
    alignment = ChannelAlignment(surrogate.mask(public.tensor(), rng=rng))
    seen, wanted = (masker.mask(targets.tensor(), rng=rng) for masker in (deployed, surrogate))
    matrix = alignment.matrix_for(seen)
    aligned = torch.einsum("lk,bkpq->blpq", matrix, seen)
    assert _unexplained(seen, wanted) > 0.9
    assert _unexplained(aligned, wanted) < 0.1


def test_statistics_equal_their_definition():
    x = torch.randn(5, 3, 14, 14, generator=torch.Generator().manual_seed(0)).double()
    found = _statistics(x)
    torch.testing.assert_close(found.mean_KS, x.mean(dim=0).flatten(1))
    for cell in range(49):
        row, column = divmod(cell, 7)
        part = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = torch.stack([(part * part[:, [k]]).mean(dim=(0, 2, 3)) for k in range(3)])
        torch.testing.assert_close(found.cell_GKK[cell], expected, atol=1e-6, rtol=1e-5)
    shifts = _shifts(14, 14)
    assert len(shifts) == len(set(shifts)) == 25
    for shift_KK, (down, right) in zip(found.shift_GKK, shifts, strict=True):
        pairs = [
            (x[:, :, p, q], x[:, :, p + down, q + right])
            for p in range(14 - down)
            for q in range(14)
            if 0 <= q + right < 14
        ]
        expected = torch.stack([here.T @ there / len(x) for here, there in pairs]).mean(dim=0)
        torch.testing.assert_close(shift_KK, expected, atol=1e-6, rtol=1e-5)


def test_simulated_deployments_are_mapped_to_the_surrogates_channels(mixed_pixels, public):
    simulated = AlignedDeployments(
        FreshSecret(mixed_pixels(3)), public.tensor(), num_deployments=3, rng=torch.Generator().manual_seed(4)
    )
    faces = public.tensor()[:4]
    draws = [simulated.mask(faces, rng=torch.Generator().manual_seed(seed)) for seed in range(12)]
    distinct = {round(float(draw.sum()), 3) for draw in draws}
    assert len(distinct) > 1, "each call may take another deployment"
    assert all(_unexplained(draw, draws[0]) < 0.2 for draw in draws)
    assert dataclasses.asdict(simulated.spec) == dataclasses.asdict(FreshSecret(mixed_pixels(3)).spec)
    assert simulated.public_config()["num_deployments"] == 4


def test_ppfr_fd_is_brought_closer_to_the_surrogate(public, targets):
    """PPFR-FD normalises and mixes channel pairs, so the map is only approximately linear; alignment still helps."""
    rng = torch.Generator()
    surrogate, deployed = (PpfrFd(secret=byte * 32) for byte in (b"a", b"b"))
    alignment = ChannelAlignment(surrogate.mask(public.tensor(), rng=rng))
    seen, wanted = (masker.mask(targets.tensor(), rng=rng) for masker in (deployed, surrogate))
    aligned = torch.einsum("lk,bkpq->blpq", alignment.matrix_for(seen), seen)
    assert (aligned - wanted).square().mean() < 0.75 * (seen - wanted).square().mean()
