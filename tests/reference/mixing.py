"""MixUp the slow way: one row, one image, one draw at a time."""

from __future__ import annotations

import numpy as np


def weights_by_rejection(num_images: int, max_weight: float, rng: np.random.Generator) -> np.ndarray:
    """One row of weights: |N(0, 1)|, normalised, drawn anew while one is above the cap."""
    while True:
        row = np.abs(rng.normal(size=num_images))
        row /= row.sum()
        if row.max() <= max_weight:
            return row


def blended(values: np.ndarray, partners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """out[b] = sum over j of weights[b, j] * values[partners[b, j]]."""
    out = np.zeros_like(values)
    for b in range(len(values)):
        for j in range(partners.shape[1]):
            out[b] += weights[b, j] * values[partners[b, j]]
    return out
