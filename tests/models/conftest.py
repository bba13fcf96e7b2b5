"""Networks with random statistics."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def noisy():
    """Give a network's BatchNorms and PReLUs statistics that are not the trivial ones they start with."""

    def fill(network, seed=0):
        rng = torch.Generator().manual_seed(seed)
        for name, tensor in network.state_dict().items():
            if "running_var" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.5)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=rng))
        return network.eval()

    return fill
