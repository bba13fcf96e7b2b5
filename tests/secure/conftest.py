"""The engine's slow reference, three parties in threads, and SPU's interpreter."""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def plain():
    """tests/reference/secure_matching.py as a module."""
    path = Path(__file__).parents[1] / "reference" / "secure_matching.py"
    spec = importlib.util.spec_from_file_location("reference_secure_matching", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def three_parties():
    """Run a function of (party, channel, keys) at three parties in parallel, with fixed keys; return the results."""
    pytest.importorskip("cryptography", reason="needs the extra 'mpc': pip install 'ppfr[mpc]'")
    from ppfr.secure import InMemoryChannel, PairwiseKeys

    pool = ThreadPoolExecutor(3)

    def run(work, *, channels=None):
        keys = [PairwiseKeys(own=bytes([i]) * 16, next=bytes([(i + 1) % 3]) * 16) for i in range(3)]
        channels = InMemoryChannel.ring(timeout_s=600) if channels is None else channels
        jobs = [pool.submit(work, i, channels[i], keys[i]) for i in range(3)]
        return [job.result() for job in jobs]

    yield run
    pool.shutdown()


@pytest.fixture(scope="session")
def spu_python():
    """The interpreter of SPU's environment."""
    interpreter = os.environ.get("PPFR_SPU_PYTHON")
    if not interpreter:
        pytest.skip("PPFR_SPU_PYTHON is not set; see requirements/spu.txt")
    return interpreter
