"""Every experiment has every preset."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppfr.core import InvalidInputError, RunOptions
from ppfr.experiments import EXPERIMENTS, PRESETS, ExperimentContext


# The experiments on real faces look for their data before anything else: `test_spine.py` reads their presets.
@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - {"spine:lfw", "spine:cfp"}))
def test_unknown_preset_is_rejected_with_all_presets(name: str, tmp_path: Path) -> None:
    context = ExperimentContext(preset="huge", seed=1, options=RunOptions(run_dir=tmp_path, device="cpu"))
    with pytest.raises(InvalidInputError, match=f"'huge'.*{', '.join(PRESETS)}"):
        EXPERIMENTS[name](context)
    assert not list(tmp_path.iterdir())
