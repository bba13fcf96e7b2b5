"""The report: one self-contained HTML page from one or several result records."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, TypeVar

import jinja2

from ppfr.assets import read_record, write_atomically
from ppfr.core import InvalidInputError, PpfrError, Record
from ppfr.report._blocks import Block, Drawing, Faces, Finding, Row, Table
from ppfr.report._figures import MISSING, Figure
from ppfr.report._pictures import read_grid
from ppfr.report._record_view import RecordView
from ppfr.report._section import Section
from ppfr.report._wording import count, listed, percent
from ppfr.report.sections import SECTIONS

_TONES = {"good": "✓ Holds", "caution": "! Mind", "bad": "✗ Fails", "note": "Note"}
_MAX_FINDINGS = 12

Item = TypeVar("Item")


def write_report(
    record_paths: Path | str | Sequence[Path | str],
    html_path: Path | str,
    *,
    with_pictures: bool = True,
    sections: Sequence[Section] = SECTIONS,
) -> Path:
    """Write one HTML page that needs no other file: it contains its styles, charts and pictures.

    Args:
        record_paths: a `record.json` or the folder of a run. Several are shown on one page.
        html_path: the file to write. It is written completely or not at all.
        with_pictures: show the faces in the folder `pictures/` next to each record. Omit pictures of real people from
            pages that are passed on. The page then states that they are omitted.
        sections: sections of the page; add your own to `SECTIONS`.

    Returns:
        `html_path`.

    Raises:
        MissingAssetError: a record does not exist.
        InvalidInputError: no record was given, or a record is damaged.
        StorageError: the page cannot be written.
    """
    paths = [record_paths] if isinstance(record_paths, str | Path) else list(record_paths)
    if not paths:
        raise InvalidInputError("record_paths is empty; give at least one record.json or the folder of a run")
    folders = [path if path.is_dir() else path.parent for path in map(Path, paths)]
    records = [read_record(Path(path)) for path in paths]
    grids = [
        read_grid(folder, record, with_pictures=with_pictures) for folder, record in zip(folders, records, strict=True)
    ]
    page = render_report(records, grids=grids, sections=sections)
    html_path = Path(html_path)
    with write_atomically(html_path) as temporary:
        temporary.write_text(page, "utf-8")
    return html_path


def render_report(records: Sequence[Record], *, grids: Sequence[Faces], sections: Sequence[Section] = SECTIONS) -> str:
    """The page as text.

    Args:
        records: checked records.
        grids: the pictures of each record, as returned by `read_grid`.
        sections: sections of the page. Background sections come last.

    Raises:
        InvalidInputError: a section cannot render the rows of a record.
    """
    sections = sorted(sections, key=lambda section: section.is_background)
    pages = [
        _record_page(RecordView(record, pictures=grid), sections, suffix=f"-{i}" if len(records) > 1 else "")
        for i, (record, grid) in enumerate(zip(records, grids, strict=True), 1)
    ]
    used = [section for section in sections if any(section in page.shown for page in pages)]
    titles = list(dict.fromkeys(page.title for page in pages))
    return _template().render(
        title=titles[0] if len(titles) == 1 else "Privacy and accuracy, side by side",
        pages=pages,
        summary=_summary(pages, used),
        level=_levels(records),
        css=_asset("report.css"),
        tones=_TONES,
        terms=dict(term for section in used for term in section.terms.items()),
        rules=list(dict.fromkeys(section.rules for section in used if section.rules)),
        version=metadata.version("ppfr"),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """A section of one record, rendered to blocks."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _RecordPage:
    """Content of the page for one record. `rows` has the summary cells of each system by section and column."""

    view: RecordView
    suffix: str
    shown: Sequence[Section]
    headline: str
    findings: Sequence[Finding]
    folded_findings: Sequence[Finding]
    facts: Sequence[tuple[str, str]]
    charts: Sequence[Drawing]
    columns: Mapping[str, Sequence[str]]
    rows: Sequence[tuple[Row, Mapping[tuple[str, str], Figure]]]
    bodies: Sequence[_Body]

    @property
    def title(self) -> str:
        """Title of the experiment."""
        return str(self.view["experiment"]["title"])

    @property
    def summary(self) -> str:
        """Summary of the experiment."""
        return str(self.view["experiment"]["summary"])


def _record_page(view: RecordView, sections: Sequence[Section], *, suffix: str) -> _RecordPage:
    shown = [section for section in sections if _is_shown(section, view)]

    def collected(items_of: Callable[[Section], Iterable[Item]]) -> list[Item]:
        found: list[Item] = []
        for section in shown:
            with _damage_named(section, view):
                found += items_of(section)
        return found

    of_record, of_systems = _sorted_findings(view, collected(lambda section: section.findings(view)))
    is_long = len(of_systems) > _MAX_FINDINGS
    bodies = [
        _Body(id=f"{section.anchor}{suffix}", title=section.title, blocks=blocks)
        for section in shown
        if (blocks := _blocks(section, view))
    ]
    return _RecordPage(
        view=view,
        suffix=suffix,
        shown=shown,
        headline=" ".join(collected(lambda section: section.headline(view))) or "Nothing has been measured yet.",
        findings=of_record if is_long else [*of_record, *of_systems],
        folded_findings=of_systems if is_long else [],
        facts=collected(lambda section: section.facts(view)),
        charts=collected(lambda section: section.charts(view)),
        columns={section.anchor: _columns(section, view) for section in shown},
        rows=list(_rows(view, shown)),
        bodies=bodies,
    )


@contextlib.contextmanager
def _damage_named(section: Section, view: RecordView) -> Iterator[None]:
    """Convert the error of a section that cannot read its rows into one that names the record and the kinds."""
    try:
        yield
    except PpfrError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, StopIteration, RuntimeError) as error:
        name, kinds = view.record["experiment"]["name"], ", ".join(section.kinds) or "any kind"
        raise InvalidInputError(
            f"record {name!r}: the section {section.title!r} cannot render its results of kind {kinds} "
            f"({type(error).__name__}: {error}). Run the experiment again, or omit the section."
        ) from error


def _is_shown(section: Section, view: RecordView) -> bool:
    with _damage_named(section, view):
        return section.is_shown(view)


def _blocks(section: Section, view: RecordView) -> list[Block]:
    with _damage_named(section, view):
        return list(section.blocks(view))


def _columns(section: Section, view: RecordView) -> Sequence[str]:
    with _damage_named(section, view):
        return section.columns(view)


def _sorted_findings(view: RecordView, findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Findings on the whole record, most serious first, and findings on systems in the order of the systems."""
    order = [system["name"] for system in view.systems]
    of_record = sorted((f for f in findings if not f.system), key=lambda f: ("bad", "caution", f.tone).index(f.tone))
    of_systems = sorted((f for f in findings if f.system), key=lambda f: order.index(f.system))
    return of_record, of_systems


def _rows(view: RecordView, shown: Sequence[Section]) -> Iterator[tuple[Row, Mapping[tuple[str, str], Figure]]]:
    for system in view.systems:
        if system["role"] == "control":
            continue
        cells: dict[tuple[str, str], Figure] = {}
        for section in shown:
            with _damage_named(section, view):
                found = zip(section.columns(view), section.cells(view, system), strict=True)
                cells.update({(section.anchor, column): figure for column, figure in found})
        name = system["name"]
        yield Row(label=view.named(name), key=view.key(name), note=system["role"], cells=()), cells


def _summary(pages: Sequence[_RecordPage], sections: Sequence[Section]) -> tuple[Sequence[tuple[str, int]], Table]:
    """Groups of columns as (section title, number of columns), and one table of all systems of all records."""
    columns = [
        (section, column)
        for section in sections
        for column in dict.fromkeys(column for page in pages for column in page.columns.get(section.anchor, ()))
    ]
    groups = [(section.title, sum(other is section for other, _ in columns)) for section in sections]
    rows = [
        dataclasses.replace(
            row,
            note=row.note if len(pages) == 1 else f"{row.note} · {page.title}",
            cells=[cells.get((section.anchor, column), MISSING) for section, column in columns],
        )
        for page in pages
        for row, cells in page.rows
    ]
    table = Table(first="System", columns=[column for _, column in columns], rows=rows)
    return [group for group in groups if group[1]], table


def _levels(records: Sequence[Record]) -> str:
    levels = sorted({level for record in records for level in _levels_in(record["results"])})
    return listed([f"{100 * level:g} %" for level in levels]) or "95 %"


def _levels_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        if {"value", "low", "high", "level"} <= value.keys():
            yield value["level"]
        for item in value.values():
            yield from _levels_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _levels_in(item)


def _asset(name: str) -> str:
    return resources.files("ppfr.report").joinpath("assets", name).read_text("utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["count_"] = count
    environment.filters["percent_"] = percent
    return environment.get_template("report.html.j2")
