"""Cost of the stores of templates and keys: `add`, `get`, `remove`, `add_all`, `load` and `rewrap`.

Times are wall time of one process and include waiting for the disk in `fsync`. Reading is from the page cache. `add`,
`get` and `remove` are medians over the turns, on a store that contains the records of `add_all`.

Run: python benchmarks/template_stores.py --json benchmarks/template_stores.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppfr.templates import IdentityMapping, KeyEncryptionKey, KeyStore, TemplateStore

DIM = 512


def wall_ms(actions: Iterable[Callable[[], object]]) -> float:
    """Median over the actions, each run once."""
    taken = []
    for action in actions:
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return round(1e3 * statistics.median(taken), 2)


def measure(store: Any, records: list[Any], *, turns: int) -> dict[str, Any]:
    """The last `turns` records are added and removed one by one, after the others were added at once."""
    base = {f"subject-{place}": record for place, record in enumerate(records[:-turns])}
    single = {f"single-{place}": record for place, record in enumerate(records[-turns:])}
    names = list(base)
    chosen = np.random.default_rng(0).choice(len(names), turns)
    return {
        "records": len(base),
        "add_all_ms": wall_ms([partial(store.add_all, base)]),
        "add_ms": wall_ms(partial(store.add, name, record) for name, record in single.items()),
        "get_ms": wall_ms(partial(store.get, names[place]) for place in chosen),
        "remove_ms": wall_ms(partial(store.remove, name) for name in single),
        "load_ms": wall_ms([store.load]),
        "bytes_on_disk": store.path.stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=51)
    parser.add_argument("--folder", type=Path, help="directory of the stores, on the disk to measure")
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    scheme, rng = IdentityMapping(dim=DIM), np.random.default_rng(0)
    count = arguments.records + arguments.turns
    embeddings_ND = rng.normal(size=(count, DIM)).astype(np.float32)
    embeddings_ND /= np.linalg.norm(embeddings_ND, axis=1, keepdims=True)
    keys = [scheme.new_key() for _ in range(count)]
    templates = [scheme.enrol(embedding, key=key) for embedding, key in zip(embeddings_ND, keys, strict=True)]
    result: dict[str, Any] = {
        "command": "python benchmarks/template_stores.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "dim": DIM,
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        template_store = TemplateStore(Path(folder) / "templates", scheme)
        key_store = KeyStore(Path(folder) / "keys", scheme, key_encryption_key=KeyEncryptionKey.new())
        result["templates"] = measure(template_store, templates, turns=arguments.turns)
        result["keys"] = measure(key_store, keys, turns=arguments.turns)
        result["keys"]["rewrap_ms"] = wall_ms([partial(key_store.rewrap, KeyEncryptionKey.new())])
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
