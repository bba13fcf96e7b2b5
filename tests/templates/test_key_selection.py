from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import RangeError, ShapeError
from ppfr.templates import IdentityMapping, select_key

SCHEME = IdentityMapping(dim=32)


def scripted(embedding, cosines):
    """A solver whose successive results have the given cosine similarities to the embedding."""
    other = np.roll(embedding, 1) - (np.roll(embedding, 1) @ embedding) * embedding
    other /= np.linalg.norm(other)
    remaining = iter(cosines)

    def invert(values, mapping):
        assert values.shape == (1, SCHEME.out_dim) and mapping.num_rows == 1 and mapping.is_deployed
        cosine = next(remaining)
        return 3.0 * (cosine * embedding + np.sqrt(1 - cosine**2) * other)[None]

    return invert


def test_selects_the_first_key_below_the_threshold(people):
    embedding = people(1, 32)[0][0]
    chosen = select_key(SCHEME, embedding, invert=scripted(embedding, [0.9, 0.5, 0.1, 0.0]), threshold=0.2)
    assert chosen.num_tried == 3 and chosen.is_below
    assert chosen.template.key_id == chosen.key.key_id
    assert SCHEME.probe(embedding, key=chosen.key, like=chosen.template) is not None
    assert "redacted" in repr(chosen)


def test_selects_the_least_similar_if_no_key_is_below_the_threshold(people):
    embedding = people(1, 32)[0][0]
    seen = []
    solver = scripted(embedding, [0.9, 0.3, 0.5])

    def invert(values, mapping):
        seen.append(values.copy())
        return solver(values, mapping)

    chosen = select_key(SCHEME, embedding, invert=invert, threshold=0.2, max_keys=3)
    assert chosen.num_tried == 3 and not chosen.is_below
    np.testing.assert_array_equal(chosen.template.values_K, seen[1][0])


def test_invalid_arguments_are_rejected(people):
    embedding = people(1, 32)[0][0]
    with pytest.raises(RangeError, match=r"threshold=2\.0; must be a cosine"):
        select_key(SCHEME, embedding, invert=scripted(embedding, []), threshold=2.0)
    with pytest.raises(RangeError, match="max_keys=0; must be 1 or more"):
        select_key(SCHEME, embedding, invert=scripted(embedding, []), threshold=0.2, max_keys=0)
    with pytest.raises(ShapeError, match=r"shape \(32,\); it must return \(1, 32\)"):
        select_key(SCHEME, embedding, invert=lambda values, mapping: np.zeros(32), threshold=0.2)
