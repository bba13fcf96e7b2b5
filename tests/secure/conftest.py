"""Three parties in threads, and the interpreter of SPU."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture(scope="session")
def three_parties():
    """Run a function of (party, channel, keys) at three parties in parallel, with fixed keys; return the results."""
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
