"""What the documents show is what the code does."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from torch import Generator, rand

import ppfr
from ppfr.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = sorted(path.name for path in (ROOT / "src" / "ppfr").iterdir() if (path / "__init__.py").exists())


@pytest.mark.parametrize(("page", "num_examples"), [("README.md", 7), ("docs/how-to/mix-training-images.md", 17)])
def test_the_python_of_a_page_runs(page: str, num_examples: int) -> None:
    result = doctest.testfile(str(ROOT / page), module_relative=False)
    assert result.attempted >= num_examples and result.failed == 0


@pytest.mark.parametrize("page", ["mixup.md"])
def test_the_python_of_a_method_s_page_runs(page: str) -> None:
    (block,) = code_blocks(ROOT / "docs" / "methods" / page, "python")
    names: dict[str, Any] = {}
    exec(compile(block, page, "exec"), names)
    assert names["mixed"].values_BKPQ.shape == (8, 36, 28, 28)
    assert names["mixed"].labels_Bk.shape == names["mixed"].weights_Bk.shape == (8, 3)


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, arguments) of every `ppfr ...` line in a bash block."""
    for page in PAGES:
        for block in code_blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("ppfr ") and "COMMAND" not in line:
                    yield page.name, shlex.split(line, comments=True)[1:]


def test_every_command_line_in_the_documents_can_be_parsed() -> None:
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


def test_the_example_protection_keeps_its_promises() -> None:
    (block,) = code_blocks(ROOT / "docs" / "how-to" / "add-a-protection.md", "python")
    names: dict[str, Any] = {}
    exec(compile(block.replace("from __future__", "#"), "add-a-protection.md", "exec"), names)
    masker = names["Coarse"]()
    masked = masker.mask(rand(2, 3, 112, 112, generator=Generator().manual_seed(1)), rng=Generator())
    assert tuple(masked.shape[1:]) == masker.spec.out_shape
    assert names["Coarse"](**masker.public_config()).spec == masker.spec


def test_names_of_the_architecture_exist() -> None:
    """Each name that a code block of the page gives to a package is exported by it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = []
    for package in PACKAGES:
        section = re.search(rf"### `{package}`\n\n```python\n(.*?)```", text, flags=re.DOTALL)
        if section is None:
            continue
        code = re.sub(r"#.*", "", section.group(1))
        module = __import__(f"{ppfr.__name__}.{package}", fromlist=["x"])
        called = re.findall(r"^(?:@dataclass\(frozen\) )?([A-Za-z_]\w+)\(", code, flags=re.MULTILINE)
        missing += [f"{package}.{name}" for name in called if not hasattr(module, name)]
    assert missing == []
