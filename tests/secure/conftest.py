"""Three parties in threads, and the interpreter of SPU."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.share_stores import GALLERY, POINT, enrolments, perform, prepare, refreshes, removals


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


@pytest.fixture
def make_stores(tmp_path):
    """Makes three new share stores: `make_stores(point=..., gallery_id=...)`."""
    from ppfr.secure import ShareStore

    opened = []

    def make(*, point=POINT, gallery_id=GALLERY):
        for party in range(3):
            path = tmp_path / f"{len(opened)}-{party}.shares"
            opened.append(ShareStore.create(path, party=party, fixed_point=point, gallery_id=gallery_id))
        return opened[-3:]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def stores(make_stores):
    """Three stores with enrolled, removed, refreshed, aborted and refused changes."""
    stores = make_stores()
    first, second = enrolments(1, 20), enrolments(2, 7)
    perform(stores, first)
    perform(stores, removals(3, first))
    perform(stores, refreshes(4))
    perform(stores, second)
    prepare(stores, aborted := enrolments(5, 3))
    for store in stores:
        store.abort(aborted[0].change_id)
    stores[1].abort(b"\x06" * 16)  # the other parties never heard of it
    return stores
