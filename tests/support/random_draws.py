"""Every place in ppfr's source that draws or expands randomness, found in the syntax trees.

Run as a program, it prints the places that `tests/api/random_draws.json` does not list.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

LIST = Path(__file__).parents[1] / "api" / "random_draws.json"

_CALLS = re.compile(
    r"""
    (torch|numpy|np)\.random\.\w+(\.\w+)*
    | (torch\.)?(cuda\.|mps\.)?Generator
    | torch\.(rand|randn|randint|randperm|multinomial|bernoulli|normal|rand_like|randn_like|randint_like)
    | ([\w.]+\.)?(manual_seed|seed_all|default_rng|PCG64|SFC64|Philox|MT19937|RandomState)
    | ([\w.]+\.)?(exponential_|uniform_|normal_|random_|bernoulli_|geometric_|cauchy_|log_normal_)
    | secrets\.(token_\w+|randbelow|randbits|choice|SystemRandom) | token_\w+ | randbelow
    | (os\.)?urandom | (os\.)?getrandom | uuid\.uuid[14] | random\.\w+
    | (\w+\.)*(Keystream|protective_streams?|draws_from|SystemNoise|ImageNoise|laplace_of|permutation_from)
    | (\w+\.)*(new_secret|draw_secret|new_reference_ids)
    """,
    re.VERBOSE,
)


def random_draws() -> dict[str, list[str]]:
    """The calls that draw, sorted, by "file::function" or "file::Class.method"."""
    spec = find_spec("ppfr")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        for place, call in draws_in(path.read_text("utf-8")):
            found.setdefault(f"{path.relative_to(root).as_posix()}::{place}", set()).add(call)
    return {place: sorted(calls) for place, calls in sorted(found.items())}


def draws_in(source: str) -> Iterator[tuple[str, str]]:
    """The enclosing function and the name of each call in a module that draws."""
    yield from _visit(ast.parse(source), ())


def _visit(node: ast.AST, scope: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        scope = (*scope, node.name)
    if isinstance(node, ast.Call):
        name = _dotted(node.func)
        has_generator = any(keyword.arg == "generator" for keyword in node.keywords)
        if name and (_CALLS.fullmatch(name) or has_generator):
            yield ".".join(scope) or "<module>", name
    for child in ast.iter_child_nodes(node):
        yield from _visit(child, scope)


def _dotted(node: ast.expr) -> str:
    """The name of what is called; calls and subscripts inside it are left out."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else node.attr
    if isinstance(node, ast.Call):
        return _dotted(node.func)
    return ""


def listed_draws() -> dict[str, dict[str, str | list[str]]]:
    """The committed list: calls, purpose and reason of each place."""
    listed: dict[str, dict[str, str | list[str]]] = json.loads(LIST.read_text("utf-8"))
    return listed


if __name__ == "__main__":
    known = listed_draws() if LIST.exists() else {}
    print(json.dumps({place: calls for place, calls in random_draws().items() if place not in known}, indent=1))
