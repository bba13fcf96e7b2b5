"""Slow twins, and checkpoints of the public networks' form filled with noise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def reference():
    """Import a slow twin of tests/reference by name."""

    def load(name):
        path = Path(__file__).parents[1] / "reference" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


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
