"""Commands, options, help, exit codes and shell completion, without running a workflow."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ppfr.cli import app, run
from ppfr.core import InvalidInputError, ProblemsError
from ppfr.data import QualityLimits
from ppfr.experiments.ppfr_fd import ANALYSIS_PRESETS
from ppfr.systems import HEADS, NETWORKS
from ppfr.training import Plan

OPTIONS = Path(__file__).with_name("options.json")


def commands(group: Any = None, prefix: str = "ppfr") -> Iterator[tuple[str, Any]]:
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def parameters(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.name != "help"]


def words(parameter: Any) -> str:
    return (
        parameter.name
        if parameter.param_type_name == "argument"
        else "/".join((*parameter.opts, *parameter.secondary_opts))
    )


def test_commands_and_options_match_the_snapshot() -> None:
    """Scripts use these names. Add new ones to options.json; removing or renaming one breaks users."""
    found = {name: sorted(map(words, parameters(command))) for name, command in commands()}
    assert found == json.loads(OPTIONS.read_text(encoding="utf-8"))


def test_every_command_and_option_has_help() -> None:
    for name, command in commands():
        assert command.help and len(command.help) > 30, name
        for parameter in parameters(command):
            assert parameter.help, f"{name} {words(parameter)}"


def test_options_of_quality_state_the_default_limits() -> None:
    """The command line does not load the limits before a command runs, so the help repeats them."""
    by_name = dict(commands())
    for field in dataclasses.fields(QualityLimits):
        option = "--" + field.name.removesuffix("_deg").replace("_", "-")
        default = "no limit" if field.default is None else f"{field.default:g}"
        for command in ("ppfr align", "ppfr match enrol"):
            (found,) = (one for one in by_name[command].params if option in one.opts)
            assert f"`match enrol`: {default};" in found.help, f"{command} {option}"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_contains_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split()[1:], "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Usage:" in text
    assert text.count(name) > 1, "an example command line"


def choices(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The values that a rejected one is told to be one of."""
    assert run([command, option, "nonsense"]) == 2
    return set(re.findall(r"'([^']+)'", capsys.readouterr().err.partition("is not one of")[2]))


@pytest.mark.parametrize(
    ("command", "option", "registry"),
    [
        ("train", "--network", NETWORKS),
        ("train", "--head", HEADS),
        ("analyse-channels", "--preset", ANALYSIS_PRESETS),
    ],
)
def test_choices_of_an_option_equal_the_registry(
    command: str, option: str, registry: Collection[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert choices(command, option, capsys) == set(registry)


def test_precisions_are_those_of_the_training_plan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProblemsError) as rejected:
        Plan(epochs=1, batch_size=1, precision="nonsense")
    assert choices("train", "--precision", capsys) == set(str(rejected.value).partition("allowed: ")[2].split(", "))


def test_every_command_has_a_json_option() -> None:
    assert [name for name, command in commands() if "--json" not in map(words, parameters(command))] == []


def test_program_starts_without_torch() -> None:
    code = (
        "import sys; from ppfr.cli import run; code = run(['--version']); "
        "assert 'torch' not in sys.modules, 'help must not import torch'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ppfr ")


@pytest.mark.parametrize("arguments", [[], ["data"], ["models"], ["party"], ["match"]])
def test_group_without_command_prints_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert "Usage:" in printed.out and "Commands" in printed.out
    assert not printed.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mask", "--nonsense"], ["--nonsense", "ppfr mask --help"]),
        (["mask"], ["Missing", "ppfr mask --help"]),
        (["nonsense"], ["nonsense", "ppfr --help"]),
        (["train", "--out", "x", "--images", "y", "--epochs", "many"], ["--epochs", "ppfr train --help"]),
    ],
)
def test_usage_errors_name_the_help(
    arguments: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error:")
    assert all(word in printed.err for word in expected), printed.err

    assert run([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    output = json.loads(printed.out)
    assert output["exit_code"] == 2 and output["error"]["type"] == "UsageError"
    assert all(word in output["error"]["message"] for word in expected)


@pytest.mark.parametrize(
    ("raised", "code", "kind", "expected"),
    [
        (InvalidInputError("left [bold] is right"), 2, "InvalidInputError", "left [bold] is right"),
        (KeyboardInterrupt(), 130, "Interrupted", "--resume"),
        (typer.Abort(), 130, "Interrupted", "--resume"),
        (PermissionError(13, "Permission denied", "faces"), 2, "PermissionError", "faces: Permission denied"),
    ],
)
def test_errors_of_a_command_set_exit_code_and_json(
    raised: BaseException,
    code: int,
    kind: str,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("ppfr.workflows.describe_data", fail)
    assert run(["data", "list"]) == code
    printed = capsys.readouterr()
    assert not printed.out and expected in printed.err and "Traceback" not in printed.err
    assert run(["data", "list", "--json"]) == code
    output = json.loads(capsys.readouterr().out)
    assert output["exit_code"] == code and output["error"]["type"] == kind and expected in output["error"]["message"]


def test_unexpected_exception_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ppfr.workflows.describe_data", fail)
    with pytest.raises(ZeroDivisionError):
        run(["data", "list"])


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (
            "ppfr ",
            {
                "align",
                "analyse-channels",
                "attack",
                "data",
                "demo",
                "doctor",
                "evaluate",
                "mask",
                "match",
                "models",
                "party",
                "report",
                "run",
                "train",
            },
        ),
        ("ppfr train --strategy ", {"scratch", "distill", "finetune"}),
        ("ppfr mask --method p", {"ppfr-fd", "peep"}),
        ("ppfr run s", {"spine:demo", "spine:lfw", "spine:cfp"}),
        ("ppfr run spine:lfw --preset l", {"laptop"}),
        ("ppfr attack --attack ", {"unet", "cgan", "linkage"}),
        ("ppfr match identify --answer ", {"best", "set", "any"}),
        ("ppfr party trial --values ", {"int8", "int16"}),
        ("ppfr evaluate --protocol c", {"cfp-ff", "cfp-fp"}),
    ],
)
def test_shell_completion_offers_values(
    typed: str, offered: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_PPFR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    with pytest.raises(SystemExit) as exited:
        run([])
    assert exited.value.code in (0, None)
    assert set(capsys.readouterr().out.split()) == offered
