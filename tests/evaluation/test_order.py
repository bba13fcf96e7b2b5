"""Where the order of methods agrees with published figures: against a count by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from ppfr.report._order import agreements
from ppfr.report._reported import reported_table
from ppfr.report._scores import scored_arms

Json = dict[str, Any]


def _tau_b(ours: list[float], theirs: list[float]) -> float:
    """Kendall's tau-b, by counting pairs."""
    both = ours_tied = theirs_tied = 0
    pairs = list(itertools.combinations(range(len(ours)), 2))
    for i, j in pairs:
        a, b = (ours[i] > ours[j]) - (ours[i] < ours[j]), (theirs[i] > theirs[j]) - (theirs[i] < theirs[j])
        both += a * b
        ours_tied += a == 0
        theirs_tied += b == 0
    return both / math.sqrt((len(pairs) - ours_tied) * (len(pairs) - theirs_tied))


def test_agreement_counts_what_a_reader_would(mixing_record: Json) -> None:
    accuracy, total = agreements(mixing_record, scored_arms(mixing_record))
    arms = [arm for arm in mixing_record["arms"] if arm.get("reported")]
    ours = [arm["protocols"][0]["accuracy"] for arm in arms]
    theirs = [arm["reported"][0]["value"] for arm in arms]
    tau = f"{_tau_b([e['value'] for e in ours], theirs):.2f}"
    assert f"Kendall's tau {tau} over 13 rows" in accuracy.text
    same, reverse = 0, []
    for i, j in itertools.combinations(range(13), 2):
        low, high = (i, j) if theirs[i] < theirs[j] else (j, i)
        if 0 in (i, j):  # the baseline: by the paired gap
            gap = arms[max(i, j)]["protocols"][0]["gap_to_baseline"]
            same, found = same + (gap["high"] < 0), gap["low"] > 0
        else:
            same, found = same + (ours[high]["low"] > ours[low]["high"]), ours[low]["low"] > ours[high]["high"]
        if found:
            reverse.append((arms[low]["label"], arms[high]["label"]))
    assert len(reverse) == len(accuracy.reversals) > 0
    assert f"{same} stand in the authors' order, {len(reverse)} in the reverse" in accuracy.text
    for upper, lower in reverse:
        assert any(words.startswith(f"{upper} stands above {lower} here") for words in accuracy.reversals)
    assert total.title == "Total score"
    assert "over 12 rows" in total.text


def test_equal_published_figures_order_nothing_and_two_rows_are_too_few(mixing_record: Json) -> None:
    arms = [arm for arm in mixing_record["arms"] if arm.get("reported")]
    for arm in arms:
        arm["reported"][0]["value"] = 0.9
    (accuracy, _) = agreements(mixing_record, scored_arms(mixing_record))
    assert "not defined" in accuracy.text
    assert "Of the 0 pairs" in accuracy.text
    for arm in arms[2:]:
        arm["reported"] = []
    assert agreements(mixing_record, scored_arms(mixing_record)) == []


def test_a_paired_interval_tells_apart_what_overlapping_ones_do_not(mixing_record: Json) -> None:
    """Ours above the baseline beyond the gap's interval, theirs below: a reversal, though the accuracies overlap."""
    arm = next(a for a in mixing_record["arms"] if a["name"] == "mixup-2")
    arm["protocols"][0]["gap_to_baseline"].update(low=0.0001, value=0.0004, high=0.001)
    accuracy = agreements(mixing_record, [])[0]
    assert any(words.startswith("Masking + MixUp 2 stands above Unprotected here") for words in accuracy.reversals)


def test_the_table_holds_every_published_figure_and_says_what_was_not_run(mixing_record: Json) -> None:
    mixing_record["arms"][1]["reported"].append(
        {"measure": "total score", "value": 0.5, "source": "another paper, table 9"}
    )
    table = reported_table(mixing_record)
    assert table is not None
    columns = dict(table["columns"])
    assert columns["accuracy on made-cfp"] == "not run here"
    assert columns["accuracy on made-lfw"] == ""
    assert {f"share of mixup-{k}" for k in range(2, 7)} <= columns.keys()
    shown = sum(text.count(";") + 1 for _, texts in table["rows"] for text in texts if text != "–")
    assert shown == sum(len(arm.get("reported", [])) for arm in mixing_record["arms"])
    assert "another paper, table 9 (total score)" in table["sources"]
    slim = reported_table(mixing_record, without="share of ")
    assert slim is not None
    assert not any(measure.startswith("share") for measure, _ in slim["columns"])
    for arm in mixing_record["arms"]:
        arm.pop("reported", None)
    assert reported_table(mixing_record) is None


@pytest.mark.parametrize(("protocol", "measure"), [("lfw", "accuracy on lfw"), ("AgeDB_30", "accuracy on agedb-30")])
def test_protocols_are_found_by_their_published_names(mixing_record: Json, protocol: str, measure: str) -> None:
    for arm in mixing_record["arms"]:
        for p in arm["protocols"]:
            p["name"] = protocol
        for figure in arm.get("reported", []):
            figure["measure"] = figure["measure"].replace("accuracy on made-lfw", measure)
    assert agreements(mixing_record, [])[0].title == f"Accuracy on {protocol}"
