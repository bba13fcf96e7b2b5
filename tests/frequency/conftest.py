"""The straightforward front end, loaded by path: tests are no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def straightforward() -> ModuleType:
    path = Path(__file__).parents[1] / "reference" / "bdct_upsampled.py"
    spec = importlib.util.spec_from_file_location("reference_bdct_upsampled", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
