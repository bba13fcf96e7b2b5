"""1:N search under subject-specific keys, compared with simpler implementations.

One probe is compared with a gallery in which every subject has its own key (n = 512, m = 5): the probe is mapped under
each key and compared with the template under this key. The best 10 are returned. It is compared with:

- a slow loop (Python, one subject after another), timed on fewer subjects and extrapolated linearly;
- the same in NumPy, vectorised over chunks of subjects;
- exact search among unprotected embeddings of the same people, float32 and int8.

Ranks are compared with those of the slow loop, and int8 scores with float32 scores. Times are medians over turns in one
process, for one probe at a time. Memory is the size of the gallery and the peak of the process.

Run: python benchmarks/keyed_matching.py --json benchmarks/keyed_matching.json
Up to ten million references, mapped from disk: --mapped 1000000 3000000 10000000 --directory SOMEWHERE_WITH_8_GB
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ppfr.core import PolynomialKeys, new_reference_ids
from ppfr.matching import ExactMatcher, KeyedGallery, KeyedMatcher
from ppfr.templates import IdentityMapping

DIM, TOP, CHUNK = 512, 10, 100_000


def people(num: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def captures(rows: np.ndarray, *, cosine: float, seed: int) -> np.ndarray:
    mixed = cosine * rows + math.sqrt(1 - cosine**2) * people(len(rows), seed=seed)
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def slow_scores(probe: np.ndarray, templates: np.ndarray, keys: PolynomialKeys, scheme: IdentityMapping) -> list[float]:
    """One reference after another, one window after another."""
    shape = scheme.shape
    scaled = [float(x) * shape.factor for x in probe] + [0.0] * shape.num_terms * 2
    scores = []
    for template, c, e in zip(
        templates.tolist(), keys.coefficients_Mm.tolist(), keys.exponents_Mm.tolist(), strict=True
    ):
        mapped = []
        for window in range(shape.num_windows):
            start = window * shape.step
            mapped.append(sum(c[i] * scaled[start + i] ** e[i] for i in range(shape.num_terms)))
        length = math.sqrt(sum(p * p for p in mapped) * sum(t * t for t in template))
        scores.append(sum(p * t for p, t in zip(mapped, template, strict=True)) / length)
    return scores


def vectorised_scores(
    probe: np.ndarray, templates: np.ndarray, keys: PolynomialKeys, scheme: IdentityMapping
) -> np.ndarray:
    """NumPy over chunks of references: gather the powers of each term, multiply, add."""
    shape = scheme.shape
    padded = np.zeros(shape.padded_dim, dtype=np.float32)
    padded[:DIM] = probe * shape.factor
    windows = padded[np.arange(shape.num_windows)[:, None] * shape.step + np.arange(shape.num_terms)]
    power_mem = windows.T[:, None, :] ** np.arange(1, shape.num_terms + 1, dtype=np.float32)[None, :, None]
    out = np.empty(len(templates), dtype=np.float32)
    for start in range(0, len(templates), 4096):
        rows = slice(start, start + 4096)
        mapped = np.zeros((len(templates[rows]), shape.num_windows), dtype=np.float32)
        for i in range(shape.num_terms):
            mapped += keys.coefficients_Mm[rows, i, None] * power_mem[i, keys.exponents_Mm[rows, i] - 1]
        dot = np.einsum("ck,ck->c", mapped, templates[rows])
        out[rows] = dot / np.sqrt(np.einsum("ck,ck->c", mapped, mapped))
    return out


def timed(action: Callable[[], Any], turns: int) -> float:
    action()  # compiles, and loads mapped pages
    times = []
    for _ in range(turns):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def enrolled(scheme: IdentityMapping, num: int) -> tuple[np.ndarray, PolynomialKeys]:
    """Templates and keys. Embeddings are generated and discarded in chunks."""
    keys = scheme.draw_packed(num)
    templates = np.empty((num, scheme.out_dim), dtype=np.float32)
    for start in range(0, num, CHUNK):
        stop = min(start + CHUNK, num)
        templates[start:stop] = scheme.values_of(people(stop - start, seed=start), part_of(keys, start, stop))
    return templates, keys


def part_of(keys: PolynomialKeys, start: int, stop: int) -> PolynomialKeys:
    return PolynomialKeys(coefficients_Mm=keys.coefficients_Mm[start:stop], exponents_Mm=keys.exponents_Mm[start:stop])


def measure_overlap(num: int, overlap: int, *, slow: int, turns: int, threads: int) -> dict[str, Any]:
    scheme = IdentityMapping(dim=DIM, overlap=overlap)
    templates, keys = enrolled(scheme, num)
    probes = captures(people(min(num, CHUNK), seed=0)[:50], cosine=0.8, seed=1)
    few, few_keys = templates[:slow], part_of(keys, 0, slow)
    begun = time.perf_counter()
    exact = np.array(slow_scores(probes[0], few, few_keys, scheme))
    slow_s = (time.perf_counter() - begun) / slow * num
    vectorised_s = timed(lambda: vectorised_scores(probes[0], templates, keys, scheme), max(1, turns // 3))
    result: dict[str, Any] = {
        "num_values": scheme.out_dim,
        "slow_loop_s_extrapolated": round(slow_s, 1),
        "slow_loop_identities": slow,
        "numpy_s": round(vectorised_s, 4),
    }
    scores = {}
    for values in ("float32", "int8"):
        gallery = KeyedGallery.in_memory(scheme.shape, templates, keys, values=values)
        matcher = KeyedMatcher(gallery, num_threads=threads)
        small = KeyedMatcher(KeyedGallery.in_memory(scheme.shape, few, few_keys, values=values), num_threads=threads)
        ranks = small.top_k(probes[:1], k=slow).reference_Nk[0]
        scores[values] = matcher.score_matrix(probes)
        seconds = timed(lambda matcher=matcher: matcher.top_k(probes[:1], k=TOP), turns)
        batch_s = timed(lambda matcher=matcher: matcher.top_k(probes[:16], k=TOP), max(1, turns // 3)) / 16
        ideal = num * (scheme.out_dim * (4 if values == "float32" else 1) + 2 * scheme.shape.num_terms)
        result[values] = {
            "seconds": round(seconds, 5),
            "seconds_per_probe_in_batch_of_16": round(batch_s, 5),
            "million_identities_per_s": round(num / seconds / 1e6, 2),
            "times_slow_loop": round(slow_s / seconds),
            "times_numpy": round(vectorised_s / seconds, 1),
            "gallery_mb": round(gallery.num_bytes / 1e6, 1),
            "gallery_over_templates_and_keys": round(gallery.num_bytes / ideal, 3),
            "ranks_as_slow_loop": bool((ranks == np.argsort(-exact, kind="stable")).all())
            if values == "float32"
            else None,
            "rank_1_of_50": float((scores[values].argmax(axis=1) == np.arange(50)).mean()),
        }
    difference = np.abs(scores.pop("int8") - scores.pop("float32"))
    result["int8_against_float32"] = {
        "largest_difference": float(difference.max()),
        "rms_difference": float(np.sqrt(np.square(difference).mean(dtype=np.float64))),
    }
    return result


def measure_plain(num: int, *, turns: int, threads: int) -> dict[str, float]:
    rows = np.concatenate([people(min(CHUNK, num - start), seed=start) for start in range(0, num, CHUNK)])
    probe = captures(rows[:1], cosine=0.8, seed=1)
    found = {}
    for values in ("float32", "int8"):
        matcher = ExactMatcher(rows, values=values, num_threads=threads)
        found[f"{values}_s"] = round(timed(lambda matcher=matcher: matcher.top_k(probe, k=TOP), turns), 5)
    return found


def measure_mapped(sizes: list[int], directory: Path, *, turns: int, threads: int) -> dict[str, Any]:
    """Search in memory-mapped galleries that grow by appending. After the first chunk, embeddings repeat."""
    scheme = IdentityMapping(dim=DIM)
    found: dict[str, Any] = {}
    probe = captures(people(1, seed=0), cosine=0.8, seed=1)
    rows = people(CHUNK, seed=0)
    for values in ("float32", "int8"):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            paths = Path(folder) / "templates", Path(folder) / "keys"
            gallery = KeyedGallery.create(*paths, shape=scheme.shape, values=values)
            for size in sorted(sizes):
                begun = time.perf_counter()
                while len(gallery) < size:
                    num = min(CHUNK, size - len(gallery))
                    keys = scheme.draw_packed(num)
                    gallery.append(scheme.values_of(rows[:num], keys), keys, ids=new_reference_ids(num))
                built_s = time.perf_counter() - begun
                begun = time.perf_counter()
                opened = KeyedGallery.open(*paths)
                opened_s = time.perf_counter() - begun
                matcher = KeyedMatcher(opened, num_threads=threads)
                seconds = timed(lambda matcher=matcher: matcher.top_k(probe, k=TOP), turns)
                found[f"{values} {size}"] = {
                    "seconds": round(seconds, 4),
                    "ns_per_identity": round(seconds / size * 1e9, 2),
                    "appended_in_s": round(built_s, 1),
                    "opened_and_verified_in_s": round(opened_s, 2),
                    "file_mb": round(sum(path.stat().st_size for path in paths) / 1e6, 1),
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=1_000_000)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--slow", type=int, default=2000, help="number of references for the slow loop")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mapped", type=int, nargs="*", default=[], help="sizes of memory-mapped galleries")
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="directory of memory-mapped galleries"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    options = {"turns": arguments.turns, "threads": arguments.threads}
    slow = min(arguments.slow, arguments.identities)
    result: dict[str, Any] = {
        "identities": arguments.identities,
        "dim": DIM,
        "num_terms": 5,
        "keyed": {
            f"overlap {overlap}": measure_overlap(arguments.identities, overlap, slow=slow, **options)
            for overlap in arguments.overlaps
        },
        "plain": measure_plain(arguments.identities, **options),
        "num_threads": arguments.threads,
        "peak_process_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "machine": platform.machine(),
    }
    if arguments.mapped:
        result["mapped"] = measure_mapped(arguments.mapped, arguments.directory, **options)
    print(json.dumps(result, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
