"""The attackers' networks: shapes, initial state, gradients, and the receptive field of the discriminator."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ppfr.attacks._networks import PatchDiscriminator, RecoveryUNet, Standardise, num_parameters
from ppfr.core import InvalidInputError
from ppfr.models import weights_drawn_from


@pytest.mark.parametrize(
    ("shape", "entry"),
    [
        ((3, 112, 112), 0),
        ((5, 56, 56), 1),
        ((36, 28, 28), 2),
        ((4, 27, 27), 2),
        ((4, 53, 53), 1),
        ((8, 14, 14), 3),
        ((8, 7, 7), 4),
        ((2, 5, 9), 3),
        ((3, 160, 128), 0),
    ],
)
def test_any_grid_gives_a_face(shape, entry):
    network = RecoveryUNet(shape, width=4, max_width=8)
    assert network.entry == entry
    assert network(torch.rand(2, *shape)).shape == (2, 3, 112, 112)


def test_initial_output_on_a_constant_is_the_mean_face():
    faces = torch.rand(6, 3, 112, 112)
    network = RecoveryUNet((4, 28, 28), width=4, max_width=8)
    network.set_statistics(torch.full((6, 4, 28, 28), 0.5), faces)
    torch.testing.assert_close(network(torch.full((2, 4, 28, 28), 0.5)), faces.mean(dim=0).expand(2, 3, 112, 112))


@pytest.mark.parametrize("grid", [112, 28])
def test_initial_output_is_the_best_linear_recovery(grid):
    """Pixels that were moved to other channels, mixed and rescaled are recovered before any training."""
    generator = torch.Generator().manual_seed(2)
    faces = torch.rand(40, 3, 112, 112, generator=generator)
    moved = functional.pixel_unshuffle(faces, 112 // grid)
    mixing = torch.randn(moved.shape[1], moved.shape[1], generator=generator)
    masked = 300.0 * torch.einsum("lk,bkpq->blpq", mixing, moved) + 40.0
    network = RecoveryUNet(masked.shape[1:], width=4, max_width=8)
    network.set_statistics(masked[:32], faces[:32])
    assert (network(masked[32:]) - faces[32:]).abs().mean() < 0.02


def test_gradients_reach_all_parameters():
    network = RecoveryUNet((4, 28, 28), width=8, max_width=16, num_blocks=1, num_fine_blocks=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    network(torch.randn(2, 4, 28, 28)).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_noise_changes_the_face_only_with_a_noise_channel():
    x, noise = torch.rand(1, 3, 28, 28), torch.randn(1, 2, 28, 28)
    network = RecoveryUNet((3, 28, 28), width=4, max_width=8, num_noise_channels=2)
    torch.nn.init.normal_(network.head.weight)
    assert torch.equal(network(x), network(x, torch.zeros_like(noise)))
    assert not torch.equal(network(x), network(x, noise))


def test_standardise_scales_every_channel_but_constant_ones():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 3, 8, 8, generator=generator) * torch.tensor([900.0, 1e-3, 0.0]).view(3, 1, 1) + 7.0
    layer = Standardise(3)
    layer.set_from(x)
    out = layer(x)
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 2, 3)), torch.tensor([1.0, 1.0, 0.0]), atol=2e-2, rtol=0)


def test_discriminator_sees_patches_of_70_pixels():
    """InstanceNorm mixes positions by its statistics, so it is removed to measure the receptive field."""
    network = PatchDiscriminator((3, 112, 112), width=4)
    for index, layer in enumerate(network.body):
        if isinstance(layer, torch.nn.InstanceNorm2d):
            network.body[index] = torch.nn.Identity()
    face = torch.rand(1, 3, 112, 112, requires_grad=True)
    logits = network(torch.rand(1, 3, 112, 112), face)
    assert logits.shape == (1, 1, 12, 12)
    logits[0, 0, 6, 6].backward()
    reach = face.grad[0].abs().sum(dim=0).nonzero()
    assert (reach.amax(dim=0) - reach.amin(dim=0) + 1).tolist() == [70, 70]


def test_sizes_out_of_range_are_rejected():
    with pytest.raises(InvalidInputError, match="width >= 4"):
        RecoveryUNet((3, 28, 28), width=2)


def test_size_of_the_papers_is_supported():
    assert num_parameters(RecoveryUNet((36, 28, 28), width=64, max_width=512, num_blocks=2)) > 30e6


def test_weights_depend_only_on_the_seed():
    before = torch.get_rng_state()
    networks = []
    for _ in range(2):
        with weights_drawn_from(5):
            networks.append(RecoveryUNet((3, 28, 28), width=4, max_width=8))
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in networks), strict=True))
    assert torch.equal(before, torch.get_rng_state())
