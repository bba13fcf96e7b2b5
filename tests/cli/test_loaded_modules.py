"""Which large libraries and which packages of ppfr each command loads: what a user waits for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppfr.assets import write_record
from support.made_records import made_record

LIBRARIES = ("torch", "lightning", "scipy", "matplotlib", "numba", "tensorboard", "onnx", "jinja2", "jsonschema")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SCIPY_PARTS = ("interpolate", "linalg", "optimize", "signal", "sparse", "special", "stats")
"""numba imports the namespace `scipy`, which is small, and none of these."""

IN_TENSORS = {"assets", "core", "data", "frequency", "masking", "models", "synthetic", "systems", "training"}
IN_MATCHING = {"assets", "core", "data", "matching", "secure", "service"}

CODE = f"""
import json, sys
from ppfr.cli import run
code = run(sys.argv[1:])
loaded = [name for name in {LIBRARIES} if name in sys.modules and name != "scipy"]
loaded += ["scipy" for _ in [0] if any(f"scipy.{{part}}" in sys.modules for part in {SCIPY_PARTS})]
packages = {{name.split(".")[1] for name in sys.modules if name.startswith("ppfr.")}} - {{"cli", "workflows"}}
sys.stderr.write(chr(10) + json.dumps([code, loaded, sorted(packages)]))
"""


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embeddings") / "rows.npy"
    np.save(path, np.eye(4, 16))
    return path


def loaded_by(*arguments: object, code: int = 0) -> tuple[set[str], set[str]]:
    """Large libraries and packages of ppfr that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=True
    )
    found, libraries, packages = json.loads(done.stderr.splitlines()[-1])
    assert found == code, done.stderr
    return set(libraries), set(packages)


def test_version_loads_only_core() -> None:
    assert loaded_by("--version") == (set(), {"core"})


def test_mask_loads_torch_and_no_training_stack(crop: Path, tmp_path: Path) -> None:
    libraries, packages = loaded_by("mask", crop, "--out", tmp_path)
    assert libraries == {"torch"}
    assert packages <= IN_TENSORS


def test_align_loads_no_torch(crop: Path, tmp_path: Path) -> None:
    """The detector is missing; the command stops where it would load it."""
    libraries, packages = loaded_by("align", crop, "--out", tmp_path, "--weights", tmp_path, code=2)
    assert libraries == set()
    assert packages == {"assets", "core", "data"}


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("exact", {"numba"}),
        ("three-party", {"numba", "scipy"}),  # kernels of all parties in this process: numba loads its BLAS from SciPy
    ],
)
def test_match_of_embeddings_loads_no_torch(embeddings: Path, backend: str, expected: set[str]) -> None:
    arguments = ("match", "identify", embeddings, "--threshold", 0.5, "--gallery", embeddings, "--backend", backend)
    libraries, packages = loaded_by(*arguments)
    assert libraries == expected
    assert packages == IN_MATCHING


def test_match_at_three_parties_loads_no_compiler(embeddings: Path, tmp_path: Path) -> None:
    """The parties compute, not their client. No party runs here; the command stops when it connects."""
    loaded_by("party", "trial", "--out", tmp_path, "--dim", 16, "--timeout", 1)
    arguments = ("match", "identify", embeddings, "--threshold", 0.5, "--parties", tmp_path / "client.toml")
    libraries, packages = loaded_by(*arguments, code=2)
    assert libraries == set()
    assert packages == IN_MATCHING


@pytest.mark.real_data
def test_match_of_photos_loads_torch_and_no_training_stack(crop: Path, weights_root: Path) -> None:
    arguments = ("match", "identify", crop, "--threshold", 0.5, "--gallery", crop, "--model", "mobilefacenet-y1")
    libraries, packages = loaded_by(*arguments, "--backend", "exact", "--weights", weights_root)
    assert libraries == {"torch", "numba"}
    assert packages <= IN_TENSORS | IN_MATCHING


def test_report_loads_no_torch(tmp_path: Path) -> None:
    write_record(made_record(), tmp_path / "record.json")
    libraries, packages = loaded_by("report", tmp_path, "--out", tmp_path / "page.html")
    assert libraries == {"matplotlib", "jinja2", "jsonschema"}
    assert packages == {"assets", "core", "experiments", "report"}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, "GOMP_SPINCOUNT=1000" if sys.platform == "linux" else "OMP_WAIT_POLICY=PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY=ACTIVE"),
        ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT=7"),
        ({"KMP_BLOCKTIME": "1"}, "KMP_BLOCKTIME=1"),
    ],
)
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(chosen: dict[str, str], expected: str) -> None:
    """Read when torch is loaded: OpenMP reads the variables then, and later changes have no effect."""
    code = (
        "import builtins, os, sys\n"
        "load = builtins.__import__\n"
        "def watch(name, *rest, **more):\n"
        "    if name == 'torch' and 'torch' not in sys.modules:\n"
        "        names = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')\n"
        "        found = ', '.join(f'{n}={os.environ[n]}' for n in names if n in os.environ)\n"
        "        sys.stderr.write(found + '\\n')\n"
        "    return load(name, *rest, **more)\n"
        "builtins.__import__ = watch\n"
        "from ppfr.cli import main\n"
        "main(['doctor', '--json'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | chosen
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True, env=environment
    )
    assert done.stderr.splitlines()[0] == expected
    assert json.loads(done.stdout)["thread_waiting"] == expected
