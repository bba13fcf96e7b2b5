"""Effect of overlap and scale of the subject-specific mapping on recognition, linkability and inversion.

Embeddings are random directions of 512 values. Further captures have a cosine similarity of 0.6 to them. These are not
faces: the figures compare settings with each other, and are not evidence about a recogniser. For each setting:

- EER and TAR at FAR 1e-3 in the stolen-token scenario;
- D_sys of templates of one person under two keys, and its chance level with the same bins;
- cosine similarity of recovered and enrolled embedding (median, largest) and the share of templates that were solved,
  with the loss of the authors and with the compressed loss.

Run: python benchmarks/mapping_tradeoff.py --json benchmarks/mapping_tradeoff.json
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppfr.attacks import MappingInversion
from ppfr.core import PolynomialKeys, Templates
from ppfr.metrics import roc, unlinkability
from ppfr.templates import IdentityMapping

DIM, COSINE = 512, 0.6


def unit_rows(num: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, DIM))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def inverted(scheme: IdentityMapping, rows: np.ndarray, keys: PolynomialKeys, *, compression: float | None) -> dict:
    subject_keys = scheme.key_of_packed(keys)
    templates = Templates(templates_NK=scheme.values_of(rows, keys))
    attack = MappingInversion(knows_keys=True, max_iterations=1000, compression=compression)
    result = attack.run(templates, scheme.mapping(subject_keys), seed=0)
    cosines = (result.embeddings_ND * rows).sum(axis=1)
    return {
        "median_cosine": round(float(np.median(cosines)), 3),
        "largest_cosine": round(float(cosines.max()), 3),
        "solved": round(float(result.solved_N.mean()), 3),
        "seconds_per_target": round(float(result.notes["seconds_per_victim"]), 2),
    }


def measure(scheme: IdentityMapping, num: int, num_targets: int) -> dict[str, Any]:
    rows, noise = unit_rows(num, seed=0), unit_rows(num, seed=1)
    again = COSINE * rows + math.sqrt(1 - COSINE**2) * noise
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    keys, others = scheme.draw_packed(num), scheme.draw_packed(num)
    template = scheme.values_of(rows, keys)

    def scores(of: np.ndarray, under: PolynomialKeys) -> np.ndarray:
        return (template * scheme.values_of(of, under)).sum(axis=1)

    curve = roc(scores(again, keys), scores(np.roll(again, 1, axis=0), keys))
    link = unlinkability(
        scores(rows, others),
        scores(np.roll(rows, 1, axis=0), others),
        mated_subjects=np.arange(num),
        score_range=(-1, 1),
        seed=0,
        num_resamples=200,
    )
    few = PolynomialKeys(
        coefficients_Mm=keys.coefficients_Mm[:num_targets], exponents_Mm=keys.exponents_Mm[:num_targets]
    )
    return {
        "num_values": scheme.out_dim,
        "eer": round(curve.eer(), 4),
        "tar_at_far_1e-3": round(curve.tar_at_far(1e-3), 4),
        "d_sys": round(link.d_sys.value, 3),
        "d_sys_by_chance": round(link.chance, 3),
        "inverted": inverted(scheme, rows[:num_targets], few, compression=None),
        "inverted_compressed": inverted(scheme, rows[:num_targets], few, compression=0.1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--targets", type=int, default=20, help="number of target subjects")
    parser.add_argument("--terms", type=int, nargs="+", default=[5])
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scales = {"sqrt(n)": None, "sqrt(n)/2": math.sqrt(DIM) / 2, "sqrt(n)/4": math.sqrt(DIM) / 4, "1": 1.0}
    result: dict[str, Any] = {
        "dim": DIM,
        "cosine": COSINE,
        "people": arguments.people,
        "num_targets": arguments.targets,
    }
    for terms in arguments.terms:
        for overlap in arguments.overlaps:
            for name, scale in scales.items():
                scheme = IdentityMapping(dim=DIM, num_terms=terms, overlap=overlap, scale=scale)
                result[f"m={terms} o={overlap} scale={name}"] = measure(scheme, arguments.people, arguments.targets)
    print(json.dumps(result, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
