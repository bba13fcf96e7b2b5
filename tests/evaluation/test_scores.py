"""AdaMixUp's scores from a record: which figures they are made of, and when there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ppfr.report._score_table import score_table
from ppfr.report._scores import chosen_attack, scored_arms

Json = dict[str, Any]


def _attack(record: Json, name: str) -> Json:
    return next(attack for attack in record["attacks"] if attack["name"] == name)


def test_scores_are_those_of_the_equations(mixing_record: Json) -> None:
    rows = scored_arms(mixing_record)
    protected = [arm for arm in mixing_record["arms"] if arm["role"] == "protected"]
    assert [row.arm["name"] for row in rows] == [arm["name"] for arm in protected]
    baseline = mixing_record["arms"][0]["protocols"][0]["accuracy"]["value"]
    fused, utility = [], []
    for arm in protected:
        recovery = _attack(mixing_record, f"gan-{arm['name']}")["outcome"]["recovery"]
        shown, recovered = recovery["masked"], recovery["recovered"]
        s1, s3 = (part["lpips"]["value"] for part in (shown, recovered))
        s2, s4 = (1 - part["identity_cosine"]["value"] for part in (shown, recovered))
        fused.append(0.4 * (s1 + s2) + 0.6 * (s3 + s4))
        utility.append(arm["protocols"][0]["accuracy"]["value"] / baseline)
    pp, cls = ((np.array(v) - min(v)) / (max(v) - min(v)) / 2 + 0.5 for v in (fused, utility))
    for row, privacy, accuracy in zip(rows, pp, cls, strict=True):
        assert row.score.total_mean == pytest.approx((privacy + accuracy) / 2)
        assert row.score.total_product == pytest.approx(privacy * accuracy)
        low, high = row.total_ends
        assert low < row.score.total_mean < high


def test_measures_keep_their_intervals_the_right_way_round(mixing_record: Json) -> None:
    row = scored_arms(mixing_record)[0]
    recovery = _attack(mixing_record, f"gan-{row.arm['name']}")["outcome"]["recovery"]
    cosine, gap = recovery["recovered"]["identity_cosine"], row.arm["protocols"][0]["gap_to_baseline"]
    s4, s5 = row.measures[3], row.measures[4]
    assert (s4.low, s4.value, s4.high) == (1 - cosine["high"], 1 - cosine["value"], 1 - cosine["low"])
    assert s5.low == pytest.approx(1 + gap["low"] / 0.9882)
    assert s5.low is not None
    assert s5.high is not None
    assert s5.low < s5.value < s5.high


def test_the_attack_with_the_secret_counts_and_of_several_without_none(mixing_record: Json) -> None:
    arm = next(a for a in mixing_record["arms"] if a["name"] == "masking")
    known = _attack(mixing_record, "gan-masking")
    without = {**known, "name": "gan-masking-unknown", "secret": "unknown"}
    mixing_record["attacks"].insert(0, without)
    assert chosen_attack(mixing_record, arm, "conditional-gan") is known
    known["secret"] = "none"
    assert chosen_attack(mixing_record, arm, "conditional-gan") is None
    mixing_record["attacks"].remove(known)
    assert chosen_attack(mixing_record, arm, "conditional-gan") is without
    assert chosen_attack(mixing_record, arm, "another") is None


def test_a_protection_without_all_measures_leaves_the_set_and_the_page_says_so(mixing_record: Json) -> None:
    lost = ["adaptive-2-6", "mixup-2", "noise"]
    _attack(mixing_record, f"gan-{lost[0]}")["outcome"]["recovery"]["masked"]["lpips"] = None
    del _attack(mixing_record, f"gan-{lost[1]}")["outcome"]["recovery"]["masked"]
    next(a for a in mixing_record["arms"] if a["name"] == lost[2])["protocols"] = []
    rows = scored_arms(mixing_record)
    assert len(rows) == 9
    assert not set(lost) & {row.arm["name"] for row in rows}
    assert rows[0].score.compared == tuple(row.arm["name"] for row in rows)
    table = score_table(mixing_record, rows)
    assert table is not None
    assert "over the 9 of this record's 12 protections" in " ".join(table["words"])


def test_one_protection_has_no_scores(mixing_record: Json) -> None:
    for attack in mixing_record["attacks"]:
        if attack["method"] == "conditional-gan" and attack["arm"] != "masking":
            attack["outcome"] = None
    assert scored_arms(mixing_record) == []
    assert score_table(mixing_record, []) is None


def test_linkage_stands_beside_the_scores_and_not_in_them(mixing_record: Json) -> None:
    before = score_table(mixing_record, scored_arms(mixing_record))
    _attack(mixing_record, "link-masking")["outcome"]["linkage"]["top1"].update(value=0.01, low=0.0, high=0.02)
    after = score_table(mixing_record, scored_arms(mixing_record))
    assert before is not None
    assert after is not None
    assert after["columns"][-1] == "Identity linkage, top-1"
    for old, new in zip(before["rows"], after["rows"], strict=True):
        assert old["cells"][:-1] == new["cells"][:-1]
    assert before["rows"][9]["cells"][-1].main != after["rows"][9]["cells"][-1].main
