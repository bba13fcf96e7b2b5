"""`ppfr analyse-channels`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Ppfr = Callable[..., Any]  # the fixture of conftest


def test_analyse_channels_prints_the_table_and_writes_it(ppfr: Ppfr, tmp_path: Path) -> None:
    arguments = ("analyse-channels", "--preset", "fast-test", "--penalty-weight", 1000, "--out", tmp_path / "run")
    printed = ppfr(*arguments, "--device", "cpu", "--json")
    assert printed.code == 0
    (row,) = printed.json["rows"]
    assert row["name"] == "weight 1000" and 0 in row["channels_dropped"]
    assert Path(printed.json["record"]).is_file()

    for_people = ppfr(*arguments, "--device", "cpu", "--resume")
    assert for_people.code == 0
    output = " ".join(for_people.stdout.split())
    assert "channels dropped 0, " in output
    assert f"task loss {row['task_loss']['value']:.3f} [" in output


def test_analyse_channels_refuses_unknown_preset_and_missing_data(ppfr: Ppfr, tmp_path: Path) -> None:
    assert ppfr("analyse-channels", "--preset", "paper", "--out", tmp_path).code == 2
    output = ppfr("analyse-channels", "--preset", "laptop", "--out", tmp_path, "--json")
    assert output.code == 2 and "PPFR_DATA" in output.json["error"]["message"]
