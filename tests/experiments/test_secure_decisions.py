"""Secure decisions compared with plain ones, on random embeddings of synthetic pairs."""

from __future__ import annotations

import numpy as np

from ppfr.experiments.hfcf import secure_decisions
from ppfr.systems import read_protocol


def test_secure_decisions_equal_integers_and_list_those_that_differ_from_float():
    protocol = read_protocol("synthetic:200")
    used = protocol.used()
    subjects = np.asarray(protocol.images.subject_ids)[used]
    rng = np.random.default_rng(1)
    of_subject = {subject: rng.standard_normal(32) for subject in sorted(set(subjects.tolist()))}
    rows = np.array([of_subject[subject] + 1.5 * rng.standard_normal(32) for subject in subjects.tolist()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    place = {index: row for row, index in enumerate(used.tolist())}
    first, second = (rows[[place[i] for i in side.tolist()]] for side in (protocol.first, protocol.second))
    formats = {f.values: f for f in secure_decisions(protocol, second, first, 1, fars=(0.1,), num_resamples=50)}
    for found in formats.values():
        (at_far,) = found.decisions
        assert at_far.num_differ_from_integers_in_the_clear == 0
        for turned in at_far.differ_from_float:
            assert turned.accepted == (turned.score_less_threshold >= 0)
            assert turned.accepted != (turned.float_score_less_threshold >= 0)
            assert abs(turned.float_score_less_threshold) <= found.largest_error + 1e-12
        assert found.largest_error <= found.error_bound
        assert [query.kind for query in found.queries] == ["verify", "any", "set", "best"]
    assert formats["int16"].largest_error < formats["int8"].largest_error / 50


def test_threshold_that_no_score_meets_is_one_that_parties_take():
    protocol = read_protocol("synthetic:40")
    same = np.tile(np.eye(1, 8), (len(protocol), 1))  # every pair has the score 1, so no finite threshold has the FAR
    (found,) = secure_decisions(protocol, same, same, 1, formats=("int16",), fars=(0.1,), num_resamples=50)
    assert [at.threshold for at in found.decisions] == [1.0]
