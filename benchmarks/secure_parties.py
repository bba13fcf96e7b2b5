"""Three parties as processes over TLS on loopback: what a decision costs in time and bytes, with and without latency.

Each party is `ppfr party serve`, its own process, store and certificate; the client is this process. Time is from the
call of the client's method to its answer: sharing the probe, TLS, the order of work, the protocol, opening the answer.

- 1:1 and small batches; bytes as relays between all of them count them (TLS records and the parties' order of work
  included; TCP and IP headers not).
- the same with every message of everybody late by a constant time.
- a large gallery: any, set, best; one probe and several.

`measure_parties` is importable, so that other ways can be measured beside it in one run.

Run: taskset -c 2,3 python benchmarks/secure_parties.py --json benchmarks/secure_parties.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ppfr.secure import FixedPoint
from ppfr.service import SecureGalleryClient, write_threshold_files, write_trial
from support.delaying_relay import Relay, put_between

DIM, THRESHOLD = 512, 0.3
SERVE = "import sys; from ppfr.cli import run; sys.exit(run(sys.argv[1:]))"


def people(num: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@contextlib.contextmanager
def parties(values: str, *, delay_s: float | None = None) -> Iterator[tuple[SecureGalleryClient, list[Relay]]]:
    """Three processes and a client; through relays, which count bytes, where a delay is given, 0 included."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as undo:
        directory = Path(name)
        host = ".".join(["127", *(str(random.SystemRandom().randint(1, 250)) for _ in range(3))])
        addresses = [f"{host}:{port}" for port in (7300, 7301, 7302)]
        point = FixedPoint(dim=DIM, values="int8" if values == "int8" else "int16")
        write_trial(directory, dim=DIM, values=point.values, addresses=addresses)
        write_threshold_files(directory, name="door", threshold=THRESHOLD, fixed_point=point)
        for config in directory.glob("party-*.toml"):
            config.write_text(config.read_text().replace("# thresholds", "thresholds"))
        relays = [] if delay_s is None else put_between(directory, addresses, delay_s)
        for relay in relays:
            undo.callback(relay.close)
        for party in range(3):
            command = [
                sys.executable,
                "-c",
                SERVE,
                "party",
                "serve",
                "--config",
                str(directory / f"party-{party}.toml"),
            ]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            undo.callback(process.wait)
            undo.callback(process.kill)
        client = undo.enter_context(SecureGalleryClient.open(directory / "client.toml"))
        end = time.monotonic() + 300
        while [status["problem"] for status in client.status()] != ["", "", ""]:
            if time.monotonic() > end:
                raise TimeoutError("the parties did not come up")
            time.sleep(0.2)
        yield client, relays


def timed(action: Callable[[], Any], turns: int) -> dict[str, float]:
    """Milliseconds of the clock; two turns are left out."""
    taken = []
    for _ in range(turns + 2):
        begun = time.perf_counter()
        action()
        taken.append(1e3 * (time.perf_counter() - begun))
    kept = sorted(taken[2:])
    return {
        "median_ms": round(statistics.median(kept), 2),
        "least_ms": round(kept[0], 2),
        "p95_ms": round(kept[int(0.95 * (len(kept) - 1))], 2),
        "turns": turns,
    }


def measure_one_to_one(values: str, turns: int, delay_s: float | None) -> dict[str, Any]:
    """A decision 1:1; with relays (a delay, 0 included) also the bytes of everybody's connections."""
    with parties(values, delay_s=delay_s) as (client, relays):
        rows = people(32, seed=0)
        client.enrol(rows, [f"person {i}" for i in range(32)])
        found: dict[str, Any] = {}
        for name, ask in {
            "1:1": lambda: client.verify(rows[:1], ["person 0"], threshold=THRESHOLD),
            "1:1, threshold hidden": lambda: client.verify(rows[:1], ["person 0"], threshold="door"),
            "32 times 1:1 in one request": lambda: client.verify(
                rows, [f"person {i}" for i in range(32)], threshold=THRESHOLD
            ),
        }.items():
            ask()
            before, begun = sum(relay.num_bytes for relay in relays), time.perf_counter()
            found[name] = timed(ask, turns)
            if relays:
                time.sleep(0.05 + 4 * (delay_s or 0))
                moved = sum(relay.num_bytes for relay in relays) - before
                found[name]["bytes_of_all_connections"] = round(moved / (turns + 2))
                found[name]["seconds"] = round(time.perf_counter() - begun, 1)
            else:
                traffic = client.traffic
                between = traffic["bytes_between_parties"]
                found[name]["bytes_client_to_parties"] = traffic["bytes_sent"]
                found[name]["bytes_parties_to_client"] = traffic["bytes_received"]
                found[name]["bytes_sent_by_each_party"] = between
                found[name]["bytes"] = traffic["bytes_sent"] + traffic["bytes_received"] + sum(between)
        return found


def measure_gallery(values: str, num: int, turns: int) -> dict[str, Any]:
    """Enrolment of a large gallery, and questions to it."""
    with parties(values) as (client, _):
        rows = people(num, seed=0)
        begun = time.perf_counter()
        client.enrol(rows, [f"person {i}" for i in range(num)])
        enrolled_s = time.perf_counter() - begun
        begun = time.perf_counter()
        assert client.identify(rows[:1], threshold=THRESHOLD) == ("person 0",)
        found: dict[str, Any] = {
            "references": num,
            "enrolment_s": round(enrolled_s, 1),
            "first_question_s": round(time.perf_counter() - begun, 1),
        }
        one = people(1, seed=1)
        begun = time.perf_counter()
        client.enrol(one, ["somebody"])
        found["one_more_enrolled_s"] = round(time.perf_counter() - begun, 2)
        begun = time.perf_counter()
        assert client.identify(one, threshold=THRESHOLD) == ("somebody",)
        found["question_after_it_s"] = round(time.perf_counter() - begun, 2)
        for batch in (1, 8, 32):
            probes = rows[7 : 7 + batch]
            for kind, ask in {"any": client.match_any, "set": client.match_all, "best": client.identify}.items():
                taken = timed(
                    lambda ask=ask, probes=probes: ask(probes, threshold=THRESHOLD), turns if batch == 1 else 3
                )
                taken["ms_a_probe"] = round(taken["median_ms"] / batch, 2)
                taken["bytes_sent_by_each_party"] = client.traffic["bytes_between_parties"]
                found[f"{kind}, {batch} probe{'s' * (batch > 1)}"] = taken
        return found


def measure_parties(
    values: str = "int16", *, turns: int = 25, references: int = 100_000, delays_ms: tuple[float, ...] = (5.0, 20.0)
) -> dict[str, Any]:
    """All of it for one fixed-point format."""
    found: dict[str, Any] = {
        "1:1 on loopback": measure_one_to_one(values, 4 * turns, None),
        "1:1 through relays, 0 ms": measure_one_to_one(values, turns, 0.0),
    }
    for delay_ms in delays_ms:
        found[f"1:1, {delay_ms:g} ms one way"] = measure_one_to_one(values, max(5, turns // 3), delay_ms / 1e3)
    if references:
        found["gallery"] = measure_gallery(values, references, max(5, turns // 3))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--delays-ms", type=float, nargs="*", default=[5.0, 20.0])
    parser.add_argument("--values", nargs="+", default=["int8", "int16"])
    parser.add_argument("--note", default="", help="kept in the result, such as what else the machine does")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/secure_parties.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "dim": DIM,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
    }
    for values in arguments.values:
        result[values] = measure_parties(
            values, turns=arguments.turns, references=arguments.references, delays_ms=tuple(arguments.delays_ms)
        )
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
