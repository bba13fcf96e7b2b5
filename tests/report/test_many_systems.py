"""Pages of a record with many systems, mixed training sets and published results; pages of the committed records."""

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
from ppfr.core import row_schema
from ppfr.experiments.adamixup import SECTIONS as ADAMIXUP
from ppfr.report import SECTIONS, Charts, Drawing, Finding, RecordView, Table, charts, write_report
from ppfr.report._number_labels import place_numbers
from ppfr.report.sections.image_recovery import ImageRecovery
from ppfr.report.sections.re_identification import ReIdentification
from ppfr.report.sections.verification import Verification, rocs
from support import made_records

Json = dict[str, Any]
COMMITTED = [
    path
    for path in sorted((Path(__file__).parents[2] / "results").glob("*/*.json"))
    if '"schema_version"' in path.read_text("utf-8")[:200]
]


def page_of(record: Json, folder: Path) -> str:
    write_record(record, folder / "record.json")
    sections = (*SECTIONS, *ADAMIXUP)
    text = write_report(folder / "record.json", folder / "report.html", sections=sections).read_text("utf-8")
    return re.sub(r"\s+", " ", html.unescape(text))


def trade_offs(record: Json) -> list[Drawing]:
    view = RecordView(record)
    return [drawing for section in SECTIONS for drawing in section.charts(view)]


def shares_of(record: Json) -> tuple[Table, list[Drawing]]:
    blocks = list(ADAMIXUP[1].blocks(RecordView(record)))
    (table,) = [block for block in blocks if isinstance(block, Table)]
    return table, [drawing for block in blocks if isinstance(block, Charts) for drawing in block.drawings]


def findings(record: Json) -> list[Finding]:
    view = RecordView(record)
    of_sections = [f for s in (Verification(), ReIdentification(), ImageRecovery()) for f in s.findings(view)]
    order = [system["name"] for system in record["systems"]]
    return sorted(of_sections, key=lambda finding: order.index(finding.system))


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)).replace("\u00a0", " ")


def test_there_are_committed_records() -> None:
    assert {"demo-laptop", "lfw-laptop"} <= {path.stem for path in COMMITTED}


@pytest.mark.slow
@pytest.mark.parametrize("path", COMMITTED, ids=[path.stem for path in COMMITTED])
def test_committed_records_render(path: Path, tmp_path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    page = page_of(record, tmp_path)
    assert ('id="published"' in page) == any(system["published"] for system in record["systems"])


def test_a_record_without_mixing_has_none_of_its_sections(made_record: Json, tmp_path: Path) -> None:
    page = page_of(made_record, tmp_path)
    for name in ("adamixup-scores", "adamixup-shares", "published"):
        assert f'id="{name}' not in page
    assert "Kendall" not in page
    assert "mixed training images" not in words_of(page)


@pytest.fixture(scope="module")
def mixing_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the mixing record, rendered once."""
    return page_of(made_records.mixing_record(), tmp_path_factory.mktemp("mixing"))


def test_page_of_many_systems_has_every_section_and_folds_long_ones(mixing_page: str) -> None:
    page = mixing_page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for name in ("adamixup-scores", "adamixup-shares", "published"):
        assert len([i for i in ids if i.startswith(name)]) == 1
    outside = re.sub(
        r"<details>.*?</details>", "", re.sub(r"<details>(?:(?!<details>|</details>).)*</details>", "", page)
    )
    assert outside.count('<section class="box"') == 0
    assert page.count('<section class="box"') == 38
    assert "Training loss" not in outside
    assert page.count('aria-label="Training loss') > 14
    words = words_of(page)
    assert "Findings on each system: 36 findings" in words
    assert "over the 12 protected systems of this record" in words
    assert "Score_pp" in words


def test_published_results_are_labelled_everywhere(mixing_page: str) -> None:
    page = mixing_page
    words = words_of(page)
    assert words.count("published: 84.62 % (made paper, table 2)") == 2  # summary and verification
    assert words.count("published: 0.877 (made paper, table 2)") == 1
    assert "published: 33 % (made paper, table 2)" in words
    main = re.findall(r'<span class="main">([^<]*)', page)
    assert not any("84.62" in text or "0.877" in text for text in main)


def test_legend_keys_of_all_systems_differ(mixing_record: Json) -> None:
    signs = [(charts.key(s, is_line=False), charts.key(s, is_line=True)) for s in range(14)]
    assert len({mark for mark, _ in signs}) == len({stroke for _, stroke in signs}) == 14
    for drawing in trade_offs(mixing_record):
        for number in range(1, 14):
            assert re.search(rf">{number}</text>", drawing.svg)
        assert [words.split(".")[0] for _, words in drawing.legend] == [str(n) for n in range(1, 14)]
    curves = list(rocs(RecordView(mixing_record), "made-lfw", ""))
    assert [len(drawing.legend) for drawing in curves] == [6, 6, 3]
    for drawing in curves:
        assert drawing.legend[0][1] == "1. Unprotected"
        colours = [re.search(r"var\(--(s\d)\)", sign) for sign, _ in drawing.legend]
        assert len({found[1] for found in colours if found}) == len(drawing.legend)
    ticks = [re.findall(r"text-anchor: end.*?>([\d.]+)</text>", drawing.svg) for drawing in curves]
    assert ticks[0] == ticks[1] == ticks[2]


def test_few_systems_are_drawn_without_numbers(made_record: Json) -> None:
    (drawing, *_), (roc,) = trade_offs(made_record), rocs(RecordView(made_record), "made-lfw", "")
    assert [words for _, words in drawing.legend] == ["Unprotected", "PPFR-FD"]
    assert roc.title == "ROC on made-lfw"


def test_number_labels_do_not_overlap_and_stay_inside_the_frame() -> None:
    rng = np.random.default_rng(3)
    points = [(str(i + 1), *rng.uniform((30, 96), (60, 98)).tolist()) for i in range(14)]
    axes = Figure(figsize=(420 / 72, 300 / 72), layout="constrained").subplots()
    axes.set(xlim=(0, 100), ylim=(70, 100))
    place_numbers(axes, points, colours={"ink": "k", "soft": "k", "card": "w"})
    axes.figure.draw_without_rendering()
    frame, marks = axes.get_window_extent(), axes.transData.transform([(x, y) for _, x, y in points])
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # the extent of an annotation includes its line
    assert sorted(text.get_text() for text in axes.texts) == sorted(number for number, _, _ in points)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.contains(x, y) for x, y in marks)


def test_shares_chart_draws_shares_at_their_values(mixing_record: Json) -> None:
    table, drawings = shares_of(mixing_record)
    assert [heading.replace("\u00a0", " ") for heading in table.columns] == [f"k = {k}" for k in range(2, 7)]
    assert [d.title for d in drawings] == [row.label for row in table.rows]
    assert [cell.main for cell in table.rows[2].cells[3:]] == ["–", "–"]
    outcome = mixing_record["results"]["training"][3]["fits"][0]["outcome"]
    groups = re.findall(r"<title>(k.*?)</title>\s*<path d=\"(.*?)\"", drawings[2].svg, re.DOTALL)
    heights = []
    for _, path in groups:
        at = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), float)
        left, right = (at[np.isclose(at[:, 0], edge)][:, 1] for edge in (at[:, 0].min(), at[:, 0].max()))
        heights.append((np.ptp(left), np.ptp(right)))
    first, last = (np.array(side) / sum(side) for side in zip(*heights, strict=True))
    np.testing.assert_allclose(first, outcome["shares_over_time"][0], atol=0.01)
    np.testing.assert_allclose(last, outcome["shares_over_time"][-1], atol=0.01)


def test_candidates_of_one_size_are_named_and_parts_are_numbered(mixing_record: Json) -> None:
    training = mixing_record["results"]["training"][1]
    outcome = training["fits"][0]["outcome"]
    outcome.update(candidates=["mixup-2", "instahide-2"], num_images=[2, 2], shares=[0.4, 0.6], shares_over_time=[])
    training["fits"].append(copy.deepcopy(training["fits"][0]))
    table, drawings = shares_of(mixing_record)
    assert table.columns[:2] == ["instahide-2", "mixup-2"]
    assert [row.label for row in table.rows[:2]] == [
        "2. Masking + adaptive 2-6, part 1",
        "2. Masking + adaptive 2-6, part 2",
    ]
    assert len(drawings) == 2


def test_leakage_of_a_mixing_system_is_labelled_as_of_its_training_images(mixing_record: Json) -> None:
    found = {finding.title: finding.text for finding in findings(mixing_record)}
    mixed = found["Masking + MixUp 2 prevents re-identification from its mixed training images only in part"]
    assert mixed.startswith("From one mixed training image, an adversary")
    assert "not mixed" in mixed and mixed.endswith("is shown under Masking.")
    other = next(text for title, text in found.items() if title.startswith("Plain channels, MixUp 2 does not prevent"))
    assert other.endswith("is not measured in this record.")
    alone = next(text for title, text in found.items() if title == "Masking does not prevent re-identification")
    assert alone.startswith("From one masked image, an adversary")
    assert "mixed" not in alone
    recovered = [f.text for f in findings(mixing_record) if "recovers from mixed training images of" in f.text]
    assert len(recovered) == 10
    view = RecordView(mixing_record)
    cells = {name: ReIdentification().cells(view, view.system(name))[0] for name in ("adaptive-2-6", "masking")}
    assert cells["adaptive-2-6"].notes[0].endswith("mixed training images")
    assert not cells["masking"].notes[0].endswith("mixed training images")


def test_people_in_mixtures_count_whoever_of_them_is_found(mixing_record: Json, tmp_path: Path) -> None:
    """Records from before say that only the first person counts; with averaged epochs, the common subject counts."""
    assert "Only the first person of each mixture counts" in next(
        f.text for f in findings(mixing_record) if f.title.startswith("Masking + MixUp 2 prevents")
    )
    made = made_records.Builder()
    made.mixtures("link-mixup-2", anybody=0.8)
    made.mixtures("link-mixup-3", anybody=0.9, num_epochs=6)
    mixing_record["results"] |= made.results
    mixing_record["schemas"] |= {kind: dict(row_schema(made_records.ROW_TYPES[kind])) for kind in made.results}
    found = {f.system: f for f in findings(mixing_record) if "re-identification from" in f.title}
    assert found["mixup-2"].title.endswith("does not prevent re-identification from its mixed training images")
    assert "finds somebody who is in it in 80.0" in found["mixup-2"].text and "0.50" in found["mixup-2"].text
    assert "first person" not in found["mixup-2"].text
    assert "average of 6 mixed training images" in found["mixup-3"].text and "44.0" in found["mixup-3"].text
    view = RecordView(mixing_record)
    assert ReIdentification().cells(view, view.system("mixup-2"))[0].main.startswith("80.0")
    table = next(block for block in ReIdentification().blocks(view) if isinstance(block, Table))
    assert table.columns == ["Anybody in the mixture", "Heaviest", "The k among the k best"]
    assert [cell.main[:4] for cell in table.rows[0].cells] == ["80.0", "40.0", "60.0"]
    assert [cell.notes[0][-6:-2] for cell in table.rows[0].cells] == ["0.50", "0.25", "0.50"]
    assert "12.0 people" in table.rows[1].note and "6 epochs" in table.rows[1].note
    assert "Who is in a mixed training image" in page_of(mixing_record, tmp_path)


def test_a_mixing_system_with_the_masker_of_its_baseline_sees_plain_faces(mixing_record: Json) -> None:
    system = mixing_record["systems"][4]
    system["masker"] = mixing_record["systems"][0]["masker"]
    texts = [f.text for f in findings(mixing_record) if f.title.startswith(system["label"])]
    assert texts[0].startswith("A server that sees plain faces")
    assert "a device sends the plain face" in texts[1]


def test_headline_of_many_systems_is_a_summary(mixing_record: Json, read: Any) -> None:
    words = read.headline(mixing_record, Verification())
    assert "12 protected systems on made-lfw is 72.40 % (Noise) to 98.80 % (Masking)" in words
    words = read.headline(mixing_record, ReIdentification())
    assert "Masking does not prevent re-identification." in words
    assert "prevent re-identification from their mixed training images only in part." in words
    mixing_record["results"]["re_identification"] = []
    assert "All 12 have not been attacked yet." in read.headline(mixing_record, ReIdentification())


def test_a_record_without_attacks_renders_its_other_sections(mixing_record: Json, tmp_path: Path) -> None:
    record = with_first_systems(mixing_record, 4)
    record["attacks"] = []
    kinds = ("training", "verification", "accuracy_gap", "cost")
    record["results"] = {kind: record["results"][kind] for kind in kinds}
    page = page_of(record, tmp_path)
    assert "This record has no attacks." in words_of(page)
    assert 'id="adamixup-scores' not in page
    assert 'id="adamixup-shares' in page


def with_first_systems(record: Json, num: int) -> Json:
    """The record with the first systems alone, which renders faster."""
    small = copy.deepcopy(record)
    small["systems"] = small["systems"][:num]
    names = {system["name"] for system in small["systems"]}
    small["attacks"] = [attack for attack in small["attacks"] if attack["system"] in names]
    names |= {attack["name"] for attack in small["attacks"]} | {each["name"] for each in small["recognisers"]}
    for kind, rows in small["results"].items():
        small["results"][kind] = [
            row for row in rows if row.get("name", row.get("system", row.get("attack", row.get("recogniser")))) in names
        ]
    return small


def test_two_mixing_records_share_a_page(mixing_record: Json, tmp_path: Path) -> None:
    record = with_first_systems(mixing_record, 4)
    for name in ("a", "b"):
        write_record(record, tmp_path / name / "record.json")
    records, sections = [tmp_path / "a", tmp_path / "b"], (*SECTIONS, *ADAMIXUP)
    page = write_report(records, tmp_path / "both.html", sections=sections).read_text("utf-8")
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert len([i for i in ids if i.startswith("published")]) == 2
    assert page.count("Kendall&#39;s tau</dt>") == 1
