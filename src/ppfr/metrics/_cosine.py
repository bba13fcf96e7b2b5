"""Cosine of embeddings of any length.

Suffixes: N rows, D embedding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ppfr.core import RangeError, ShapeError
from ppfr.metrics._estimate import Floats
from ppfr.metrics._inputs import finite_scores


def normalised_rows(embeddings: ArrayLike, what: str) -> Floats:
    array_ND = finite_scores(embeddings, what, num_axes=2)
    length_N1 = np.linalg.norm(array_ND, axis=1, keepdims=True)
    if not (length_N1 > 0).all():
        raise RangeError(
            f"{int((length_N1 == 0).sum())} rows of {what} are zero; an embedding needs a direction: remove them"
        )
    return np.asarray(array_ND / length_N1)


def identity_cosine(embeddings_a_ND: ArrayLike, embeddings_b_ND: ArrayLike) -> Floats:
    """Cosine between the embeddings of each pair of images, such as an original and the image recovered from it.

    Args:
        embeddings_a_ND: (N, D); any length except zero, because rows are normalised here.
        embeddings_b_ND: (N, D).

    Returns:
        (N,) in [-1, 1]; use `mean_with_interval` for a mean with interval.

    Raises:
        ShapeError: the shapes differ.
        RangeError: values are not finite, or rows are zero.
    """
    a_ND, b_ND = normalised_rows(embeddings_a_ND, "embeddings_a"), normalised_rows(embeddings_b_ND, "embeddings_b")
    if a_ND.shape != b_ND.shape:
        raise ShapeError(f"embeddings have shapes {a_ND.shape} and {b_ND.shape}; they must be equal")
    return np.asarray(np.clip(np.einsum("nd,nd->n", a_ND, b_ND), -1.0, 1.0))
