from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import RangeError, ShapeError
from ppfr.templates import IdentityMapping, select_key

SCHEME = IdentityMapping(dim=32)


def scripted(embedding, cosines):
    """A solver whose results have these cosines to the embedding, one after another."""
    other = np.roll(embedding, 1) - (np.roll(embedding, 1) @ embedding) * embedding
    other /= np.linalg.norm(other)
    left = iter(cosines)

    def invert(values, mapping):
        assert values.shape == (1, SCHEME.out_dim) and mapping.num_rows == 1 and mapping.is_deployed
        cosine = next(left)
        return 3.0 * (cosine * embedding + np.sqrt(1 - cosine**2) * other)[None]

    return invert


def test_the_first_key_below_the_threshold_is_kept(people):
    embedding = people(1, 32)[0][0]
    chosen = select_key(SCHEME, embedding, invert=scripted(embedding, [0.9, 0.5, 0.1, 0.0]), threshold=0.2)
    assert chosen.num_tried == 3 and chosen.is_below
    assert chosen.template.key_id == chosen.key.key_id
    assert SCHEME.probe(embedding, key=chosen.key, like=chosen.template) is not None
    assert "redacted" in repr(chosen)


def test_where_none_is_below_the_least_similar_is_kept(people):
    embedding = people(1, 32)[0][0]
    seen = []
    solver = scripted(embedding, [0.9, 0.3, 0.5])

    def invert(values, mapping):
        seen.append(values.copy())
        return solver(values, mapping)

    chosen = select_key(SCHEME, embedding, invert=invert, threshold=0.2, max_keys=3)
    assert chosen.num_tried == 3 and not chosen.is_below
    np.testing.assert_array_equal(chosen.template.values_K, seen[1][0])


def test_bad_arguments(people):
    embedding = people(1, 32)[0][0]
    with pytest.raises(RangeError, match="is no cosine"):
        select_key(SCHEME, embedding, invert=scripted(embedding, []), threshold=2.0)
    with pytest.raises(RangeError, match="try at least one"):
        select_key(SCHEME, embedding, invert=scripted(embedding, []), threshold=0.2, max_keys=0)
    with pytest.raises(ShapeError, match=r"must give \(1, 32\)"):
        select_key(SCHEME, embedding, invert=lambda values, mapping: np.zeros(32), threshold=0.2)
