"""Verdicts, headlines and findings of sections follow the printed rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ppfr.report import Faces, RecordView, render_report
from ppfr.report.sections.controls import Controls
from ppfr.report.sections.image_recovery import ImageRecovery
from ppfr.report.sections.re_identification import ReIdentification, verdict
from ppfr.report.sections.verification import Verification

Json = dict[str, Any]
RE_ID, VERIFIED, RECOVERED = ReIdentification(), Verification(), ImageRecovery()


def _with_rank_1(record: Json, low: float, value: float, high: float) -> Json:
    edited = copy.deepcopy(record)
    attacks = {attack["name"] for attack in edited["attacks"] if attack["role"] == "attack"}
    for row in edited["results"]["re_identification"]:
        if row["attack"] in attacks:
            row["rank_1"].update(low=low, value=value, high=high)
    for row in edited["results"]["verification"]:
        if row["name"] in attacks:
            row["accuracy"].update(low=0.5 + low / 2, value=0.5 + value / 2, high=0.5 + high / 2)
    return edited


def _verdict(record: Json) -> tuple[str, str]:
    view = RecordView(record)
    return verdict(view, view.system("ppfr-fd"))


def _without(record: Json, attack: str) -> None:
    for kind in ("attack_run", "attack_training", "re_identification", "image_recovery"):
        record["results"][kind] = [row for row in record["results"][kind] if row["attack"] != attack]


@pytest.mark.parametrize(
    ("ends", "tone", "words"),
    [
        ((0.50, 0.55, 0.60), "bad", "does not prevent re-identification"),
        ((0.49, 0.55, 0.60), "caution", "prevents re-identification only in part"),
        ((0.003, 0.01, 0.02), "caution", "prevents re-identification only in part"),
        ((0.0, 0.0025, 0.01), "good", "withstood these attacks"),
    ],
)
def test_verdict_follows_the_printed_rules(
    made_record: Json, read: Any, ends: tuple[float, float, float], tone: str, words: str
) -> None:
    record = _with_rank_1(made_record, *ends)
    assert _verdict(record)[0] == tone
    assert words in read.headline(record, RE_ID)


def test_adversary_that_distinguishes_pairs_is_a_leak(made_record: Json, read: Any) -> None:
    record = _with_rank_1(made_record, 0.0, 0.0025, 0.01)
    pairs = read.row(record, "verification", source="attack", name="link-fd-known")
    pairs["accuracy"].update(low=0.549, value=0.57, high=0.59)
    assert _verdict(record)[0] == "good"
    pairs["accuracy"].update(low=0.551)
    tone, words = _verdict(record)
    assert tone == "caution" and "pairs of one person" in words
    assert any("57.0\u00a0% of the pairs" in finding.text for finding in read.findings(record, RE_ID))


def test_headline_states_once_that_a_record_has_no_attacks(made_record: Json, read: Any) -> None:
    made_record["attacks"] = []
    assert read.headline(made_record, VERIFIED, Controls()).count("no attacks") == 1
    assert not RE_ID.is_shown(RecordView(made_record))


def test_good_verdict_waits_for_every_attack(made_record: Json, read: Any) -> None:
    record = _with_rank_1(made_record, 0.0, 0.0025, 0.01)
    _without(record, "link-fd-known")
    assert _verdict(record)[0] == "note"
    assert "has no verdict yet" in read.headline(record, RE_ID)
    read.row(record, "re_identification", attack="unet-fd-known")["rank_1"].update(low=0.6, value=0.7, high=0.8)
    assert _verdict(record)[0] == "bad"


def test_failed_control_voids_a_good_verdict(made_record: Json, read: Any) -> None:
    record = _with_rank_1(made_record, 0.0, 0.0025, 0.01)
    read.row(record, "attack_run", attack="link-plain")["is_control_met"] = False
    assert "a control failed" in read.headline(record, RE_ID)
    (found,) = read.findings(record, Controls())
    assert found.tone == "bad" and "no evidence of protection" in found.title


def test_headline_distinguishes_a_cost_no_difference_and_too_few_comparisons(made_record: Json, read: Any) -> None:
    assert read.headline(made_record, VERIFIED) == "PPFR-FD costs 0.48 points of accuracy."
    gap = made_record["results"]["accuracy_gap"][0]["gap"]
    gap.update(low=-0.006, value=-0.002, high=0.002)
    words = read.headline(made_record, VERIFIED)
    assert "no measurable difference" in words and "−0.20 points" in words
    gap.update(low=-0.101, value=-0.046, high=0.0)
    words = read.headline(made_record, VERIFIED)
    assert "too few comparisons" in words and "−4.60 points" in words and "no measurable" not in words


def test_system_at_chance_level_has_no_good_verdict_on_accuracy(made_record: Json, read: Any) -> None:
    row = read.row(made_record, "verification", name="ppfr-fd")
    row["accuracy"].update(low=0.46, value=0.52, high=0.58)
    assert read.headline(made_record, VERIFIED).startswith("PPFR-FD does not recognise people")
    (found,) = read.findings(made_record, VERIFIED)
    assert found.tone == "bad"


def test_weak_recogniser_or_failed_control_voids_the_verdict_on_rejected_faces(made_record: Json, read: Any) -> None:
    def set_accepted(record: Json, kind: str, value: float) -> None:
        for row in record["results"]["image_recovery"]:
            if row["attack"].startswith("unet-fd"):
                row[kind]["at_far"]["other_image"].update(low=0.0, value=value, high=value + 0.01)

    set_accepted(made_record, "recovered", 0.0)
    assert read.findings(made_record, RECOVERED)[-1].tone == "good"
    weak, void = copy.deepcopy(made_record), copy.deepcopy(made_record)
    set_accepted(weak, "plain", 0.1)
    read.row(void, "attack_run", attack="unet-plain")["is_control_met"] = False
    for record, words in ((weak, "recogniser rejects"), (void, "control of this attack failed")):
        assert read.findings(record, RECOVERED)[-1].tone == "note"
        assert words in read.findings(record, RECOVERED)[-1].text


def test_summary_shows_the_highest_ssim_of_any_attack(made_record: Json, read: Any) -> None:
    found = [read.row(made_record, "image_recovery", attack=f"unet-fd-{known}") for known in ("known", "unknown")]
    least_accepted = min(found, key=lambda row: row["recovered"]["at_far"]["other_image"]["value"])
    least_accepted["recovered"]["ssim"].update(low=0.93, value=0.94, high=0.95)
    view = RecordView(made_record)
    assert RECOVERED.cells(view, view.system("ppfr-fd"))[1].main == "0.94"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-0.02, -0.01, "is below"), (0.01, 0.02, "is above"), (-0.01, 0.02, "is not distinguishable from")],
)
def test_comparison_finding_follows_the_paired_interval(
    made_record: Json, read: Any, low: float, high: float, words: str
) -> None:
    gaps = made_record["results"]["accuracy_gap"]
    gaps.append({**gaps[0], "comparison": "q", "gap": {**gaps[0]["gap"], "low": low, "high": high, "value": high}})
    comparison = {"name": "q", "text": "Is it worth it?", "system": "ppfr-fd", "against": "unprotected"}
    made_record["comparisons"] = [comparison]
    (found,) = [finding for finding in read.findings(made_record, VERIFIED) if finding.title == "Is it worth it?"]
    assert f"PPFR-FD {words} " in found.text and found.tone == "note"
    del gaps[-1]
    assert all(finding.title != "Is it worth it?" for finding in read.findings(made_record, VERIFIED))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("mirrors_input", False, "image alone"),
        ("mirrors_input", True, "image also mirrored by the recogniser"),
        # Records that were written before a mirror image had to come from the same masked image.
        ("adds_mirrored", False, "image alone"),
        ("adds_mirrored", True, "two masked images"),
    ],
)
def test_accuracies_state_the_test_time_protocol(setting: str, value: bool, words: str, made_record: Json) -> None:
    made_record["experiment"]["config"][setting] = value
    page = render_report([made_record], grids=[Faces(rows=(), note="")])
    assert f"Accuracy on made-lfw, {words}" in page and "Test-time protocol:" in page


def test_accuracies_under_two_test_time_protocols_are_in_two_columns(made_record: Json) -> None:
    other = copy.deepcopy(made_record)
    made_record["experiment"]["config"]["adds_mirrored"] = True
    other["experiment"]["config"]["mirrors_input"] = False
    page = render_report([made_record, other], grids=[Faces(rows=(), note="")] * 2)
    assert "made-lfw, image alone" in page and "made-lfw, two masked images" in page


def test_two_masked_images_are_said_to_overstate_accuracy(made_record: Json) -> None:
    made_record["experiment"]["config"]["adds_mirrored"] = True
    assert "overstated" in RecordView(made_record).embedded_in_words()
    for system in made_record["systems"]:  # the recogniser mirrored plain images itself; nothing was masked
        system["masker"] = None
    assert "overstated" not in RecordView(made_record).embedded_in_words()
