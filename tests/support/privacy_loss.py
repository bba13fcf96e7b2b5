"""The privacy loss that samples of a mechanism prove."""

from __future__ import annotations

import numpy as np
from scipy import stats


def worst_loss(first: np.ndarray, second: np.ndarray, *, num_bins: int = 24, confidence: float = 0.999) -> float:
    """Largest log ratio of bin probabilities that the samples prove, Clopper-Pearson, corrected for all bins."""
    edges = np.quantile(np.concatenate([first, second]), np.linspace(0, 1, num_bins + 1)[1:-1])
    counts = [np.bincount(np.searchsorted(edges, sample), minlength=num_bins) for sample in (first, second)]
    alpha = (1 - confidence) / (4 * num_bins)
    low = [stats.beta.ppf(alpha, c, len(first) - c + 1) for c in counts]
    high = [stats.beta.ppf(1 - alpha, c + 1, len(first) - c) for c in counts]
    ratios = [np.log(np.nan_to_num(low[a], nan=1e-300) / high[b]) for a, b in ((0, 1), (1, 0))]
    return float(np.max(ratios))
