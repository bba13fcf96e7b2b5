"""Secure decisions beside plain ones on all pairs of a protocol: every decision that quantisation turns, and its cost.

Embeds the images with a public network (or takes the embeddings of an earlier run), then decides every pair under
sharing, by three parties in this process, at the thresholds of the float scores.

Run: python benchmarks/secure_decisions.py --json benchmarks/secure_decisions.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from ppfr.models import NetworkEmbedder, for_inference, load_pretrained
from ppfr.recipes import compare_secure_decisions, read_protocol


def embedded(network: str, protocol, batch_size: int) -> np.ndarray:
    backbone, _ = load_pretrained(network)
    embedder = NetworkEmbedder(for_inference(backbone))
    used = protocol.used().tolist()
    rows = []
    for start in range(0, len(used), batch_size):
        pixels = torch.from_numpy(np.ascontiguousarray(protocol.images.read(used[start : start + batch_size])))
        rows.append(embedder.embed(pixels.permute(0, 3, 1, 2).float().div(255)).numpy())
    return np.concatenate(rows).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", default="lfw")
    parser.add_argument("--network", default="mobilefacenet-y1")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embeddings", type=Path, help=".npy to keep the embeddings in, or to take them from")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    protocol = read_protocol(arguments.protocol)
    kept = arguments.embeddings
    if kept is not None and kept.exists():
        rows = np.load(kept, allow_pickle=False)
    else:
        rows = embedded(arguments.network, protocol, arguments.batch_size)
        if kept is not None:
            np.save(kept, rows)
    begun = time.perf_counter()
    result = {
        "command": "python benchmarks/secure_decisions.py --json benchmarks/secure_decisions.json",
        "network": arguments.network,
        **compare_secure_decisions(protocol, rows, seed=arguments.seed),
    }
    result["seconds_without_embedding"] = round(time.perf_counter() - begun, 1)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
