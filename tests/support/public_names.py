"""The public names of ppfr, read from its source files without importing them.

A package or module is public if no part of its dotted name starts with an underscore. It exports the names in its
`__all__`, its redundant imports (`from x import Name as Name`), also those under `if TYPE_CHECKING` of a package that
imports on first use, and what it defines itself under a public name.

Run as a program, it writes `tests/api/public_names.json`: `make api`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

SNAPSHOT = Path(__file__).parents[1] / "api" / "public_names.json"


def public_modules() -> dict[str, Path]:
    """Source file of each public package and module, by dotted name."""
    spec = find_spec("ppfr")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found[".".join(parts)] = path
    return found


def exported_names(source: str) -> list[str]:
    """Sorted names that a module with this source code exports."""
    return sorted(set(_exports(ast.parse(source))))


def snapshot() -> dict[str, list[str]]:
    """Exported names of every public module that exports any."""
    names = {module: exported_names(path.read_text(encoding="utf-8")) for module, path in public_modules().items()}
    return {module: exports for module, exports in sorted(names.items()) if exports}


def _exports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body):
                yield from _exports(ast.Module(body=body, type_ignores=[]))
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                yield from ast.literal_eval(value)
            case ast.ImportFrom(names=names):
                yield from (each.name for each in names if each.asname == each.name and _is_public(each.name))
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield from [name] * _is_public(name)
            case ast.Assign(targets=targets):
                yield from (t.id for t in targets if isinstance(t, ast.Name) and _is_public(t.id))


def _is_public(name: str) -> bool:
    return not name.startswith("_")


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(snapshot(), indent=2) + "\n", encoding="utf-8")
    print(SNAPSHOT)
