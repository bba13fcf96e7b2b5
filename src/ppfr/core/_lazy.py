"""Exports of a package that are imported on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports_on_use(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Functions `__getattr__` and `__dir__` of a package that imports each of its modules on first use.

    For a package in which one user needs a few modules, and the others would load large libraries. The same names are
    imported under `if TYPE_CHECKING`, for type checkers and for the list of public names.

    Args:
        package: its dotted name, `__name__`.
        modules: name of each module in the package -> the names that the package exports from it.

    Returns:
        `__getattr__`, which raises AttributeError for a name that is not exported, and `__dir__`.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:  # noqa: N807  # the package's
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, found)
        return found

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(sys.modules[package]), *module_of})

    return __getattr__, __dir__
