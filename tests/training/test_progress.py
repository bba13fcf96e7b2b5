"""What is shown and logged."""

from __future__ import annotations

import json

import pytest
from toy_training import ToyImages, ToyObjective

from ppfr.training import Plan, fit

PLAN = Plan(passes=3, batch_size=8, checkpoint_every_steps=5, log_every_steps=2)


def _fit(objective, run_dir, **options):
    return fit(objective, ToyImages(), plan=PLAN, seed=1, run_dir=run_dir, device="cpu", **options)


def test_without_a_terminal_plain_lines_are_shown_and_none_if_not_wanted(capfd):
    _fit(ToyObjective(), None)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "training on toy: step 12/12" in captured.err
    assert "images/s" in captured.err
    assert "net/loss" in captured.err
    assert "\x1b" not in captured.err
    _fit(ToyObjective(), None, progress=False)
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_a_bar_is_shown(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    _fit(ToyObjective(), None)
    text = capfd.readouterr().err
    assert "12/12 steps" in text
    assert "images/s" in text


def test_the_log_of_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path):
    _fit(ToyObjective(), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        _fit(ToyObjective(raises_at=9), tmp_path / "halves", progress=False)
    with (tmp_path / "halves" / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "net/l')
    _fit(ToyObjective(), tmp_path / "halves", progress=False, resume=True)
    whole = (tmp_path / "whole" / "log.jsonl").read_text()
    assert (tmp_path / "halves" / "log.jsonl").read_text() == whole
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10]
    assert set(rows[0]) == {"step", "net/loss", "net/rate"}


def test_tensorboard_gets_the_same_numbers(tmp_path):
    _fit(ToyObjective(), tmp_path, progress=False, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("net/loss")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event.step for event in events] == [row["step"] for row in rows]
    assert [event.value for event in events] == pytest.approx([row["net/loss"] for row in rows])
