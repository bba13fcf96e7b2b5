"""Workflows of `ppfr run` and `ppfr demo`: build an experiment, run it, and return a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppfr.core import CheckpointError, InvalidInputError, Record, RunOptions, choose_device
from ppfr.evaluation import Experiment, run
from ppfr.experiments import EXPERIMENTS, PRESETS, ExperimentContext
from ppfr.report import write_report
from ppfr.workflows._report import ALL_SECTIONS

RECORD_FILE, REPORT_FILE = "record.json", "report.html"
_TRACES = ("run.json", RECORD_FILE, "recogniser")


def list_experiments() -> dict[str, str]:
    """The first line of the documentation of each experiment, by name."""
    return {name: (experiment.__doc__ or "").strip().splitlines()[0] for name, experiment in EXPERIMENTS.items()}


def run_named_experiment(
    name: str,
    *,
    preset: str,
    seed: int,
    options: RunOptions,
    data: Path | None = None,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Run an experiment and write its record and report into `options.run_dir`.

    Args:
        name: a key of `EXPERIMENTS`.
        preset: one of `PRESETS`.
        seed: seeds every random draw.
        options: directory, devices and resuming.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.

    Returns:
        The result of `run_experiment`.

    Raises:
        InvalidInputError: unknown experiment or preset.
        CheckpointError: `options.run_dir` holds an earlier run and `resumes` is False, or the run has another
            configuration.
        MissingAssetError: data or weights are not available.
        DeviceError: the device is not available.
    """
    if name not in EXPERIMENTS:
        raise InvalidInputError(f"Experiment must be one of {', '.join(EXPERIMENTS)}, got {name!r}.")
    if preset not in PRESETS:
        raise InvalidInputError(f"--preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    choose_device(options.device)
    refuse_earlier_run(options)
    context = ExperimentContext(
        preset=preset,
        seed=seed,
        options=options,
        data=data,
        weights=weights,
        command=f"ppfr run {name} --preset {preset} --seed {seed}",
    )
    return run_experiment(EXPERIMENTS[name](context), options)


def refuse_earlier_run(options: RunOptions) -> None:
    """Refuse to write into the directory of an earlier run.

    Raises:
        CheckpointError: the directory holds an earlier run and `resumes` is False.
    """
    folder = options.directory
    if not options.resumes and any((folder / name).exists() for name in _TRACES):
        raise CheckpointError(
            f"{folder} holds an earlier run. Continue it with --resume, or choose another directory with --out."
        )


def run_experiment(experiment: Experiment, options: RunOptions) -> dict[str, Any]:
    """Run an experiment, write its report, and return a summary.

    Returns:
        "is_sound" (every stage is complete and every control passed; None if there are attacks but no control ran),
        "controls" (how many passed), "status", "failed_stages", "failed_controls", "accuracy" (by system and protocol,
        with n and interval; for 1:N the rank-1 rate), "wall_s", and the paths "record" and "report".
    """
    record, out_dir = run(experiment, options=options), options.directory
    page = write_report([out_dir / RECORD_FILE], out_dir / REPORT_FILE, sections=ALL_SECTIONS)
    failed, num_controls = failed_controls(record), _num_controls(record)
    is_complete = record["status"] == "complete"
    is_unchecked = is_complete and bool(record["attacks"]) and num_controls == 0
    return {
        "is_sound": None if is_unchecked else is_complete and not failed,
        "controls": (
            f"{num_controls - len(failed)} of {num_controls} passed"
            if num_controls
            else "none ran: nothing shows that an attack works"
            if record["attacks"]
            else "no attacks"
        ),
        "status": record["status"],
        "failed_stages": failed_stages(record),
        "failed_controls": failed,
        "accuracy": accuracies(record),
        "wall_s": round(record["wall_s"], 1),
        "record": str(out_dir / RECORD_FILE),
        "report": str(page),
    }


def failed_controls(record: Record) -> list[str]:
    """Attacks whose control was measured and failed, with the expectation."""
    expected = {attack["name"]: attack["control"]["expects"] for attack in record["attacks"] if attack["control"]}
    return [
        f"{row['attack']} was expected to {expected[row['attack']]}"
        for row in record["results"].get("attack_run", ())
        if row["is_control_met"] is False
    ]


def _num_controls(record: Record) -> int:
    return sum(row["is_control_met"] is not None for row in record["results"].get("attack_run", ()))


def failed_stages(record: Record) -> list[str]:
    """Stages that failed, with their error."""
    return [
        f"{stage['name']}: {stage['error']['kind']}: {stage['error']['message']}"
        for stage in record["stages"]
        if stage["error"] is not None
    ]


def accuracies(record: Record) -> dict[str, Any]:
    """10-fold accuracy with n and interval, by "SYSTEM on PROTOCOL"; for 1:N the rank-1 rate."""
    found = {
        f"{row['name']} on {row['protocol']}{', ' + row['scenario'] if row['scenario'] else ''}": row["accuracy"]
        for row in record["results"].get("verification", ())
        if row["source"] == "system"
    }
    for row in record["results"].get("identification", ()):
        found[f"{row['system']}, rank-1, {row['scenario']}, {row['values']}"] = row["rank"]["1"]
    return found
