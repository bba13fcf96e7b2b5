"""Progress output and logs."""

from __future__ import annotations

import json

import pytest

from ppfr.training import Plan
from support.toy_training import ToyTask, run_fit

PLAN = Plan(epochs=3, batch_size=8, checkpoint_every_steps=5, log_every_steps=2)


def _fit(task, run_dir, *, shows_progress=True, **options):
    return run_fit(task, run_dir, plan=PLAN, shows_progress=shows_progress, **options)


def test_without_terminal_progress_is_plain_lines_or_nothing(capfd):
    _fit(ToyTask(), None)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "training on toy: step 12/12" in captured.err
    assert "images/s" in captured.err
    assert "net/loss" in captured.err
    assert "\x1b" not in captured.err
    _fit(ToyTask(), None, shows_progress=False)
    assert capfd.readouterr() == ("", "")


def test_on_terminal_progress_is_a_bar(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    _fit(ToyTask(), None)
    text = capfd.readouterr().err
    assert "12/12 steps" in text
    assert "images/s" in text


def test_log_of_resumed_run_equals_log_of_uninterrupted_run(tmp_path):
    _fit(ToyTask(), tmp_path / "whole", shows_progress=False)
    with pytest.raises(KeyboardInterrupt):
        _fit(ToyTask(raises_at=9), tmp_path / "halves", shows_progress=False)
    with (tmp_path / "halves" / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "net/l')
    _fit(ToyTask(), tmp_path / "halves", shows_progress=False, resumes=True)
    whole = (tmp_path / "whole" / "log.jsonl").read_text()
    assert (tmp_path / "halves" / "log.jsonl").read_text() == whole
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10]
    assert set(rows[0]) == {"step", "net/loss", "net/rate"}


def test_tensorboard_scalars_equal_the_log(tmp_path):
    _fit(ToyTask(), tmp_path, shows_progress=False, with_tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("net/loss")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event.step for event in events] == [row["step"] for row in rows]
    assert [event.value for event in events] == pytest.approx([row["net/loss"] for row in rows])
