"""Secure decisions beside plain ones, on random embeddings of synthetic pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.experiments.hfcf import compare_secure_pairs
from ppfr.systems import read_protocol


def test_no_secure_decision_differs_and_every_turned_one_is_listed():
    pytest.importorskip("cryptography", reason="needs the extra 'mpc': pip install 'ppfr[mpc]'")
    protocol = read_protocol("synthetic:200")
    used = protocol.used()
    subjects = np.asarray(protocol.images.subject_ids)[used]
    rng = np.random.default_rng(1)
    of_subject = {subject: rng.standard_normal(32) for subject in sorted(set(subjects.tolist()))}
    rows = np.array([of_subject[subject] + 1.5 * rng.standard_normal(32) for subject in subjects.tolist()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    place = {index: row for row, index in enumerate(used.tolist())}
    first, second = (rows[[place[i] for i in side.tolist()]] for side in (protocol.first, protocol.second))
    found = compare_secure_pairs(protocol, first, second, fars=(0.1,), seed=1, num_resamples=50)
    json.dumps(found)
    for values in ("int8", "int16"):
        at_far = found[values]["decisions_at_far"]["0.1"]
        assert at_far["differ_from_integers_in_the_clear"] == 0
        for turned in at_far["differ_from_float"]:
            assert turned["accepted"] == (turned["score_less_threshold"] >= 0)
            assert turned["accepted"] != (turned["float_score_less_threshold"] >= 0)
            assert abs(turned["float_score_less_threshold"]) <= found[values]["largest_error"] + 1e-12
        assert found[values]["largest_error"] <= found[values]["error_bound"]
    assert found["int16"]["largest_error"] < found["int8"]["largest_error"] / 50
