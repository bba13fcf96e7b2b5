"""The public API: a change of an exported name shows in `public_names.json`, and every exported name exists."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ppfr
from support.public_names import SNAPSHOT, exported_names, public_modules, snapshot


def test_exported_names_equal_the_snapshot() -> None:
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    found = snapshot()
    changes = []
    for module in sorted(expected.keys() | found.keys()):
        before, now = set(expected.get(module, ())), set(found.get(module, ()))
        changes += [f"- {module}.{name}" for name in sorted(before - now)]
        changes += [f"+ {module}.{name}" for name in sorted(now - before)]
    assert not changes, "\n".join(
        ["The public API changed. If that is intended, run `make api` and add a line to CHANGELOG.md:", *changes]
    )


@pytest.mark.parametrize("module", public_modules())
def test_every_exported_name_exists(module: str) -> None:
    loaded = importlib.import_module(module)
    names = exported_names(public_modules()[module].read_text(encoding="utf-8"))
    assert [name for name in names if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("package", ["ppfr.workflows", "ppfr.experiments", "ppfr.experiments.adamixup"])
def test_packages_that_import_on_first_use_state_their_names_once(package: str) -> None:
    """The names for type checkers equal those at run time, and an unknown one is an AttributeError."""
    code = f"import {package} as package; print([name for name in package.__dir__() if not name.startswith('_')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    names = exported_names(public_modules()[package].read_text(encoding="utf-8"))
    at_run_time = set(ast.literal_eval(done.stdout)) - {"TYPE_CHECKING", "exports_on_use"}
    assert at_run_time == set(names)
    with pytest.raises(AttributeError, match="nonsense"):
        importlib.import_module(package).nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("__all__ = ['charts', 'missing']\nfrom a import _b as charts", ["charts", "missing"]),
        ("from a import Name as Name\nfrom a import other, _c as _c\nimport sys", ["Name"]),
        ("class A: ...\ndef f(): ...\nX: int = 1\nY = 2\n_z = 3\ndef _g(): ...", ["A", "X", "Y", "f"]),
        ("if True:\n    from a import Name as Name", []),
        ("if TYPE_CHECKING:\n    from a import Name as Name\n    from b import other", ["Name"]),
    ],
)
def test_exports_are_read_from_source(source: str, names: list[str]) -> None:
    assert exported_names(source) == names


@pytest.mark.parametrize("package", ["assets", "cli", "core", "metrics", "report"])  # `ppfr`: tests/facade
def test_packages_without_tensors_import_no_torch(package: str) -> None:
    code = f"import sys, ppfr.{package}; print(sorted({{'torch', 'lightning'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_packages_import_no_private_module_of_another_package() -> None:
    root = Path(ppfr.__file__).parent
    found = []
    for path in root.glob("*/**/*.py"):
        package = f"ppfr.{path.relative_to(root).parts[0]}."
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ppfr."):
                is_private = any(part.startswith("_") for part in node.module.split(".")[2:])
                if is_private and not f"{node.module}.".startswith(package):
                    found.append(f"{path.relative_to(root)} imports {node.module}")
    assert not found, "import the name from the package, and export it there if it is missing:\n" + "\n".join(found)
