"""The page of a record with many arms, mixed training sets and published figures; and of the records that are kept."""

from __future__ import annotations

import copy
import html
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from ppfr.assets import write_record
from ppfr.report import _charts, write_report
from ppfr.report._drawings import rocs, trade_offs
from ppfr.report._findings import findings, headline
from ppfr.report._numbers_beside import place_numbers
from ppfr.report._reported import SHARE
from ppfr.report._shares import share_drawings, share_table
from ppfr.report._view import record_view

Json = dict[str, Any]
KEPT = [
    path
    for path in sorted((Path(__file__).parents[2] / "results").glob("*/*.json"))
    if '"schema_version"' in path.read_text("utf-8")[:200]
]


def page_of(record: Json, folder: Path) -> str:
    write_record(record, folder / "record.json")
    text = write_report(folder / "record.json", folder / "report.html").read_text("utf-8")
    return re.sub(r"\s+", " ", html.unescape(text))


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)).replace("\u00a0", " ")


def test_there_are_kept_records() -> None:
    assert {"demo-laptop", "lfw-laptop"} <= {path.stem for path in KEPT}


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_kept_records_render(path: Path, tmp_path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    page = page_of(record, tmp_path)
    reported = [figure["measure"] for arm in record["arms"] for figure in arm.get("reported", ())]
    assert ('id="published"' in page) == any(not measure.startswith(SHARE) for measure in reported)


def test_a_record_without_mixing_has_none_of_its_sections(made_record: Json, tmp_path: Path) -> None:
    page = page_of(made_record, tmp_path)
    for name in ("scores", "shares", "published"):
        assert f'id="{name}' not in page
    assert "Kendall" not in page
    assert "mixed" not in words_of(page)


def test_a_page_of_many_arms_has_every_section_and_folds_what_is_long(mixing_record: Json, tmp_path: Path) -> None:
    page = page_of(mixing_record, tmp_path)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for name in ("scores", "shares", "published"):
        assert len([i for i in ids if i.startswith(name)]) == 1
    outside = re.sub(
        r"<details>.*?</details>", "", re.sub(r"<details>(?:(?!<details>|</details>).)*</details>", "", page)
    )
    assert outside.count('<section class="adversary"') == 0
    assert page.count('<section class="adversary"') == 38
    assert "Training loss" not in outside
    assert page.count('aria-label="Training loss') > 14
    words = words_of(page)
    assert "What was found of each protection: 36 findings" in words
    assert "over the 12 protections of this record; another set gives other scores" in words
    assert "do not contain whether an adversary" in words
    assert "Score_pp" in words


def test_published_figures_are_labelled_wherever_they_stand(mixing_record: Json, tmp_path: Path) -> None:
    page = page_of(mixing_record, tmp_path)
    words = words_of(page)
    assert words.count("reported: 84.62 % (made paper, table 2)") == 2  # summary and verification
    assert words.count("reported: 0.877 (made paper, table 2)") == 1
    assert "reported: 33 % (made paper, table 2)" in words
    main = re.findall(r'<span class="main">([^<]*)', page)
    assert not any("84.62" in text or "0.877" in text for text in main)


def test_every_arm_can_be_told_from_every_other(mixing_record: Json) -> None:
    signs = [(_charts.key(s, is_line=False), _charts.key(s, is_line=True)) for s in range(14)]
    assert len({mark for mark, _ in signs}) == len({stroke for _, stroke in signs}) == 14
    for drawing in trade_offs(mixing_record):
        for number in range(1, 14):
            assert re.search(rf">{number}</text>", drawing.svg)
        assert [words.split(".")[0] for _, words in drawing.legend] == [str(n) for n in range(1, 14)]
    curves = rocs(mixing_record)
    assert [len(drawing.legend) for drawing in curves] == [6, 6, 3]
    for drawing in curves:
        assert drawing.legend[0][1] == "1. Unprotected"
        colours = [re.search(r"var\(--(s\d)\)", sign) for sign, _ in drawing.legend]
        assert len({found[1] for found in colours if found}) == len(drawing.legend)
    ticks = [re.findall(r"text-anchor: end.*?>([\d.]+)</text>", drawing.svg) for drawing in curves]
    assert ticks[0] == ticks[1] == ticks[2]


def test_few_arms_are_drawn_without_numbers(made_record: Json) -> None:
    (drawing, *_), (roc,) = trade_offs(made_record), rocs(made_record)
    assert [words for _, words in drawing.legend] == ["Unprotected", "PPFR-FD"]
    assert roc.title == "ROC on made-lfw"


def test_numbers_keep_clear_of_each_other_and_inside() -> None:
    rng = np.random.default_rng(3)
    points = [(str(i + 1), *rng.uniform((30, 96), (60, 98)).tolist()) for i in range(14)]
    axes = Figure(figsize=(420 / 72, 300 / 72), layout="constrained").subplots()
    axes.set(xlim=(0, 100), ylim=(70, 100))
    place_numbers(axes, points, colours={"ink": "k", "soft": "k", "card": "w"})
    axes.figure.draw_without_rendering()
    frame, marks = axes.get_window_extent(), axes.transData.transform([(x, y) for _, x, y in points])
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # an annotation's own holds its line too
    assert sorted(text.get_text() for text in axes.texts) == sorted(number for number, _, _ in points)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.contains(x, y) for x, y in marks)


def test_shares_are_drawn_where_they_are(mixing_record: Json) -> None:
    table = share_table(mixing_record)
    assert table is not None
    assert [heading.replace("\u00a0", " ") for heading in table["columns"]] == [f"k = {k}" for k in range(2, 7)]
    drawings = share_drawings(mixing_record)
    assert [d.title for d in drawings] == [row["label"] for row in table["rows"]]
    assert [cell.main for cell in table["rows"][2]["cells"][3:]] == ["–", "–"]
    outcome = mixing_record["arms"][3]["training"]["fits"][0]["outcome"]
    groups = re.findall(r"<title>(k.*?)</title>\s*<path d=\"(.*?)\"", drawings[2].svg, re.DOTALL)
    heights = []
    for _, path in groups:
        at = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), float)
        left, right = (at[np.isclose(at[:, 0], edge)][:, 1] for edge in (at[:, 0].min(), at[:, 0].max()))
        heights.append((np.ptp(left), np.ptp(right)))
    first, last = (np.array(side) / sum(side) for side in zip(*heights, strict=True))
    np.testing.assert_allclose(first, outcome["shares_over_time"][0], atol=0.01)
    np.testing.assert_allclose(last, outcome["shares_over_time"][-1], atol=0.01)


def test_candidates_of_one_size_are_told_apart_by_name_and_parts_by_number(mixing_record: Json) -> None:
    training = mixing_record["arms"][1]["training"]
    outcome = training["fits"][0]["outcome"]
    outcome.update(candidates=["mixup-2", "instahide-2"], num_images=[2, 2], shares=[0.4, 0.6], shares_over_time=[])
    training["fits"].append(copy.deepcopy(training["fits"][0]))
    table = share_table(mixing_record)
    assert table is not None
    assert table["columns"][:2] == ["instahide-2", "mixup-2"]
    assert [row["label"] for row in table["rows"][:2]] == [
        "2. Masking + adaptive 2-6, part 1",
        "2. Masking + adaptive 2-6, part 2",
    ]
    assert len(share_drawings(mixing_record)) == 2


def test_what_leaks_of_a_mixing_row_is_said_to_be_of_its_training_images(mixing_record: Json) -> None:
    found = {finding.title: finding.text for finding in findings(mixing_record)}
    mixed = found["Masking + MixUp 2 hides only in part who is in its mixed training images"]
    assert mixed.startswith("From one mixed training image, an adversary")
    assert "a masked image that is not mixed; what that leaks stands under Masking." in mixed
    other = next(text for title, text in found.items() if title.startswith("Plain channels, MixUp 2 does not hide"))
    assert "is not measured in this record" in other
    alone = next(
        text for title, text in found.items() if title.startswith("Masking does not hide who is in the picture")
    )
    assert alone.startswith("From one masked image, an adversary")
    assert "mixed" not in alone
    recovered = [f.text for f in findings(mixing_record) if "recovers from mixed training images of" in f.text]
    assert len(recovered) == 10
    view = record_view(mixing_record, anchor="")
    assert view.summary[1]["named_by"].endswith("mixed training images")
    assert not view.summary[10]["named_by"].endswith("mixed training images")


def test_a_mixing_row_without_masking_is_not_said_to_be_recognised_from_masked_faces(mixing_record: Json) -> None:
    arm = mixing_record["arms"][4]
    arm["masker"]["name"] = "unprotected"
    texts = [f.text for f in findings(mixing_record) if f.title.startswith(arm["label"])]
    assert texts[0].startswith("A server that sees plain faces (its training alone was mixed) decides")
    assert "a device sends the plain face" in texts[1]


def test_headline_of_many_protections_sums_up(mixing_record: Json) -> None:
    words = headline(mixing_record).replace("\u00a0", " ")
    assert words.startswith("12 protections reach from 72.40 % (Noise) to 98.80 % (Masking) accuracy on made-lfw")
    assert "Masking does not hide who is in the picture." in words
    assert "hide only in part who is in their mixed training images." in words
    for attack in mixing_record["attacks"]:
        attack["outcome"] = None
    assert "All 12 have not been attacked yet." in headline(mixing_record)
    mixing_record["attacks"] = []
    assert "All 12 are not attacked in this record." in headline(mixing_record)


def test_a_record_without_attacks_is_no_scandal(mixing_record: Json, tmp_path: Path) -> None:
    mixing_record["attacks"] = []
    words = words_of(page_of(mixing_record, tmp_path))
    assert "Nothing was attacked in this record" in words
    assert "The authors' scores" not in words
    assert "How many images were mixed" in words


def test_two_mixing_records_share_a_page(mixing_record: Json, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_record(mixing_record, tmp_path / name / "record.json")
    page = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "both.html").read_text("utf-8")
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert len([i for i in ids if i.startswith("published")]) == 2
    assert page.count("Kendall&#39;s tau</dt>") == 1
