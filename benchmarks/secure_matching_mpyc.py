"""MPyC's part of secure_matching.py: three processes on loopback compare a shared probe with a shared gallery.

Scores are inner products of int8-quantised 512-d rows (24-bit secure integers); each is compared with a public
threshold and only the decisions are opened. Prints one line of JSON. Run by secure_matching.py; alone:
python benchmarks/secure_matching_mpyc.py -M3 --sizes 1 100
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import mpyc
import numpy as np
from mpyc.runtime import mpc

DIM, TURNS, THRESHOLD = 512, 3, 0.3


def integers(num: int, scale: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.rint(scale * unit).astype(int).astype(object)  # Python integers, as MPyC's fields take them


def bytes_sent() -> int:
    return sum(peer.protocol.nbytes_sent for peer in mpc.parties if peer.pid != mpc.pid)


async def main() -> None:
    sizes = [int(size) for size in sys.argv[sys.argv.index("--sizes") + 1 :]]
    secure = mpc.SecInt(24)
    scale = 115
    await mpc.start()
    found = {"version": mpyc.__version__, "parties": len(mpc.parties)}
    for num in sizes:
        rows, probe = integers(num, scale, seed=0), integers(1, scale, seed=1)[0]
        rows[num // 2] = probe
        expected = rows @ probe >= int(THRESHOLD * scale**2)  # now: MPyC reduces what it is given in place
        gallery = mpc.input(secure.array(rows), senders=0)
        shared = mpc.input(secure.array(probe), senders=0)
        await mpc.barrier()
        wall = []
        for _ in range(TURNS):
            sent = bytes_sent()
            begun = time.perf_counter()
            accepted = await mpc.output(gallery @ shared >= int(THRESHOLD * scale**2))
            wall.append(time.perf_counter() - begun)
            sent = bytes_sent() - sent
        found[str(num)] = {
            "wall_ms": round(1e3 * statistics.median(wall), 2),
            "comparisons_per_s": round(num / statistics.median(wall), 1),
            "bytes_sent_by_this_party": sent,
            "as_in_the_clear": bool(np.array_equal(np.asarray(accepted).astype(bool), expected)),
        }
    await mpc.shutdown()
    if mpc.pid == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    mpc.run(main())
