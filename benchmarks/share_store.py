"""Cost of a party's share store: single and batch enrolment, loading, removal, refresh, export, and size on disk.

Words are random, like shares. Times are processor time and wall time of one process. They include waiting for the disk
in `fsync`. Loading reads from the page cache if the file fits into it.

Run: python benchmarks/share_store.py --json benchmarks/share_store.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import shlex
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ppfr.core import new_reference_ids
from ppfr.secure import Enrolment, FixedPoint, Refresh, Removal, SharedRows, ShareStore

DIM = 512


def timed(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    begun, used = time.perf_counter(), time.process_time()
    found = action()
    taken = {"processor_s": time.process_time() - used, "wall_s": time.perf_counter() - begun}
    return found, {name: round(value, 4) for name, value in taken.items()}


def enrolment(num: int, point: FixedPoint, rng: np.random.Generator) -> Enrolment:
    words = rng.integers(0, 1 << point.ring_bits, (num, 2 * DIM), dtype=point.dtype)
    rows = SharedRows(party=1, fixed_point=point, ids_N16=new_reference_ids(num), words_NW=words)
    return Enrolment(change_id=secrets.token_bytes(16), rows=rows, subjects=tuple(f"subject-{n}" for n in range(num)))


def measure(num: int, values: str, folder: Path, *, batch: int, turns: int) -> dict[str, Any]:
    point, rng = FixedPoint(dim=DIM, values=values), np.random.default_rng(0)
    path = folder / f"{values}.shares"
    store = ShareStore.create(path, party=1, fixed_point=point, gallery_id=bytes(16))

    def enrol(change: Enrolment | Removal | Refresh) -> None:
        store.prepare(change)
        store.commit(change.change_id)

    def enrol_all() -> None:
        for at in range(0, num, batch):
            enrol(enrolment(min(batch, num - at), point, rng))

    found: dict[str, Any] = {"references": num, "batch": batch}
    _, found["enrolment in batches, drawing of words included"] = timed(enrol_all)
    store.close()
    found["bytes_on_disk"] = path.stat().st_size
    store, found["open"] = timed(lambda: ShareStore.open(path))
    (rows, _), found["load"] = timed(store.load)
    one_by_one, removals = [], []
    for _ in range(turns):
        change = enrolment(1, point, rng)
        one_by_one.append(timed(lambda change=change: enrol(change))[1]["wall_s"])
    for one in rows.ids_N16[:turns]:
        removal = Removal(change_id=secrets.token_bytes(16), reference_ids=(one.tobytes(),))
        removals.append(timed(lambda removal=removal: enrol(removal))[1]["wall_s"])
    found["one enrolment, median wall_ms"] = round(1e3 * statistics.median(one_by_one), 2)
    found["one removal, median wall_ms"] = round(1e3 * statistics.median(removals), 2)
    refresh = Refresh(change_id=secrets.token_bytes(16), seed=secrets.token_bytes(32))
    _, found["refresh"] = timed(lambda: enrol(refresh))
    found["bytes_on_disk_after_refresh"] = path.stat().st_size
    exported = folder / "export"
    _, found["export for a party"] = timed(lambda: store.exported(recipient=0).write(exported))
    found["bytes_of_export"] = exported.stat().st_size
    exported.unlink()
    store.close()
    path.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--values", nargs="+", default=["int8"])
    parser.add_argument("--batch", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=51)
    parser.add_argument("--folder", type=Path, help="directory of the store, on the disk to measure")
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/share_store.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "dim": DIM,
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
        "sqlite": sqlite3.sqlite_version,
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for values in arguments.values:
            result[values] = measure(
                arguments.references, values, Path(folder), batch=arguments.batch, turns=arguments.turns
            )
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
