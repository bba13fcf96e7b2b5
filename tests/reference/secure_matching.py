"""Slow reference of secure matching: Python integers, one coordinate and one bit at a time."""

from __future__ import annotations

import math


def quantised(unit_rows, scale):
    return [[math.floor(abs(float(v)) * scale + 0.5) * (1 if v >= 0 else -1) for v in row] for row in unit_rows]


def integer_scores(probes, rows):
    return [[sum(p * q for p, q in zip(probe, row, strict=True)) for row in rows] for probe in probes]


def accepted(scores, threshold, scale):
    """A score is an integer over the squared scale; a tie is accepted."""
    return [[score / scale**2 >= threshold for score in of_probe] for of_probe in scores]


def subjects(accepted):
    """Decisions as a matcher without named subjects returns them: row numbers as text, sorted as text."""
    return tuple(tuple(sorted(str(m) for m, is_accepted in enumerate(row) if is_accepted)) for row in accepted)


def best(scores, threshold, scale):
    """The row number with the highest accepted score, as text; of equal scores the first; None without one."""
    found = []
    for of_probe in scores:
        top = max(of_probe)
        found.append(str(of_probe.index(top)) if top / scale**2 >= threshold else None)
    return tuple(found)


def ring_product(row, probe, bits):
    return sum(int(a) * int(b) for a, b in zip(row, probe, strict=True)) % 2**bits


def sliced(values, bits):
    """Planes of words: bit k of value j * W + w is bit j of word w of plane k."""
    num_words = -(-len(values) // 64)
    planes = [[0] * num_words for _ in range(bits)]
    for i, value in enumerate(values):
        for k in range(bits):
            planes[k][i % num_words] |= (int(value) >> k & 1) << (i // num_words)
    return planes
