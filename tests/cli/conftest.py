"""Runs the command line in this process, through the entry point of the program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppfr.cli import run
from ppfr.data import write_crop
from ppfr.synthetic import SyntheticFaces


@dataclasses.dataclass(frozen=True)
class Printed:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)


Ppfr = Callable[..., Printed]


@pytest.fixture
def ppfr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ppfr:
    """`ppfr("mask", path, ...)` returns exit code and output; data and weights must be given as options."""
    monkeypatch.delenv("PPFR_DATA", raising=False)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)

    def call(*arguments: object) -> Printed:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Printed(code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def crop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned synthetic face as PNG."""
    path = tmp_path_factory.mktemp("crop") / "face.png"
    write_crop(SyntheticFaces(1, 1, seed=3).read([0])[0], path)
    return path


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system that `ppfr train` trained for two steps, with its secret in the same directory."""
    out = tmp_path_factory.mktemp("system") / "system"
    arguments = f"train --images synthetic:6x4 --strategy scratch --network mobilefacenet-small --epochs 1 --out {out}"
    assert run([*arguments.split(), "--batch-size", "12", "--json"]) == 0
    return out
