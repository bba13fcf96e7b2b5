"""Secure matching: throughput per party core and cost per query. Comparison with other libraries: secure_backends.py.

Three parties of the engine run as threads of this process over in-memory channels (no network, no TLS). Throughput per
party core is measured by the processor time of a party's thread, which other load affects less than wall time:

- inner products with a shared gallery, for one probe and for a batch of 32;
- comparisons with a hidden threshold, including re-sharing;
- masks: AES in counter mode.

Per query: wall time, processor time of the busiest party, bytes and rounds between parties, bytes to and from the
client; for 1:1, for growing galleries, for batches of 1 to 32 probes, and for a large gallery.

Run: python benchmarks/secure_matching.py --json benchmarks/secure_matching.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ppfr.core import Keystream
from ppfr.secure import (
    CHALLENGE_BYTES,
    FixedPoint,
    InMemoryChannel,
    NumbaProducts,
    PairwiseKeys,
    Party,
    SharedRows,
    TorchProducts,
    _circuits,
    check_inputs,
    open_answers,
    share_inputs,
    share_query,
    share_rows,
    share_threshold,
)
from ppfr.secure._keystream import ZeroShares
from ppfr.secure._rounds import Rounds

DIM, THRESHOLD = 512, 0.3
CHALLENGE = bytes(CHALLENGE_BYTES)


def people(num: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def timed(action: Callable[[], Any], turns: int) -> dict[str, float]:
    """Median seconds of wall time and of this thread's processor time, without the first run (compilation)."""
    action()
    wall, processor = [], []
    for _ in range(turns):
        begun, used = time.perf_counter(), time.thread_time()
        action()
        wall.append(time.perf_counter() - begun)
        processor.append(time.thread_time() - used)
    return {"wall_s": statistics.median(wall), "processor_s": statistics.median(processor)}


class Counting:
    """A channel that counts the bytes it sends."""

    def __init__(self, channel: InMemoryChannel) -> None:
        self.channel, self.bytes_sent = channel, 0

    def send(self, data: Any) -> None:
        self.bytes_sent += len(data)
        self.channel.send(data)

    def receive(self, num_bytes: int) -> Any:
        return self.channel.receive(num_bytes)

    def close(self) -> None:
        self.channel.close()


class Trio:
    """Three parties with one gallery, each a thread."""

    def __init__(self, num: int, values: str, *, seed: int = 0) -> None:
        self.point = FixedPoint(dim=DIM, values=values)
        # Large galleries repeat rows: costs do not depend on shared values, and set-up is faster.
        parts = share_rows(people(min(num, 20_000), seed=seed), self.point)
        times = -(-num // len(parts[0]))
        galleries = [
            SharedRows(
                party=part.party,
                fixed_point=self.point,
                ids_N16=np.tile(part.ids_N16, (times, 1))[:num],
                words_NW=np.tile(part.words_NW, (times, 1))[:num],
            )
            for part in parts
        ]
        self.pool = ThreadPoolExecutor(3)
        self.channels = InMemoryChannel.ring(timeout_s=600)
        keys = list(self.pool.map(PairwiseKeys.agree, self.channels))
        self.keys = keys
        self.parties = [Party(g, k, c) for g, k, c in zip(galleries, keys, self.channels, strict=True)]
        self.number = 0

    def query(self, kind: str, probes: np.ndarray, turns: int, *, hides: bool = False) -> dict[str, Any]:
        wall, busiest, answers, queries = [], [], [], []

        def work(party: Party, query: Any) -> Any:
            used = time.thread_time()
            answer = party.answer(query, number=self.number, challenge=CHALLENGE)
            return answer, time.thread_time() - used

        for _ in range(turns + 1):
            threshold = share_threshold(THRESHOLD, self.point) if hides else THRESHOLD
            references = np.arange(len(probes))[:, None] if kind == "verify" else None
            queries = share_query(
                kind,
                probes,
                fixed_point=self.point,
                threshold=threshold,
                references_NR=references,
            )
            self.number += 1
            begun = time.perf_counter()
            results = list(self.pool.map(work, self.parties, queries))
            open_answers([answer for answer, _ in results])
            wall.append(time.perf_counter() - begun)
            busiest.append(max(used for _, used in results))
            answers = [answer for answer, _ in results]
        traffic = [party.traffic for party in self.parties]
        return {
            "wall_ms": round(1e3 * statistics.median(wall[1:]), 3),
            "least_wall_ms": round(1e3 * min(wall[1:]), 3),
            "busiest_party_processor_ms": round(1e3 * statistics.median(busiest[1:]), 3),
            "rounds": traffic[0].num_rounds,
            "bytes_sent_by_each_party": [t.bytes_sent for t in traffic],
            "bytes_between_parties": sum(t.bytes_sent for t in traffic),
            "bytes_probe_to_each_party": queries[0].probes.words_2NX.nbytes,
            "bytes_answer_of_each_party": answers[0].words.nbytes,
        }

    def input_check(self, num: int, turns: int) -> dict[str, Any]:
        """The check of inputs alone, as for an enrolment: in a query, its messages go along with others."""
        inputs = share_inputs(people(num, seed=2), self.point)
        wall, busiest, sent = [], [], [0]

        def work(party: int) -> tuple[float, int]:
            used, traffic = time.thread_time(), Counting(self.channels[party])
            check_inputs(inputs[party], self.keys[party], traffic, number=self.number, challenge=CHALLENGE)
            return time.thread_time() - used, traffic.bytes_sent

        for _ in range(turns + 1):
            self.number += 1
            begun = time.perf_counter()
            results = list(self.pool.map(work, range(3)))
            wall.append(time.perf_counter() - begun)
            busiest.append(max(used for used, _ in results))
            sent = [num_bytes for _, num_bytes in results]
        return {
            "inputs": num,
            "wall_ms": round(1e3 * statistics.median(wall[1:]), 3),
            "busiest_party_processor_ms": round(1e3 * statistics.median(busiest[1:]), 3),
            "bytes_sent_by_each_party": sent,
        }

    def comparisons(self, num: int, turns: int) -> dict[str, float]:
        """Hidden-threshold comparisons only: from additive shares of scores to one shared bit per score."""
        rng = np.random.default_rng(0)
        high = np.iinfo(self.point.dtype).max
        scores = [rng.integers(0, high, size=(1, num), dtype=self.point.dtype) for _ in range(3)]
        hidden = share_threshold(THRESHOLD, self.point)
        rates = []
        for turn in range(turns + 1):

            def work(party: int, number: int = (1 << 40) + turn) -> float:
                used = time.thread_time()
                rounds = Rounds(party, self.channels[party], ZeroShares(self.keys[party], number))
                shared = rounds.reshare(scores[party]) - hidden[party].words_2[:, None, None]
                _circuits.not_negative(rounds, *rounds.to_summands(shared))
                return time.thread_time() - used

            rates.append(num / max(self.pool.map(work, range(3))))
        return {
            "num": num,
            "million_per_s_per_party_core": round(statistics.median(rates[1:]) / 1e6, 2),
            "best_million_per_s_per_party_core": round(max(rates[1:]) / 1e6, 2),
        }

    def close(self) -> None:
        self.pool.shutdown()


def measure_products(num: int, values: str, turns: int) -> dict[str, Any]:
    point = FixedPoint(dim=DIM, values=values)
    rng = np.random.default_rng(0)
    high = np.iinfo(point.dtype).max
    rows = rng.integers(0, high, size=(num, 2 * DIM), dtype=point.dtype)
    probes = rng.integers(0, high, size=(32, 2 * DIM), dtype=point.dtype)
    found: dict[str, Any] = {"rows": num, "bytes_a_row": rows[0].nbytes}
    for name, products in (("numba", NumbaProducts(rows)), ("pytorch", TorchProducts(rows))):
        for batch in (1, 32):
            taken = timed(lambda products=products, batch=batch: products.of_all(probes[:batch]), turns)
            found[f"{name}, batch {batch}"] = {
                "million_per_s_by_processor_time": round(num * batch / taken["processor_s"] / 1e6, 2),
                "million_per_s_by_clock": round(num * batch / taken["wall_s"] / 1e6, 2),
            }
    return found


def measure_engine(values: str, options: argparse.Namespace) -> dict[str, Any]:
    turns = options.turns
    found: dict[str, Any] = {"inner_products": measure_products(options.rows, values, turns)}
    small = Trio(1, values)
    found["hidden_threshold_comparisons"] = small.comparisons(options.comparisons, turns)
    found["one_to_one"] = {
        "threshold public": small.query("verify", people(1, seed=1), 5 * turns),
        "threshold hidden": small.query("verify", people(1, seed=1), 5 * turns, hides=True),
    }
    found["input_check"] = [small.input_check(num, 5 * turns if num == 1 else turns) for num in (1, 32, 5000)]
    small.close()
    found["growing_gallery, any"] = {}
    for num in options.sizes:
        trio = Trio(num, values)
        found["growing_gallery, any"][str(num)] = trio.query("any", people(1, seed=1), turns)
        if num == options.sizes[-1]:
            found["largest_gallery"] = {
                kind: trio.query(kind, people(1, seed=1), turns) for kind in ("any", "set", "best")
            } | {"references": num}
        trio.close()
    trio = Trio(options.batch_gallery, values)
    found["batches, set"] = {"references": options.batch_gallery}
    for batch in (1, 2, 4, 8, 16, 32):
        taken = trio.query("set", people(batch, seed=1), turns)
        found["batches, set"][str(batch)] = {
            "ms_a_probe": round(taken["wall_ms"] / batch, 3),
            "processor_ms_a_probe": round(taken["busiest_party_processor_ms"] / batch, 3),
        }
    trio.close()
    return found


def measure_keystream(turns: int) -> float:
    stream = Keystream(bytes(16), 0)
    taken = timed(lambda: stream.words(1 << 20, np.uint64), turns)
    return round((8 << 20) / taken["processor_s"] / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000, help="number of gallery rows for inner products")
    parser.add_argument("--comparisons", type=int, default=500_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--batch-gallery", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--values", nargs="+", default=["int8", "int16"])
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/secure_matching.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "dim": DIM,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "keystream_gb_per_s": measure_keystream(arguments.turns),
    }
    for values in arguments.values:
        result[values] = measure_engine(values, arguments)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
