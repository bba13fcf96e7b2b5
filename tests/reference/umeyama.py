"""Umeyama's similarity by singular value decomposition, in any number of dimensions, as the paper writes it."""

from __future__ import annotations

import numpy as np


def umeyama(from_ND: np.ndarray, to_ND: np.ndarray) -> np.ndarray:
    """(D, D+1) matrix of the least-squares similarity without mirroring (eqs. 34 to 43)."""
    count, dim = from_ND.shape
    from_mean, to_mean = from_ND.mean(axis=0), to_ND.mean(axis=0)
    covariance = np.zeros((dim, dim))
    variance = 0.0
    for source, target in zip(from_ND, to_ND, strict=True):
        covariance += np.outer(target - to_mean, source - from_mean) / count
        variance += ((source - from_mean) ** 2).sum() / count
    left, singular, right = np.linalg.svd(covariance)
    sign = np.eye(dim)
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        sign[-1, -1] = -1
    rotation = left @ sign @ right
    scale = (singular * np.diag(sign)).sum() / variance
    shift = to_mean - scale * rotation @ from_mean
    return np.hstack([scale * rotation, shift[:, None]])
