"""Examples, names and lists in the documentation agree with the code."""

from __future__ import annotations

import dataclasses
import doctest
import re
import shlex
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

import pytest
import typer.main
from torch import Generator, rand

from ppfr import evaluation, experiments, report
from ppfr.cli import app
from ppfr.core import AttackEntry, RecordEntries, SystemEntry, kind_of
from ppfr.evaluation import Measure
from ppfr.metrics import Estimate
from support.documents import ROOT, code_blocks, run_python

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = sorted(path.name for path in (ROOT / "src" / "ppfr").iterdir() if (path / "__init__.py").exists())


@pytest.mark.parametrize(
    ("page", "num_examples"),
    [("README.md", 7), ("docs/how-to/mix-training-images.md", 17), ("docs/reference/result-record.md", 5)],
)
def test_python_of_a_page_runs(page: str, num_examples: int) -> None:
    result = doctest.testfile(str(ROOT / page), module_relative=False)
    assert result.attempted >= num_examples and result.failed == 0


@pytest.mark.parametrize("page", ["mixup.md"])
def test_python_of_a_method_page_runs(page: str) -> None:
    names = run_python(f"docs/methods/{page}")
    assert names["mixed"].values_BKPQ.shape == (8, 36, 28, 28)
    assert names["mixed"].labels_Bk.shape == names["mixed"].weights_Bk.shape == (8, 3)


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, arguments) of every `ppfr ...` line in a bash block."""
    for page in PAGES:
        for block in code_blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("ppfr ") and "COMMAND" not in line:
                    yield page.name, shlex.split(line, comments=True)[1:]


def test_command_lines_in_the_documentation_can_be_parsed() -> None:
    root = typer.main.get_command(app)
    lines = list(command_lines())
    assert len(lines) > 25
    for page, arguments in lines:
        command, rest, context = root, arguments, root.make_context("ppfr", [], resilient_parsing=True)
        while hasattr(command, "commands"):
            assert rest and rest[0] in command.commands, f"{page}: ppfr {' '.join(arguments)}"
            command, rest = command.commands[rest[0]], rest[1:]
        try:
            command.make_context("ppfr", list(rest), parent=context)
        except Exception as error:
            pytest.fail(f"{page}: ppfr {' '.join(arguments)}: {error}")


def test_example_protection_of_the_page_works() -> None:
    names = run_python("docs/how-to/add-a-protection.md")
    masker = names["Coarse"]()
    masked = masker.mask(rand(2, 3, 112, 112, generator=Generator().manual_seed(1)), rng=Generator())
    assert tuple(masked.shape[1:]) == masker.spec.out_shape
    assert names["Coarse"](**masker.public_config()).spec == masker.spec


ARCHITECTURE = ROOT / "docs" / "architecture.md"


def room_sections() -> dict[str, str]:
    """Text on each room in docs/architecture.md."""
    text = ARCHITECTURE.read_text(encoding="utf-8").split("## Rooms\n")[1].split("\n## ")[0]
    parts = re.split(r"^### `(\w+)`$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_architecture_describes_every_room_and_no_other() -> None:
    sections = room_sections()
    assert sorted(sections) == PACKAGES
    assert all(len(text.split()) > 20 for text in sections.values())


def test_the_import_direction_of_the_architecture_is_the_enforced_one() -> None:
    (block,) = (block for block in code_blocks(ARCHITECTURE, "text") if block.startswith("cli\n"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert block.split("\n")[:-1] == [layer.replace("ppfr.", "") for layer in layers]


def names_in(text: str) -> list[tuple[str, str]]:
    """(room, name) of the public names in backticks: classes, constants and functions; the room is "" if not given."""
    tokens = re.findall(r"`(?:ppfr\.)?(?:(\w+)\.)?(\w+)(\([^`]*\))?`", text)
    is_public = re.compile(r"[A-Z][A-Za-z]*[a-z]\w*|[A-Z][A-Z_]{3,}")
    return [
        (room, name)
        for room, name, call in tokens
        if room in PACKAGES or (not room and (call == "()" or is_public.fullmatch(name)))
    ]


@pytest.mark.parametrize("room", PACKAGES)
def test_names_of_the_architecture_are_exported_by_their_room(room: str) -> None:
    named = names_in(room_sections()[room])
    assert named
    missing = [
        f"{other or room}.{name}" for other, name in named if not hasattr(import_module(f"ppfr.{other or room}"), name)
    ]
    assert missing == []


def _has(package: str, name: str) -> bool:
    """Whether a package exports a name or contains a package of that name."""
    return hasattr(import_module(package), name) or find_spec(f"{package}.{name}") is not None


def test_other_names_of_the_architecture_exist() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8").split("## Deviations")[0]
    for section in room_sections().values():
        text = text.replace(section, "")
    exported = {name for room in PACKAGES for name in vars(import_module(f"ppfr.{room}"))}
    named = [(room, name) for room, name in names_in(text) if room or name[0].isupper()]
    assert len(named) > 12
    missing = [
        f"{room}.{name}" for room, name in named if not (_has(f"ppfr.{room}", name) if room else name in exported)
    ]
    assert missing == []


def test_the_architecture_lists_the_members_of_a_measure() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8").split("### Measures\n")[1].split("\n### ")[0]
    listed = re.findall(r"^\| `(\w+)(?:\(\w*\))?` \|", text, flags=re.MULTILINE)
    declared = {*vars(Measure), *Measure.__annotations__}
    assert sorted(listed) == sorted(name for name in declared if not name.startswith("_"))


def test_paths_of_the_architecture_exist() -> None:
    paths = re.findall(r"`((?:src|tests|docs|benchmarks)/[^`]*)`", ARCHITECTURE.read_text(encoding="utf-8"))
    folders = [(room, name) for room, text in room_sections().items() for name in re.findall(r"`(\w+/)`", text)]
    assert len(paths) > 3 and len(folders) > 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [f"{room}/{name}" for room, name in folders if not (ROOT / "src" / "ppfr" / room / name).is_dir()] == []


RECORD_PAGE = ROOT / "docs" / "reference" / "result-record.md"


def first_column(heading: str) -> list[str]:
    """Names in the first column of the table under a heading of the page on records."""
    text = RECORD_PAGE.read_text(encoding="utf-8").split(f"\n{heading}\n")[1].split("\n#")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", text, flags=re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "entry"),
    [
        ("## Envelope", RecordEntries),
        ("### Systems", SystemEntry),
        ("### Attacks", AttackEntry),
        ("## Estimates", Estimate),
    ],
)
def test_the_record_page_lists_every_field(heading: str, entry: type) -> None:
    assert sorted(first_column(heading)) == sorted(field.name for field in dataclasses.fields(entry))


def test_the_record_page_lists_every_kind_with_its_measures_and_sections() -> None:
    measures, sections = defaultdict(set), defaultdict(set)
    for name, kind in vars(evaluation).items():
        if isinstance(kind, type) and issubclass(kind, Measure) and kind is not Measure:
            for row in kind.results:
                measures[kind_of(row)].add(name)
    for mark, those in (("", report.SECTIONS), ("*", experiments.SECTIONS)):
        for section in those:
            for kind in section.kinds:
                sections[kind].add(f"{section.title}{mark}")
    text = RECORD_PAGE.read_text(encoding="utf-8").split("## Kinds of rows")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", text, flags=re.MULTILINE)
    assert {kind: set(re.findall(r"`(\w+)`", left_by)) for kind, left_by, _ in rows} == measures
    assert {kind: set(shown.split("; ")) for kind, _, shown in rows} == sections
    headings = re.findall(r"^### (`.*)$", RECORD_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {name for heading in headings for name in re.findall(r"`(\w+)`", heading)} == set(measures)


def test_every_room_has_a_page_in_the_reference() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert set(PACKAGES) <= pages


def test_the_page_on_reports_lists_every_section() -> None:
    text = (ROOT / "docs" / "how-to" / "read-a-report.md").read_text(encoding="utf-8")
    table = text.split("## Sections\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| (.*?) \| ", table, flags=re.MULTILINE)[1:]
    assert listed == [section.title for section in (*report.SECTIONS, *experiments.SECTIONS)]


def test_index_of_decisions_lists_every_record() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("[0-9]*.md")}
    index = (folder / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index)) == records
