"""Shared fixtures: where the real data and weights are, one thread for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def _directory_from(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the directory of the real files this test measures on")
    return Path(value)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Directory with lfw112/ and cfp112/."""
    return _directory_from("PPFR_DATA")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """Directory with the pretrained networks."""
    return _directory_from("PPFR_WEIGHTS")
