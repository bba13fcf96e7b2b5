"""Slow twins of the identity-specific mapping and of keyed search: loops in Python's own floating point."""

from __future__ import annotations

import math


def num_windows(dim, num_terms, overlap):
    """Count windows by sliding one until the embedding is used up."""
    count, end = 1, num_terms
    while end < dim:
        count, end = count + 1, end + num_terms - overlap
    return count


def mapped(embedding, coefficients, exponents, overlap, scale):
    """The polynomial of every window, before normalisation."""
    length = math.sqrt(math.fsum(float(x) ** 2 for x in embedding))
    scaled = [float(x) / length * scale for x in embedding]
    num_terms = len(coefficients)
    count = num_windows(len(scaled), num_terms, overlap)
    scaled += [0.0] * (num_terms * count)
    out = []
    for window in range(count):
        start = window * (num_terms - overlap)
        terms = zip(coefficients, exponents, strict=True)
        out.append(math.fsum(int(c) * scaled[start + i] ** int(e) for i, (c, e) in enumerate(terms)))
    return out


def cosine(a, b):
    """Cosine, 0 where one of them has no direction."""
    length = math.sqrt(math.fsum(x * x for x in a) * math.fsum(float(y) ** 2 for y in b))
    return math.fsum(x * float(y) for x, y in zip(a, b, strict=True)) / length if length else 0.0


def keyed_scores(probe, templates, coefficients, exponents, overlap, scale):
    """Score of the probe with every template, under every template's own key, one after another."""
    return [
        cosine(mapped(probe, c, e, overlap, scale), template)
        for template, c, e in zip(templates, coefficients, exponents, strict=True)
    ]
