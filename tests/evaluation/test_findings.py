"""What a record says in words: verdicts and the headline follow the printed rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ppfr.report._findings import findings, headline, identity_verdict

Json = dict[str, Any]


def _with_top1(record: Json, low: float, value: float, high: float) -> Json:
    edited = copy.deepcopy(record)
    for attack in edited["attacks"]:
        if attack["role"] == "attack":
            attack["outcome"]["linkage"]["top1"].update(low=low, value=value, high=high)
            for pairs in attack["outcome"]["pairs"]:
                pairs["accuracy"].update(low=0.5 + low / 2, value=0.5 + value / 2, high=0.5 + high / 2)
    return edited


@pytest.mark.parametrize(
    ("ends", "tone", "words"),
    [
        ((0.50, 0.55, 0.60), "bad", "does not hide who is in the picture"),
        ((0.49, 0.55, 0.60), "caution", "hides only in part"),
        ((0.003, 0.01, 0.02), "caution", "hides only in part"),
        ((0.0, 0.0025, 0.01), "good", "withstood these attacks"),
    ],
)
def test_verdicts_follow_the_printed_rules(made_record: Json, ends: tuple[float, ...], tone: str, words: str) -> None:
    record = _with_top1(made_record, *ends)
    assert identity_verdict(record, record["arms"][1])[0] == tone
    assert words in headline(record)


def test_who_tells_pairs_apart_has_found_something(made_record: Json) -> None:
    record = _with_top1(made_record, 0.0, 0.0025, 0.01)
    arm = record["arms"][1]
    pairs = next(
        a["outcome"]["pairs"][0] for a in record["attacks"] if a["arm"] == arm["name"] and a["outcome"]["pairs"]
    )
    pairs["accuracy"].update(low=0.549, value=0.57, high=0.59)
    assert identity_verdict(record, arm)[0] == "good"
    pairs["accuracy"].update(low=0.551)
    tone, words = identity_verdict(record, arm)
    assert tone == "caution" and "one tells who is the same person" in words
    assert any("57.0\u00a0% of the pairs" in finding.text for finding in findings(record))


def test_a_record_without_attacks_says_so_once(made_record: Json) -> None:
    record = copy.deepcopy(made_record)
    record["attacks"] = []
    assert headline(record).count("attacked") == 1
    assert "Nothing was attacked in this record." in headline(record)
    assert not any("attacked" in finding.title for finding in findings(record))


def test_a_good_verdict_waits_for_every_attack(made_record: Json) -> None:
    record = _with_top1(made_record, 0.0, 0.0025, 0.01)
    attacks = [a for a in record["attacks"] if a["arm"] == record["arms"][1]["name"] and a["role"] == "attack"]
    assert len(attacks) > 1
    attacks[0]["outcome"] = None
    assert identity_verdict(record, record["arms"][1])[0] == "note"
    assert "is not judged yet" in headline(record)
    attacks[1]["outcome"]["linkage"]["top1"].update(low=0.6, value=0.7, high=0.8)
    assert identity_verdict(record, record["arms"][1])[0] == "bad"


def test_a_failed_control_voids_a_good_verdict(made_record: Json) -> None:
    record = _with_top1(made_record, 0.0, 0.0025, 0.01)
    record["attacks"][0]["control"]["is_met"] = False
    assert "a control failed" in headline(record)
    assert findings(record)[0].tone == "bad"
    assert "no evidence of protection" in findings(record)[0].title


def test_headline_says_what_the_gap_is_and_whether_it_is_measurable(made_record: Json) -> None:
    assert headline(made_record).startswith("PPFR-FD costs 0.48 points of accuracy, and does not hide")
    made_record["arms"][1]["protocols"][0]["gap_to_baseline"].update(low=-0.006, value=-0.002, high=0.002)
    assert "to within what was measurable" in headline(made_record)


def test_a_wide_interval_is_not_read_as_accuracy_kept(made_record: Json) -> None:
    made_record["arms"][1]["protocols"][0]["gap_to_baseline"].update(low=-0.101, value=-0.046, high=0.0)
    assert "too little to say" in headline(made_record)
    assert "to within what was measurable" not in headline(made_record)


def test_what_recognises_nobody_is_not_praised_for_keeping_its_accuracy(made_record: Json) -> None:
    made_record["arms"][1]["protocols"][0]["accuracy"].update(low=0.46, value=0.52, high=0.58)
    assert headline(made_record).startswith("PPFR-FD does not recognise people any better than a guess")
    (found,) = [f for f in findings(made_record) if "recognise" in f.title]
    assert found.tone == "bad"


def test_a_weak_judge_or_a_failed_control_is_no_praise_for_rejected_faces(made_record: Json) -> None:
    def set_accepted(record: Json, kind: str, value: float) -> None:
        for attack in record["attacks"]:
            if attack["outcome"]["recovery"] is not None and attack["arm"] == "ppfr-fd":
                attack["outcome"]["recovery"][kind]["at_far"]["other_image"].update(
                    low=0.0, value=value, high=value + 0.01
                )

    set_accepted(made_record, "recovered", 0.0)
    assert findings(made_record)[-1].tone == "good"
    weak, void = copy.deepcopy(made_record), copy.deepcopy(made_record)
    set_accepted(weak, "original", 0.1)
    void["attacks"][4]["control"]["is_met"] = False
    assert void["attacks"][4]["role"] == "positive control"
    for record, words in ((weak, "judge rejects"), (void, "control of this attack failed")):
        assert findings(record)[-1].tone == "note"
        assert words in findings(record)[-1].text
