"""`requirements/minimum.txt` pins exactly the lower bounds of `pyproject.toml`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Tools that no test imports, and the documentation.
TOOLS = {"codespell", "import-linter", "mypy", "ruff", "pytest-cov", "mkdocs-material", "mkdocstrings"}


def test_minimum_versions_are_the_declared_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", line) for group in groups for line in group]
    declared = {match[1].lower(): match[2] for match in found if match is not None}
    assert all(found)
    lines = (ROOT / "requirements" / "minimum.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned == {name: version for name, version in declared.items() if name not in TOOLS}


def test_constraints_pin_every_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[>=]", line)[0].lower() for group in groups for line in group}
    lines = (ROOT / "requirements" / "constraints.txt").read_text("utf-8").splitlines()
    assert names <= {line.split("==")[0].lower() for line in lines}
