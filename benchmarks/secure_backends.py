"""Comparison of secure matchers in one run: the engine, SPU (ABY3, CHEETAH, SEMI2K with a dealer), MPyC, CKKS.

- 1:1: one decision about one pair, with and without TLS between the parties; medians of repeated queries.
- 1:N: whether a gallery contains a match (one bit), for growing galleries. The column of a library ends at the first
  size that does not finish within the limit; the result states which.
- All pairs of a protocol in one query: decisions compared with the engine's and with those of integers in the clear.

The engine's parties are measured both as threads of this process and as processes over TLS; the libraries' parties are
processes over loopback. Times are measured at the client, from embedding to decision: sharing, computing, opening.
Bytes between parties are counted by the kernel, including framing and TLS; for the engine, its messages are counted.
Processor time is that of the busiest party. The first query of a kind is reported separately: a library then compiles
its program, CHEETAH sets up oblivious transfers, SEMI2K masks the gallery.

Run: PPFR_SPU_PYTHON=... taskset -c 2,3 python benchmarks/secure_backends.py --json benchmarks/secure_backends.json
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import secure_parties
from secure_matching import DIM, THRESHOLD, Trio, people

from ppfr.core import MissingEnvironmentError, MissingExtraError, PartyError
from ppfr.data import PairProtocol
from ppfr.metrics import Comparisons
from ppfr.models import NetworkEmbedder, for_inference, load_pretrained
from ppfr.secure import CkksMatcher, FixedPoint, LinkTraffic, Mpyc, ProcessMatcher, Spu, ThreePartyMatcher
from ppfr.systems import read_protocol

LIBRARIES: dict[str, Callable[[bool], Spu | Mpyc]] = {
    "spu aby3": lambda tls: Spu(protocol="aby3", tls=tls),
    "spu cheetah": lambda tls: Spu(protocol="cheetah", tls=tls),
    "spu semi2k, dealer": lambda tls: Spu(protocol="semi2k", tls=tls),
    "mpyc": lambda tls: Mpyc(tls=tls),
}

# For 100,000 references a server of CHEETAH needed more than 6 GB when 24 GB were exhausted; MPyC uses Python integers.
MAX_REFERENCES = {"spu cheetah": 10_000, "mpyc": 10_000}


def processor_s(process: int) -> float:
    """Processor time of a process so far, over all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def query(matcher: ProcessMatcher, run: Callable[[], Any], turns: int) -> dict[str, Any]:
    """The first query, then medians of up to `turns` more; fewer if they take long."""

    def once() -> tuple[float, float, tuple[LinkTraffic, ...]]:
        carried, used = matcher.link_traffic(), [processor_s(process) for process in matcher.process_ids]
        begun = time.perf_counter()
        run()
        wall = time.perf_counter() - begun
        used = [processor_s(process) - before for process, before in zip(matcher.process_ids, used, strict=True)]
        time.sleep(0.02)  # for data in flight
        return wall, max(used), tuple(a - b for a, b in zip(matcher.link_traffic(), carried, strict=True))

    first_s, _, first = once()
    taken: list[tuple[float, float, tuple[LinkTraffic, ...]]] = []
    while len(taken) < turns and (len(taken) < 2 or sum(wall for wall, _, _ in taken) < 20):
        taken.append(once())
    sent = [[traffic.bytes_sent for traffic in each] for _, _, each in taken]
    return {
        "turns": len(taken),
        "wall_ms": round(1e3 * statistics.median(wall for wall, _, _ in taken), 2),
        "least_wall_ms": round(1e3 * min(wall for wall, _, _ in taken), 2),
        "busiest_party_processor_ms": round(1e3 * sum(used for _, used, _ in taken) / len(taken), 1),
        "bytes_sent_by_each_party": [int(statistics.median(column)) for column in zip(*sent, strict=True)],
        "bytes_between_parties": int(statistics.median(sum(row) for row in sent)),
        "bytes_with_dealer": int(statistics.median(sum(t.bytes_of_dealer for t in each) for _, _, each in taken)),
        "first_wall_ms": round(1e3 * first_s, 1),
        "first_bytes_between_parties": sum(traffic.bytes_sent for traffic in first),
    }


def shown(name: str, what: str, found: dict[str, Any]) -> dict[str, Any]:
    print(name, what, {key: found[key] for key in ("wall_ms", "bytes_between_parties") if key in found}, flush=True)
    return found


def measure_library(name: str, options: argparse.Namespace) -> dict[str, Any] | str:
    make, probe = LIBRARIES[name], people(1, seed=1)
    found: dict[str, Any] = {}
    try:
        for tls in (True, False):
            with ProcessMatcher(people(1, seed=0), make(tls), timeout_s=options.limit_s) as matcher:
                what = f"1:1, {'' if tls else 'no '}TLS"
                measured = query(
                    matcher, lambda m=matcher: m.verify(probe, ["0"], threshold=THRESHOLD), 5 * options.turns
                )
                [(header, arrays)] = matcher._send(
                    [(matcher._client, {"do": "share"}, {"values": matcher.fixed_point.signed(np.zeros((1, DIM)))})]
                )
                del header
                measured["bytes_probe_to_each_party"] = [part.nbytes for part in arrays.values()]
                found[what] = shown(name, what, measured)
    except (MissingEnvironmentError, MissingExtraError) as error:
        return f"not measured: {error}"
    last_num, last_s, fixed_s = 1, 0.0, 0.0
    for num in options.sizes:
        what, begun = f"any of {num}", time.perf_counter()
        if num > MAX_REFERENCES.get(name, num):
            found[what] = f"not tried: it would take more than 6 GB a party; {MAX_REFERENCES[name]} are tried at most"
            break
        if last_s * num / last_num > options.limit_s:
            found[what] = f"not tried: {last_num} took {last_s:.0f} s, and {options.limit_s:g} s are the limit"
            print(name, what, found[what], flush=True)
            break
        try:
            with ProcessMatcher(people(num, seed=0), make(True), timeout_s=options.limit_s) as matcher:
                enrolled_s = time.perf_counter() - begun
                measured = query(matcher, lambda m=matcher: m.match_any(probe, threshold=THRESHOLD), options.turns)
                found[what] = shown(name, what, measured | {"enrolment_s": round(enrolled_s, 1)})
        except PartyError as error:
            text = str(error).splitlines()[0][:200]
            found[what] = f"stopped after {time.perf_counter() - begun:.0f} s (limit {options.limit_s:g} s): {text}"
            print(name, what, found[what], flush=True)
            break
        taken_s = time.perf_counter() - begun
        fixed_s = taken_s if num == options.sizes[0] else fixed_s  # starting processes, compiling
        last_num, last_s = num, max(0.0, taken_s - fixed_s)
    return found


def measure_engine(options: argparse.Namespace) -> dict[str, Any]:
    small = Trio(1, "int16")
    found = {"1:1, in memory": small.query("verify", people(1, seed=1), 5 * options.turns)}
    small.close()
    for num in options.sizes:
        trio = Trio(num, "int16")
        what = f"any of {num}"
        found[what] = shown("engine", what, trio.query("any", people(1, seed=1), options.turns))
        trio.close()
    return found


def measure_parties(options: argparse.Namespace) -> dict[str, Any]:
    """The engine's parties as processes over TLS."""
    return secure_parties.measure_parties("int16", turns=5 * options.turns, references=options.sizes[-1], delays_ms=())


def measure_ckks(options: argparse.Namespace) -> dict[str, Any] | str:
    """One server, encrypted probes; the key holder, in the same process, sees the scores."""
    probe, found = people(1, seed=1), {}
    sizes = [1, *(num for num in options.sizes if num <= options.ckks_limit)]
    for num in sizes:
        begun = time.perf_counter()
        try:
            matcher = CkksMatcher(people(num, seed=0), threshold=THRESHOLD)
        except MissingExtraError as error:
            return f"not measured: {error}"
        enrolled_s = time.perf_counter() - begun
        wall, used = [], []
        for _ in range(options.turns):
            begun, before = time.perf_counter(), time.process_time()
            if num == 1:
                matcher.verify(probe, ["0"], threshold=THRESHOLD)
            else:
                matcher.match_any(probe, threshold=THRESHOLD)
            wall.append(time.perf_counter() - begun)
            used.append(time.process_time() - before)
        what = "1:1" if num == 1 else f"any of {num}"
        measured = {
            "wall_ms": round(1e3 * statistics.median(wall), 1),
            "processor_ms": round(1e3 * statistics.median(used), 1),
            "bytes_to_and_from_server": list(matcher.num_bytes),
            "enrolment_s": round(enrolled_s, 1),
        }
        found[what] = shown("ckks", what, measured)
    return found


def embedded(network: str, protocol: PairProtocol) -> np.ndarray[Any, Any]:
    """(U, D) unit rows of the images that occur in pairs."""
    backbone, _ = load_pretrained(network)
    embedder, used, rows = NetworkEmbedder(for_inference(backbone)), protocol.used().tolist(), []
    for start in range(0, len(used), 64):
        pixels = torch.from_numpy(np.ascontiguousarray(protocol.images.read(used[start : start + 64])))
        rows.append(embedder.embed(pixels.permute(0, 3, 1, 2).float().div(255)).numpy())
    return np.concatenate(rows).astype(np.float64)


def compare_decisions(options: argparse.Namespace) -> dict[str, Any]:
    """All pairs of a protocol in one query each, at the thresholds of the float scores at FAR 1e-2 and 1e-3."""
    protocol = read_protocol(options.protocol)
    rows = embedded(options.network, protocol)
    place = {index: row for row, index in enumerate(protocol.used().tolist())}
    first, second = (
        rows[[place[i] for i in side.tolist()]].astype(np.float64) for side in (protocol.first, protocol.second)
    )
    first, second = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (first, second))
    subjects = np.asarray(protocol.images.subject_ids)
    curve = Comparisons(
        scores=np.einsum("nd,nd->n", first, second),
        is_genuine=protocol.is_genuine,
        subject_a=subjects[protocol.first],
        subject_b=subjects[protocol.second],
        fold=protocol.fold,
    ).roc()
    thresholds = {far: curve.threshold_at_far(far) for far in (1e-2, 1e-3)}
    found: dict[str, Any] = {"protocol": protocol.name, "num_pairs": len(first), "network": options.network}
    for values in ("int16", "int8"):
        point = FixedPoint(dim=rows.shape[1], values=values)
        score = np.einsum("nd,nd->n", *(point.signed(point.quantise(side)) for side in (first, second)))
        clear = {far: score >= point.integer_threshold(threshold) for far, threshold in thresholds.items()}
        with ThreePartyMatcher(second, values=values) as engine:
            ours = {far: engine.verify(first, engine.subjects, threshold=value) for far, value in thresholds.items()}
        for name in options.decisions:
            with ProcessMatcher(second, LIBRARIES[name](True), values=values, timeout_s=options.limit_s) as matcher:
                decisions: dict[str, Any] = {}
                for far, threshold in thresholds.items():
                    begun, carried = time.perf_counter(), matcher.link_traffic()
                    decided = matcher.verify(first, matcher.subjects, threshold=threshold)
                    decisions[f"far {far:g}"] = {
                        "accepted": int(decided.sum()),
                        "differ_from_engine": np.flatnonzero(decided != ours[far]).tolist(),
                        "differ_from_integers_in_the_clear": np.flatnonzero(decided != clear[far]).tolist(),
                        "wall_s": round(time.perf_counter() - begun, 2),
                        "bytes_between_parties": sum(
                            (a - b).bytes_sent for a, b in zip(matcher.link_traffic(), carried, strict=True)
                        ),
                    }
                found[f"{name}, {values}"] = decisions
                print(name, values, decisions, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=300, help="time limit of each step of a library")
    parser.add_argument("--ckks-limit", type=int, default=10_000, help="largest gallery for CKKS; 0 skips it")
    parser.add_argument("--libraries", nargs="*", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument("--without-parties", action="store_true", help="skip the engine's processes over TLS")
    parser.add_argument("--decisions", nargs="*", default=["spu aby3"], choices=list(LIBRARIES))
    parser.add_argument("--protocol", default="lfw", help="verification protocol whose pairs are decided")
    parser.add_argument("--network", default="mobilefacenet-y1")
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/secure_backends.py " + shlex.join(sys.argv[1:]),
        "note": options.note,
        "dim": DIM,
        "values": "int16",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
        "engine, threads": measure_engine(options),
    }
    if not options.without_parties:
        result["engine, processes over TLS"] = measure_parties(options)
    for name in options.libraries:
        result[name] = measure_library(name, options)
    if options.ckks_limit:
        result["ckks, one server, scores shown to the key holder"] = measure_ckks(options)
    if options.decisions:
        result["decisions"] = compare_decisions(options)
    text = json.dumps(result, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
