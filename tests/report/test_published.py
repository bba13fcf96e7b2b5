"""Agreement of the measured order with published results, compared with a count of pairs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from ppfr.experiments.adamixup._agreement_section import Agreement, AgreementSection, agreements
from ppfr.experiments.adamixup._scores import scored_systems
from ppfr.report import RecordView, Table
from ppfr.report.sections.published import Published

Json = dict[str, Any]


def _agreements(record: Json) -> list[Agreement]:
    view = RecordView(record)
    return agreements(view, scored_systems(view))


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


def test_agreement_equals_a_count_of_pairs(mixing_record: Json, read: Any) -> None:
    accuracy, total = _agreements(mixing_record)
    arms = [system for system in mixing_record["systems"] if system["published"]]
    ours = [read.row(mixing_record, "verification", name=system["name"])["accuracy"] for system in arms]
    theirs = [system["published"][0]["value"] for system in arms]
    tau = f"{_tau_b([e['value'] for e in ours], theirs):.2f}"
    assert f"Kendall's tau is {tau} over 13 rows" in accuracy.text
    same, reverse = 0, []
    for i, j in itertools.combinations(range(13), 2):
        low, high = (i, j) if theirs[i] < theirs[j] else (j, i)
        if 0 in (i, j):  # the baseline: by the paired gap
            gap = read.row(mixing_record, "accuracy_gap", system=arms[max(i, j)]["name"])["gap"]
            same, found = same + (gap["high"] < 0), gap["low"] > 0
        else:
            same, found = same + (ours[high]["low"] > ours[low]["high"]), ours[low]["low"] > ours[high]["high"]
        if found:
            reverse.append((arms[low]["label"], arms[high]["label"]))
    assert len(reverse) == len(accuracy.reversals) > 0
    assert f"{same} are in the published order, {len(reverse)} in reverse" in accuracy.text
    for upper, lower in reverse:
        assert any(words.startswith(f"{upper} is above {lower} here") for words in accuracy.reversals)
    assert total.title == "Total score"
    assert "over 12 rows" in total.text


def test_equal_published_results_have_no_order_and_two_rows_are_too_few(mixing_record: Json) -> None:
    arms = [system for system in mixing_record["systems"] if system["published"]]
    for arm in arms:
        arm["published"][0]["value"] = 0.9
    (accuracy, _) = _agreements(mixing_record)
    assert "not defined" in accuracy.text
    assert "the 0 pairs" in accuracy.text
    for arm in arms[2:]:
        arm["published"] = []
    assert _agreements(mixing_record) == []
    assert not AgreementSection().is_shown(RecordView(mixing_record))


def test_paired_interval_distinguishes_systems_with_overlapping_intervals(mixing_record: Json, read: Any) -> None:
    """Above the baseline by the paired gap, but below it in the paper: a reversal, although accuracies overlap."""
    read.row(mixing_record, "accuracy_gap", system="mixup-2")["gap"].update(low=0.0001, value=0.0004, high=0.001)
    accuracy = _agreements(mixing_record)[0]
    assert any(words.startswith("Masking + MixUp 2 is above Unprotected here") for words in accuracy.reversals)


def test_table_has_all_published_results_and_marks_protocols_that_were_not_run(mixing_record: Json) -> None:
    another = {"measure": "total score", "value": 0.5, "source": "another paper, table 9"}
    mixing_record["systems"][1]["published"].append(another)
    table = next(b for b in Published().blocks(RecordView(mixing_record)) if isinstance(b, Table))
    assert {"Accuracy on made-cfp (not run here)", "Accuracy on made-lfw"} <= set(table.columns)
    assert {f"Share of mixup-{k}" for k in range(2, 7)} <= set(table.columns)
    shown = sum(f.main.count(";") + 1 for row in table.rows for f in row.cells if f.main != "–")
    assert shown == sum(len(system["published"]) for system in mixing_record["systems"])
    assert "another paper, table 9 (total score)" in table.caption
    for system in mixing_record["systems"]:
        system["published"] = []
    assert not Published().is_shown(RecordView(mixing_record))


@pytest.mark.parametrize(("protocol", "measure"), [("lfw", "accuracy on lfw"), ("AgeDB_30", "accuracy on agedb-30")])
def test_published_results_are_found_by_protocol_name(mixing_record: Json, protocol: str, measure: str) -> None:
    for kind in ("verification", "accuracy_gap"):
        for row in mixing_record["results"][kind]:
            row["protocol"] = protocol
    for system in mixing_record["systems"]:
        for figure in system["published"]:
            figure["measure"] = figure["measure"].replace("accuracy on made-lfw", measure)
    assert _agreements(mixing_record)[0].title == f"Accuracy on {protocol}"
