"""HFCF's input side the slow way: one place, one frequency, one neighbour, one bit at a time."""

from __future__ import annotations

import math

import numpy as np

# Clockwise from the upper left, (row, column).
NEIGHBOURS = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]


def strongest_colour(coefficients: np.ndarray, num_colours: int = 3) -> np.ndarray:
    """(B, C*K, P, Q) -> (B, K, P, Q): the value of largest magnitude, the first one's in a tie."""
    batch, num, rows, columns = coefficients.shape
    num //= num_colours
    out = np.zeros((batch, num, rows, columns), coefficients.dtype)
    for b in range(batch):
        for k in range(num):
            for p in range(rows):
                for q in range(columns):
                    candidates = [coefficients[b, colour * num + k, p, q] for colour in range(num_colours)]
                    out[b, k, p, q] = max(candidates, key=abs)  # `max` keeps the first of equals
    return out


def planes(pixels: np.ndarray, names: list[str]) -> np.ndarray:
    """(H, W, 3) uint8 -> (C, H, W) Python-exact whole numbers that order as the named planes do."""
    height, width, _ = pixels.shape
    out = np.zeros((len(names), height, width), np.int64)
    for h in range(height):
        for w in range(width):
            r, g, b = (int(value) for value in pixels[h, w])
            y = 299 * r + 587 * g + 114 * b
            of = {"y": y, "cb": 1000 * b - y, "cr": 1000 * r - y, "r-g": r - g, "g-b": g - b, "b-r": b - r}
            for c, name in enumerate(names):
                out[c, h, w] = of[name]
    return out


def summed_cells(levels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(C, H, W) -> (C, rows, columns): each place the sum over its pixels."""
    num, height, width = levels.shape
    out = np.zeros((num, rows, columns), np.int64)
    for c in range(num):
        for h in range(height):
            for w in range(width):
                out[c, h * rows // height, w * columns // width] += levels[c, h, w]
    return out


def pattern_bits(levels: np.ndarray) -> np.ndarray:
    """(C, P, Q) -> (C, 8, P, Q) bool: the neighbour is not below; beyond the border its own value stands."""
    num, rows, columns = levels.shape
    out = np.zeros((num, 8, rows, columns), bool)
    for c in range(num):
        for p in range(rows):
            for q in range(columns):
                for k, (down, right) in enumerate(NEIGHBOURS):
                    neighbour = levels[c, min(max(p + down, 0), rows - 1), min(max(q + right, 0), columns - 1)]
                    out[c, k, p, q] = neighbour >= levels[c, p, q]
    return out


def codes(bits: np.ndarray) -> np.ndarray:
    """(C, 8, P, Q) -> (C, P, Q): sum of bit_k 2^k, over 255."""
    num, _, rows, columns = bits.shape
    out = np.zeros((num, rows, columns))
    for c in range(num):
        for p in range(rows):
            for q in range(columns):
                out[c, p, q] = sum(2**k for k in range(8) if bits[c, k, p, q]) / 255
    return out


def laplace(bits: int) -> float:
    """Laplace(0, 1) of one 32-bit word: lowest bit the sign, the others a uniform number."""
    uniform = ((bits >> 1) + 0.5) / 2**31
    return (1 if bits % 2 == 0 else -1) * -math.log(uniform)
