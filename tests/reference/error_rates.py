"""Slow twins of ppfr.metrics: loops over thresholds, pairs, folds and probes, as one would do it by hand."""

from __future__ import annotations

import itertools
import math


def rates_at(threshold, scores, is_genuine, weights=None):
    """(TAR, FMR) at a threshold; accepted when score >= threshold."""
    weights = [1] * len(scores) if weights is None else weights
    accepted, total = {True: 0, False: 0}, {True: 0, False: 0}
    for score, genuine, weight in zip(scores, is_genuine, weights, strict=True):
        total[bool(genuine)] += weight
        if score >= threshold:
            accepted[bool(genuine)] += weight
    return accepted[True] / total[True], accepted[False] / total[False]


def tar_at_far(far, scores, is_genuine):
    best = 0.0
    for threshold in [math.inf, *scores]:
        tar, fmr = rates_at(threshold, scores, is_genuine)
        if fmr <= far + 1e-12:
            best = max(best, tar)
    return best


def auc(scores, is_genuine):
    wins = count = 0
    for a, genuine_a in zip(scores, is_genuine, strict=True):
        for b, genuine_b in zip(scores, is_genuine, strict=True):
            if genuine_a and not genuine_b:
                count += 1
                wins += 1 if a > b else 0.5 if a == b else 0
    return wins / count


def fold_accuracies(scores, is_genuine, fold):
    """Accuracy and threshold of each fold: all thresholds tried on the other folds, the strictest of the best taken."""
    results = []
    for f in sorted(set(fold)):
        training = [(s, g) for s, g, k in zip(scores, is_genuine, fold, strict=True) if k != f]
        testing = [(s, g) for s, g, k in zip(scores, is_genuine, fold, strict=True) if k == f]
        ordered = sorted({s for s, _ in training}, reverse=True)
        candidates = [math.inf] + [(a + b) / 2 for a, b in itertools.pairwise(ordered)] + [ordered[-1]]
        best, chosen = -1, math.inf
        for threshold in candidates:
            correct = sum((s >= threshold) == bool(g) for s, g in training)
            if correct > best:
                best, chosen = correct, threshold
        results.append((sum((s >= chosen) == bool(g) for s, g in testing) / len(testing), chosen))
    return results


def rank_k_share(score_matrix, probe_subjects, gallery_subjects, k):
    """Chance, over random breaking of ties, that the probe's subject is among the best k subjects; averaged."""
    total = 0.0
    for row, subject in zip(score_matrix, probe_subjects, strict=True):
        best = {}
        for score, label in zip(row, gallery_subjects, strict=True):
            best[label] = max(score, best.get(label, -math.inf))
        above = sum(value > best[subject] for value in best.values())
        tied = sum(value == best[subject] for value in best.values())
        total += min(max((k - above) / tied, 0), 1)
    return total / len(probe_subjects)
