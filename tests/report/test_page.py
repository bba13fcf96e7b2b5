"""The page shows the figures of the record, is self-contained, and loads nothing from the network."""

from __future__ import annotations

import copy
import html
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from ppfr.assets import write_record
from ppfr.core import InvalidInputError, MissingAssetError
from ppfr.evaluation._picture_files import write_index, write_strip
from ppfr.report import MISSING, SECTIONS, Block, Entry, Figure, Prose, RecordView, Section, charts, write_report

Json = dict[str, Any]
VOID = {"meta", "img", "br", "link", "input", "hr", "line", "rect", "circle", "path", "polygon"}


class Page(HTMLParser):
    """Collects tags, ids, text, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def run_folder(made_record: Json, tmp_path: Path) -> Path:
    """The folder of a run with record and pictures."""
    write_record(made_record, tmp_path / "record.json")
    rng = np.random.default_rng(0)
    rows = []
    for kind, label in (("original", "Original"), ("seen", "What the server sees"), ("recovered", "U-Net recovery")):
        write_strip(rng.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8), tmp_path / "pictures" / f"{kind}.png")
        rows.append({"file": f"{kind}.png", "label": label, "note": "PPFR-FD", "kind": kind})
    write_index(tmp_path / "pictures", rows=rows)
    return tmp_path


def page_of(folder: Path, **options: Any) -> tuple[str, Page]:
    text = write_report(folder / "record.json", folder / "report.html", **options).read_text("utf-8")
    return text, Page(text)


def estimates(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        if {"value", "low", "high", "n"} <= value.keys():
            yield value
        for item in value.values():
            yield from estimates(item)
    elif isinstance(value, list):
        for item in value:
            yield from estimates(item)


def test_page_is_well_formed_and_accessible(run_folder: Path) -> None:
    text, page = page_of(run_folder)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        if tag == "img":
            assert "of the target subjects" in attrs["alt"]
        if tag == "th":
            assert "scope" in attrs
        if tag == "a":
            assert attrs["href"].removeprefix("#") in ids
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"])
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in ids
    assert ("html", {"lang": "en"}) in page.tags
    assert 'name="viewport"' in text
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_page_loads_nothing_from_the_network(run_folder: Path) -> None:
    text, page = page_of(run_folder)
    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "use", "image"}
        for name in ("src", "srcset", "data", "poster", "action", "background", "xlink:href"):
            assert attrs.get(name, "data:").startswith("data:image/png;base64,") or name not in attrs
        assert attrs.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S)) + "".join(a.get("style", "") for _, a in page.tags)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text


def test_charts_use_colours_of_the_page_and_ignore_matplotlib_settings(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, page = page_of(run_folder)
    drawn = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len([chart for chart in drawn if 'class="chart"' in chart]) >= 3
    css = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert css is not None
    for chart in drawn:
        assert not re.search(r"#[0-9a-f]{3}|rgb\(|\bid=", chart), "a colour that does not follow the theme, or an id"
        for name in re.findall(r"var\((--\w+)\)", chart):
            assert f"{name}:" in css[1]
    assert not {tag for tag, _ in page.tags} & {"clippath", "defs", "font", "metadata"}
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert "Re-identification rate of the strongest adversary, rank-1, %" in page.text  # text remains text
    for name, value in (("lines.linewidth", 9.0), ("font.size", 30.0), ("svg.fonttype", "path"), ("axes.grid", False)):
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    before = dict(matplotlib.rcParams)
    charts.key.cache_clear()
    assert page_of(run_folder)[0] == text
    assert dict(matplotlib.rcParams) == before


class ChartReader:
    """Reads values from a chart by its tick labels."""

    def __init__(self, svg: str) -> None:
        number = r"(-?[\d.]+)"
        ticks = re.findall(rf'text-anchor: (\w+); [^>]* x="{number}" y="{number}"[^>]*>([\d.,−e-]+)</text>', svg)
        self._x = [(float(x), float(word.replace("−", "-"))) for anchor, x, _, word in ticks if anchor == "middle"]
        self._y = [(float(y) - 4.4, float(word.replace("−", "-"))) for anchor, _, y, word in ticks if anchor == "end"]
        self.paths = [
            np.array(re.findall(rf"{number} {number}", d), float) for d in re.findall(r' d="(.*?)"', svg, re.DOTALL)
        ]
        groups = re.findall(r"<title>(.*?)</title>\s*<path d=\"(.*?)\"", svg, re.DOTALL)
        self.series = [(title, np.array(re.findall(rf"{number} {number}", d), float)) for title, d in groups]

    def x(self, places: Any, *, is_log: bool = False) -> Any:
        at, values = np.array(self._x).T
        fit = np.polynomial.Polynomial.fit(at, np.log10(values) if is_log else values, 1)
        return 10 ** fit(places) if is_log else fit(places)

    def y(self, places: Any) -> Any:
        return np.polynomial.Polynomial.fit(*np.array(self._y).T, 1)(places)


def test_trade_off_chart_draws_points_and_intervals_at_their_values() -> None:
    dots = [
        charts.Dot(x=0.4, x_low=0.1, x_high=0.7, y=0.93, y_low=0.912, y_high=0.955, series=0, label="A"),
        charts.Dot(x=0.0, x_low=0.0, x_high=0.05, y=1.0, y_low=1.0, y_high=1.0, series=5, label="$B & 'C' \"D\"$"),
    ]
    chart = ChartReader(charts.trade_off_chart(dots, x_label="x", title="t", description="d", chance=0.01))
    assert [html.unescape(title) for title, _ in chart.series] == [dot.label for dot in dots for _ in range(3)]
    for dot, drawn in zip(dots, (chart.series[:3], chart.series[3:]), strict=True):
        (across, up, mark) = (path for _, path in drawn)
        np.testing.assert_allclose(chart.x(across[:, 0]), [100 * dot.x_low, 100 * dot.x_high], atol=0.1)
        np.testing.assert_allclose(chart.y(up[:, 1]), [100 * dot.y_low, 100 * dot.y_high], atol=0.02)
        middle = (mark.min(0) + mark.max(0)) / 2
        assert chart.x(middle[0]) == pytest.approx(100 * dot.x, abs=0.1)
        assert chart.y(middle[1]) == pytest.approx(100 * dot.y, abs=0.02)
    inside = np.concatenate(chart.paths)  # nothing is clipped, so everything must be inside
    assert (inside >= 0).all()
    assert (inside <= [420, 300]).all()


def test_roc_chart_draws_its_curve_at_its_values() -> None:
    far, tar = [0.0005, 0.003, 0.08, 1.0], [0.62, 0.7, 0.95, 1.0]
    lines = [charts.Line(x=far, y=tar, series=1, label="A"), charts.Line(x=[], y=[], series=2, label="none seen")]
    svg = charts.roc_chart(lines, low=0.0005, title="t", description="d")
    Page(svg)  # an empty curve leaves the chart well-formed
    chart = ChartReader(svg)
    ((_, path),) = chart.series
    np.testing.assert_allclose(chart.x(path[:, 0], is_log=True), far, rtol=0.01)
    np.testing.assert_allclose(chart.y(path[:, 1]), 100 * np.array(tar), atol=0.2)
    inside = np.concatenate(chart.paths)
    assert (inside >= 0).all()
    assert (inside <= [420, 300]).all()


def test_page_has_every_verification_and_leakage_figure(made_record: Json, run_folder: Path) -> None:
    _, page = page_of(run_folder)
    shown = page.text.replace("\u00a0", " ")
    results = made_record["results"]
    verified = [row for row in results["verification"] if row["source"] != "attack"]
    rates = [row[key] for row in verified for key in ("accuracy", "eer")]
    rates += [e for row in verified for e in row["tar_at_far"].values()]
    rates += [row["rank_1"] for row in results["re_identification"]]
    assert len(rates) == 3 * 2 + 3 * 3 + 7
    for rate in rates:
        digits = [f"{100 * rate['value']:.{d}f} %" for d in (1, 2)]
        intervals = [f"{100 * rate['low']:.{d}f} to {100 * rate['high']:.{d}f}" for d in (1, 2)]
        assert any(text in shown for text in digits), digits
        assert any(text in shown for text in intervals), intervals
    for row in results["image_recovery"]:
        for estimate in estimates(row):
            assert any(f"{estimate['value'] * k:.{d}f}" in shown for k in (1, 100) for d in (1, 2, 3)) or (
                estimate["value"] in (0, 1)
            )
    for attack in made_record["attacks"]:
        assert attack["threat_model"]["in_words"] in shown
    for words in (
        made_record["experiment"]["command"],
        "Seed 7",
        "LFW: MS1M holds many of its celebrities",
        "made-train and made-lfw",
        "3,000 impostor comparisons cannot show FAR 0.0001",
    ):
        assert words in shown or any(words in attrs.get("title", "") for _, attrs in page.tags), words


def test_labels_in_a_record_are_escaped(made_record: Json, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    made_record["experiment"]["title"] = evil
    for system in made_record["systems"]:
        system["label"] = evil
    for attack in made_record["attacks"]:
        attack["label"] = evil
    write_record(made_record, tmp_path / "record.json")
    _, page = page_of(tmp_path)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]


def test_page_shows_faces_or_states_that_they_are_omitted(made_record: Json, run_folder: Path) -> None:
    text, page = page_of(run_folder)
    assert text.count("data:image/png;base64,") == 3
    assert "Synthetic faces" in page.text
    text, page = page_of(run_folder, with_pictures=False)
    assert "data:image" not in text
    assert "Pictures are omitted" in page.text
    made_record["experiment"]["people"] = "real"
    write_record(made_record, run_folder / "record.json")
    assert "These are real people" in page_of(run_folder)[1].text
    assert "Pictures of real people are omitted" in page_of(run_folder, with_pictures=False)[1].text


def test_report_rejects_damaged_pictures(run_folder: Path) -> None:
    index = run_folder / "pictures" / "index.json"
    whole = index.read_text()
    for damaged, value in (
        (whole.replace("seen.png", "../record.png"), r"'\.\./record\.png'"),
        (whole.replace('"rows"', '"strips"'), r"index\.json.*KeyError"),
        ("{", r"index\.json.*JSONDecodeError"),
    ):
        index.write_text(damaged)
        with pytest.raises(InvalidInputError, match=f"{value}.*--no-pictures"):
            page_of(run_folder)
    index.write_text(whole)
    (run_folder / "pictures" / "seen.png").write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(InvalidInputError, match=r"seen\.png.*--no-pictures"):
        page_of(run_folder)


def test_page_marks_partial_and_failed_records(made_record: Json, tmp_path: Path) -> None:
    partial = copy.deepcopy(made_record)
    partial["status"] = "partial"
    partial["stages"][1]["status"] = "pending"
    results = partial["results"]
    partial["results"] = {
        kind: [row for row in results[kind] if row.get("name", row.get("system")) == "unprotected"]
        for kind in ("verification", "training", "cost")
    }
    write_record(partial, tmp_path / "record.json")
    _, page = page_of(tmp_path)
    assert "1 of 2 stages have not run" in page.text
    assert "has not been attacked yet" in page.text
    assert "PPFR-FD is not measured yet." in page.text
    partial["status"] = "failed"
    partial["stages"][1].update(status="failed", error={"kind": "RangeError", "message": "loss is not finite"})
    write_record(partial, tmp_path / "record.json")
    _, page = page_of(tmp_path)
    assert f"{partial['stages'][1]['title']} failed" in page.text
    assert "RangeError: loss is not finite" in page.text


def test_several_records_share_a_page(made_record: Json, tmp_path: Path) -> None:
    for name, title in (("a", "First"), ("b", "Second")):
        made_record["experiment"]["title"] = title
        write_record(made_record, tmp_path / name / "record.json")
    text = write_report([tmp_path / "a", tmp_path / "b" / "record.json"], tmp_path / "two.html").read_text()
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert "side by side" in page.text
    assert "First" in page.text
    assert "Second" in page.text
    with pytest.raises(InvalidInputError, match=r"record_paths .*give at least one"):
        write_report([], tmp_path / "none.html")
    with pytest.raises(MissingAssetError):
        write_report(tmp_path / "c" / "record.json", tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


class _Own(Section):
    """A section from outside the package."""

    kinds = ("colour",)
    title, anchor = "Colour", "colour"
    terms = {"Hue": "An angle."}  # noqa: RUF012

    def columns(self, view: RecordView) -> Sequence[str]:
        return ["Hue of a system"]

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        row = view.row("colour", system=system["name"])
        return [MISSING if row is None else Figure(main=f"{row['hue']} degrees")]

    def blocks(self, view: RecordView) -> Iterator[Block]:
        yield Prose(text=["Measured by eye."])


def test_caller_can_add_sections(made_record: Json, tmp_path: Path) -> None:
    sections = (*SECTIONS, _Own())
    write_record(made_record, tmp_path / "record.json")
    assert 'id="colour"' not in page_of(tmp_path, sections=sections)[0]
    made_record["results"]["colour"] = [{"system": "ppfr-fd", "hue": 211}]
    made_record["schemas"]["colour"] = {}
    write_record(made_record, tmp_path / "record.json")
    text, page = page_of(tmp_path, sections=sections)
    for words in ("211 degrees", "Hue of a system", "Measured by eye.", "An angle."):
        assert words in page.text
    assert text.index('id="colour"') < text.index('id="provenance"')
    assert 'id="colour"' not in page_of(tmp_path)[0]


def test_damaged_row_raises_error_with_record_and_kind(made_record: Json, tmp_path: Path) -> None:
    sections = {"cost": "mask_images_per_s", "re_identification": "rank_1", "verification": "eer", "training": "fits"}
    for kind, field in sections.items():
        record = copy.deepcopy(made_record)
        del record["results"][kind][0][field]
        record["schemas"][kind] = {}  # a record may bring a schema that allows it
        write_record(record, tmp_path / "record.json")
        with pytest.raises(InvalidInputError, match=f"made:test.*{kind}.*{field}"):
            page_of(tmp_path)
    assert not (tmp_path / "report.html").exists()
