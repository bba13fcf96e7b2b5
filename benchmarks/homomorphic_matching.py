"""Homomorphic matching (CKKS): cost of a query at key holder and server, and alternatives to the packing of galleries.

- The packing of `ppfr.secure.CkksKey`: ciphertext d holds coordinate d of 2,048 references. Enrolment per block, then a
  query with an encrypted and with a plain probe: time at key holder and server, bytes, comparisons per second.
- Packing by rows: the coordinates of a reference side by side, one product, then 9 rotations that sum 512 slots (8
  references share a ciphertext of 8,192 coefficients); and TenSEAL's `matmul` with references in the clear.
- Comparison under encryption, so that the key holder would see only decisions: composition of the polynomials g3 and f3
  of Cheon et al. (Asiacrypt 2020) on one ciphertext, and one product at the level that they need.

Times are processor time and wall time of one thread.

Run: python benchmarks/homomorphic_matching.py --json benchmarks/homomorphic_matching.json
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tenseal

from ppfr.secure import CkksKey, CkksMatcher, CkksServer

DIM = 512
G3, F3 = (
    [0, 4589 / 1024, 0, -16577 / 1024, 0, 25614 / 1024, 0, -12860 / 1024],
    [0, 35 / 16, 0, -35 / 16, 0, 21 / 16, 0, -5 / 16],
)


def people(num: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def timed(action: Callable[[], Any], turns: int) -> dict[str, float]:
    """Median milliseconds of processor time and wall time."""
    processor, wall = [], []
    for _ in range(turns):
        begun, used = time.perf_counter(), time.process_time()
        action()
        processor.append(time.process_time() - used)
        wall.append(time.perf_counter() - begun)
    return {
        "processor_ms": round(1e3 * statistics.median(processor), 2),
        "wall_ms": round(1e3 * statistics.median(wall), 2),
    }


def measure_packed(num: int, turns: int) -> dict[str, Any]:
    """A gallery of `num` references, from enrolment to scores."""
    key = CkksKey.create(DIM)
    server, references, probe = CkksServer(key.context()), people(num, seed=0), people(1, seed=1)[0]
    blocks: list[bytes] = []
    enrolment = timed(lambda: blocks.extend(key.encrypt_references(references)), 1)
    adding = timed(lambda: [server.add(block) for block in blocks], 1)
    found: dict[str, Any] = {
        "references": num,
        "blocks": len(blocks),
        "key_holder_encrypts_gallery": enrolment,
        "server_reads_gallery": adding,
        "bytes_gallery": sum(map(len, blocks)),
    }
    for kind in ("encrypted", "plain"):
        sent: Any = key.encrypt_probe(probe) if kind == "encrypted" else probe
        answer = server.answer(sent)
        error = np.abs(key.decrypt_scores(answer, server.sizes) - references @ probe).max()
        computing = timed(lambda sent=sent: server.answer(sent), turns)
        found[f"{kind} probe"] = {
            "key_holder_encrypts_probe": timed(lambda: key.encrypt_probe(probe), turns) if kind == "encrypted" else 0,
            "server": computing,
            "key_holder_decrypts": timed(lambda answer=answer: key.decrypt_scores(answer, server.sizes), turns),
            "comparisons_per_s_of_server": round(num / computing["processor_ms"] * 1e3),
            "bytes_probe": len(sent) if kind == "encrypted" else sent.nbytes,
            "bytes_answer": len(answer),
            "largest_error": float(error),
        }
    return found


def measure_rows(turns: int) -> dict[str, Any]:
    """One product and 9 rotations, for up to eight references; and TenSEAL's matmul with 2,048 plain references."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2.0**40
    context.generate_galois_keys()
    probe, references = people(1, seed=1)[0].tolist(), people(2048, seed=0)
    encrypted, reference = tenseal.ckks_vector(context, probe), tenseal.ckks_vector(context, references[0].tolist())

    def score() -> Any:
        return (encrypted * reference).sum()

    rotating = timed(score, turns)
    columns = references.T.tolist()
    plain = timed(lambda: encrypted.matmul(columns), 1)
    galois = context.serialize(save_secret_key=False, save_relin_keys=False, save_galois_keys=True)
    return {
        "product_and_9_rotations": rotating,
        "comparisons_per_s, eight to a ciphertext": round(8e3 / rotating["processor_ms"], 1),
        "matmul with 2,048 plain references": plain,
        "comparisons_per_s, matmul": round(2048e3 / plain["processor_ms"], 1),
        "bytes_probe": len(encrypted.serialize()),
        "bytes_rotation_keys": len(galois),
    }


def measure_sign(num_g: int, num_f: int) -> dict[str, Any]:
    """The sign of 16,384 values in one ciphertext, by composed polynomials of degree 7."""
    bits, levels = 29, 27
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 32768, coeff_mod_bit_sizes=[45, *[bits] * levels, 45])
    context.global_scale = 2.0**bits
    values = np.concatenate([np.linspace(-1, -1 / 256, 8192), np.linspace(1 / 256, 1, 8192)])
    encrypted = tenseal.ckks_vector(context, values.tolist())
    context.auto_relin = context.auto_rescale = False  # products are summed before relinearisation, as in the packing
    product = timed(lambda: encrypted * encrypted, 5)
    context.auto_relin = context.auto_rescale = True
    found: dict[str, Any] = {
        "polynomials": f"{num_g} of g3, {num_f} of f3",
        "values": len(values),
        "smallest_magnitude": 1 / 256,
        "bytes_ciphertext": len(encrypted.serialize()),
        "one product at the top level": product,
        "512 products, as a block needs, s": round(512 * product["processor_ms"] / 1e3, 1),
    }
    state, steps = encrypted, []
    for coefficients in [G3] * num_g + [F3] * num_f:
        begun = time.process_time()
        try:
            state = state.polyval(coefficients)
        except ValueError as error:
            found["ended"] = f"after {len(steps)} polynomials: {error}"
            break
        steps.append(round(time.process_time() - begun, 2))
    decided = np.array(state.decrypt())
    found |= {"polynomials_processor_s": steps, "sum_s": round(sum(steps), 1)}
    found["largest_distance_from_the_sign"] = float(np.abs(decided - np.sign(values)).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2048, 8192])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sign", type=int, nargs=2, default=[4, 2], metavar=("G3", "F3"))
    parser.add_argument("--note", default="", help="free text for the result, such as other load on the machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {
        "command": "python benchmarks/homomorphic_matching.py " + shlex.join(sys.argv[1:]),
        "note": arguments.note,
        "dim": DIM,
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
        "tenseal": version("tenseal"),
        "stated_largest_error": CkksMatcher.largest_error,
        "packed": [measure_packed(num, arguments.turns) for num in arguments.sizes],
        "rows": measure_rows(arguments.turns),
        "sign": measure_sign(*arguments.sign),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
