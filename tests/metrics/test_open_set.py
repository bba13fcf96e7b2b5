from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import cmc, identification_report, open_set_fnir, open_set_tpir, rank_k


def search(seed=0):
    """One reference for each of 30 people, 90 probes, 40 of them of strangers."""
    rng = np.random.default_rng(seed)
    gallery = np.arange(30)
    probes = np.concatenate([rng.integers(30, size=50), 100 + np.arange(40)])
    return rng.normal(size=(90, 30)) + 3 * (probes[:, None] == gallery), probes, gallery


def test_fnir_is_one_less_tpir_interval_and_all():
    scores, probes, gallery = search()
    tpir = open_set_tpir(scores, probes, gallery, fpirs=(0.05, 0.2), seed=1, num_resamples=60)
    fnir = open_set_fnir(scores, probes, gallery, fpirs=(0.05, 0.2), seed=1, num_resamples=60)
    for fpir, found in fnir.items():
        other = tpir[fpir]
        assert found.value == pytest.approx(1 - other.value)
        assert (found.low, found.high) == pytest.approx((1 - other.high, 1 - other.low))
        assert found.n == 50 and found.caveat == other.caveat


def test_a_report_is_its_parts_and_says_how_many():
    scores, probes, gallery = search()
    found = identification_report(scores, probes, gallery, fpirs=(0.1,), ranks=(1, 3), seed=1, num_resamples=60)
    mated = np.isin(probes, gallery)
    assert (found.num_references, found.num_mated, found.num_unmated) == (30, 50, 40)
    np.testing.assert_allclose(found.cmc_K, cmc(scores[mated], probes[mated], gallery))
    for k, value in rank_k(scores[mated], probes[mated], gallery, ranks=(1, 3), seed=1, num_resamples=60).items():
        assert found.rank[k] == value
        assert found.cmc_K[k - 1] == pytest.approx(value.value)
    stated = json.loads(json.dumps(found.to_dict()))
    assert set(stated["fnir_at_fpir"]) == {"0.1"} and len(stated["cmc"]) == 30


def test_perfect_and_hopeless_searches():
    _, probes, gallery = search()
    mate = probes[:, None] == gallery
    perfect = identification_report(mate * 1.0, probes, gallery, seed=0, num_resamples=40)
    assert perfect.fnir_at_fpir[1e-3].value == 0 and perfect.rank[1].value == 1
    constant = identification_report(np.zeros(mate.shape), probes, gallery, seed=0, num_resamples=40)
    assert constant.fnir_at_fpir[1e-2].value == 1 and constant.rank[1].value == pytest.approx(1 / 30)


def test_identification_report_rejects_invalid_input():
    scores, probes, gallery = search()
    with pytest.raises(ShapeError, match="one subject per row and per column"):
        identification_report(scores[:, :-1], probes, gallery, seed=0)
    with pytest.raises(InvalidInputError, match="no probe is without"):
        identification_report(scores[:50], probes[:50], gallery, seed=0)
    with pytest.raises(RangeError, match="at least 1"):
        identification_report(scores, probes, gallery, ranks=(0,), seed=0)
