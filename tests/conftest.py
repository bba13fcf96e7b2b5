"""Shared fixtures: where the real data and weights are; one thread and no network for every test."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Tests connect to this machine and to network namespaces on it, never to the internet."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] != "localhost" and not _is_private(address[0]):
            raise AssertionError(f"a test connects to {address[0]}; tests use no network")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield


@pytest.fixture(scope="session", autouse=True)
def _each_synthetic_face_is_drawn_once() -> Iterator[None]:
    """Many tests read the same synthetic faces. A face is a pure function of its seeds and takes 20 ms to draw."""
    from ppfr.synthetic import _faces

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_faces, "render_face", functools.lru_cache(maxsize=8192)(_faces.render_face))
        yield
