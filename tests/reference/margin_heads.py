"""Margin losses one row and one class at a time, from the papers' formulas."""

from __future__ import annotations

import math


def arcface(cosine, margin):
    theta = math.acos(max(-1.0, min(1.0, cosine)))  # rounding can exceed 1
    if theta > math.pi - margin:
        return cosine - margin * math.sin(math.pi - margin)
    return math.cos(theta + margin)


def cosface(cosine, margin):
    return cosine - margin


def adaface(cosine, margin, z):
    theta = min(max(math.acos(cosine) - margin * z, 1e-3), math.pi - 1e-3)
    return math.cos(theta) - (margin + margin * z)


def mixed_loss(embeddings, centres, labels, weights, *, scale, handicap):
    """Algorithm 1 of MixUp-ArcFace, then soft-label cross-entropy; `handicap(row, cosine)`."""
    total = 0.0
    for row, embedding in enumerate(embeddings):
        cosines = []
        for centre in centres:
            dot = sum(a * b for a, b in zip(embedding, centre, strict=True))
            cosines.append(dot / math.sqrt(sum(a * a for a in embedding)) / math.sqrt(sum(b * b for b in centre)))
        out = list(cosines)
        soft = [0.0] * len(centres)
        for label, weight in zip(labels[row], weights[row], strict=True):
            out[label] += weight * (handicap(row, cosines[label]) - cosines[label])
            soft[label] += weight
        log_sum = math.log(sum(math.exp(scale * value) for value in out))
        total += sum(share * (log_sum - scale * value) for share, value in zip(soft, out, strict=True))
    return total / len(embeddings)
