"""The report: one self-contained HTML page from one or several result records."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2

from ppfr.assets import read_record, write_atomically
from ppfr.core import InvalidInputError, Record, kind_of
from ppfr.report._figures import MISSING
from ppfr.report._findings import IS_BROKEN_AT, RECOGNISES_FROM
from ppfr.report._pictures import read_grid
from ppfr.report._template_findings import RULES as TEMPLATE_RULES
from ppfr.report._template_view import TemplateView, template_view
from ppfr.report._view import RecordView, record_view
from ppfr.report._wording import count, listed, percent

_TONES = {"good": "✓ Holds", "caution": "! Mind", "bad": "✗ Fails", "note": "Note"}

_RULES = (
    f"A protection “does not hide who is in the picture” where the best adversary names at least "
    f"{percent(IS_BROKEN_AT)} of the victims, by the lower end of the interval; it “hides only in part” where that end "
    "lies above what guessing gets, or where one tells pairs of one person from pairs of two with at least "
    f"{percent(RECOGNISES_FROM)} by that end; otherwise it withstood these attacks, which does not show that it "
    "withstands others. Recovered faces “pass” where at least half are accepted, and “some” pass where more are than "
    "of an average face. An accuracy up to 1 point below the baseline is marked as holding, up to 5 points as to be "
    "minded. A failed control voids a good verdict."
)


def write_report(
    record_paths: Path | str | Sequence[Path | str], html_path: Path | str, *, with_pictures: bool = True
) -> Path:
    """Write one HTML page that holds everything it needs: styles, charts and pictures are in the file.

    Args:
        record_paths: a `record.json`, or the folder of a run, or several of one kind to be shown side by side.
        html_path: where the page goes; written whole or not at all.
        with_pictures: show the faces that lie in `pictures/` beside each record. With real people leave them out of
            whatever is passed on; the page then says that they were left out.

    Returns:
        `html_path`.

    Raises:
        MissingAssetError: a record is not there.
        InvalidInputError: no record was given, one is damaged, or they are of two kinds.
        StorageError: the page cannot be written.
    """
    paths = [record_paths] if isinstance(record_paths, str | Path) else list(record_paths)
    if not paths:
        raise InvalidInputError("no record was given; name at least one record.json")
    folders = [path if path.is_dir() else path.parent for path in map(Path, paths)]
    records = [read_record(Path(path)) for path in paths]
    grids = [
        read_grid(folder, record, with_pictures=with_pictures) for folder, record in zip(folders, records, strict=True)
    ]
    page = render_report(records, grids=grids)
    html_path = Path(html_path)
    with write_atomically(html_path) as temporary:
        temporary.write_text(page, "utf-8")
    return html_path


def render_report(records: Sequence[Record], *, grids: Sequence[dict[str, Any]]) -> str:
    """The page as text; `grids` are the pictures of each record, as `read_grid` gives them."""
    kinds = {kind_of(record) for record in records}
    if len(kinds) > 1:
        raise InvalidInputError(
            "records on masked images and on templates have no columns in common; write a report of each kind"
        )
    if kinds == {"templates"}:
        return _render_templates(records)
    views = [record_view(record, anchor=f"-{i}" if len(records) > 1 else "") for i, record in enumerate(records, 1)]
    return _template("report.html.j2").render(
        title=_title(views),
        views=views,
        grids={view.anchor: grid for view, grid in zip(views, grids, strict=True)},
        protocols=list(dict.fromkeys(name for view in views for name in view.protocols)),
        level=_levels(records),
        css=_asset("report.css"),
        tones=_TONES,
        missing=MISSING,
        glossary=_glossary(views),
        rules=_RULES,
        version=metadata.version("ppfr"),
    )


def _render_templates(records: Sequence[Record]) -> str:
    views = [template_view(record, anchor=f"-{i}" if len(records) > 1 else "") for i, record in enumerate(records, 1)]
    return _template("templates.html.j2").render(
        title=_title(views),
        views=views,
        level=_levels(records),
        css=_asset("report.css"),
        tones=_TONES,
        missing=MISSING,
        glossary=json.loads(_asset("template-glossary.json")),
        rules=TEMPLATE_RULES,
        version=metadata.version("ppfr"),
    )


def _levels(records: Sequence[Record]) -> str:
    levels = sorted({f"{100 * e['level']:g} %" for record in records for e in _accuracies(record)})
    return listed(levels) or "95 %"


def _glossary(views: Sequence[RecordView]) -> list[tuple[str, str]]:
    """The terms of the page; a third entry names the part of a view without which a term does not occur."""
    terms = json.loads(_asset("glossary.json"))
    return [(term, words) for term, words, *part in terms if not part or any(getattr(view, part[0]) for view in views)]


def _title(views: Sequence[RecordView] | Sequence[TemplateView]) -> str:
    titles = list(dict.fromkeys(view.record["experiment"]["title"] for view in views))
    return titles[0] if len(titles) == 1 else "Privacy and accuracy, side by side"


def _accuracies(record: Record) -> list[dict[str, Any]]:
    return [p["eer"] for arm in record["arms"] for p in arm["protocols"]]


def _asset(name: str) -> str:
    return resources.files("ppfr.report").joinpath("assets", name).read_text("utf-8")


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["count_"] = count
    environment.filters["capitalize_"] = lambda words: words[:1].upper() + words[1:]
    environment.filters["percent_"] = lambda place: percent(place / 100)
    return environment.get_template(name)
