"""Attacks without training in the section on re-identification: table, worst case and verdict."""

from __future__ import annotations

from typing import Any

import pytest

from ppfr.report import Faces, RecordView, render_report
from ppfr.report.sections.re_identification import ReIdentification, verdict
from support import made_records

RE_ID = ReIdentification()


def _made(*, trained: float = 0.0025, looked_up: dict[int, float] | None = None, same: dict[int, float] | None = None):
    made = made_records.Builder()
    made.system("unprotected", "Unprotected", "baseline", [3, 112, 112], 0.9937)
    made.system("ppfr-fd", "PPFR-FD", "protected", [36, 28, 28], 0.9889)
    made.attack("unet-fd", "U-Net recovery", "ppfr-fd", rank_1=trained, secret="known", ssim=0.3)
    if looked_up:
        made.gallery_attack("enrolment-fd", "Enrolment attack", "ppfr-fd", rank_1=looked_up)
    if same:
        made.gallery_attack("filter-fd", "Matched filter", "ppfr-fd", rank_1=same, photo="same photo")
    return made.record()


def _verdict(record: Any) -> tuple[str, str]:
    view = RecordView(record)
    return verdict(view, view.system("ppfr-fd"))


def _finding(record: Any, read: Any) -> str:
    (finding,) = read.findings(record, RE_ID)
    return str(finding.text).replace("\u00a0", " ")


def test_worst_case_is_over_all_attacks_and_numbers_of_observations(read: Any) -> None:
    record = _made(trained=0.37, looked_up={1: 0.52, 16: 0.74})
    assert _verdict(record) == ("bad", "does not prevent re-identification")
    text = _finding(record, read)
    assert "From 16 masks of one image" in text and "Enrolment attack" in text and "74.0 %" in text
    (cell,) = RE_ID.cells(RecordView(record), read.system(record, "ppfr-fd"))
    assert "74.0" in cell.main.replace("\u00a0", " ") and "16 masks of one image" in str(cell)
    assert "does not prevent" in read.headline(record, RE_ID)


def test_stronger_trained_attack_remains_the_worst_case(read: Any) -> None:
    text = _finding(_made(trained=0.82, looked_up={1: 0.52}), read)
    assert "From one masked image" in text and "U-Net recovery" in text


@pytest.mark.parametrize(
    ("looked_up", "same", "found"),
    [
        ({1: 0.0025}, {1: 0.0025}, ("good", "withstood")),
        ({1: 0.0025}, {1: 0.858, 4: 1.0}, ("bad", "does not hide which photo was masked")),
        ({1: 0.30}, {1: 0.858}, ("bad", "does not hide which photo was masked")),
        ({1: 0.30}, {1: 0.0025}, ("caution", "prevents re-identification only in part")),
        ({1: 0.95}, {1: 1.0}, ("bad", "does not prevent re-identification")),
    ],
)
def test_verdict_counts_the_matched_filter(looked_up: Any, same: Any, found: tuple[str, str], read: Any) -> None:
    record = _made(looked_up=looked_up, same=same)
    for row in record["results"]["verification"]:
        if row["source"] == "attack":
            row["accuracy"].update(low=0.5, value=0.5, high=0.5)
    for kind in ("re_identification", "gallery_attack"):
        for row in record["results"][kind]:
            if row["rank_1"]["value"] == 0.0025:
                row["rank_1"]["low"] = 0.0
    tone, words = _verdict(record)
    assert tone == found[0] and words.startswith(found[1])


def test_same_photo_is_not_a_re_identification_rate(read: Any) -> None:
    """The gallery of the matched filter holds the masked photo itself, so its rate is another question."""
    record = _made(trained=0.4, same={1: 0.858})
    (cell,) = RE_ID.cells(RecordView(record), read.system(record, "ppfr-fd"))
    assert "40.0" in cell.main
    assert "picks the masked photo itself among 400 for 85.8 %" in _finding(record, read)


def test_verdict_waits_for_attacks_without_training() -> None:
    record = _made(looked_up={1: 0.0025})
    record["results"].pop("gallery_attack")
    record["results"]["re_identification"][0]["rank_1"]["low"] = 0.0
    record["results"]["verification"][-1]["accuracy"].update(low=0.5, value=0.5, high=0.5)
    assert "have not run" in _verdict(record)[1]


def test_table_names_level_observations_and_gallery() -> None:
    record = _made(looked_up={1: 0.52, 16: 0.74}, same={1: 0.858})
    page = render_report([record], grids=[Faces(rows=(), note="")]).replace("\u00a0", " ")
    for words in ("Attacks without training", "trivial", "16 masks of one image", "another photo", "same photo"):
        assert words in page


def test_records_without_such_attacks_have_no_table(made_record: Any) -> None:
    assert "Attacks without training" not in "".join(
        getattr(block, "title", "") for block in RE_ID.blocks(RecordView(made_record))
    )
