"""`ppfr demo`, `ppfr run` and `ppfr report`: complete experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ppfr.cli._app import EXIT_FAILED, EXIT_OK, Data, Device, Json, Out, Resume, Seed, Weights, app, emit
from ppfr.cli._completion import experiments, offering, presets


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Mask, train, recognise, attack and report on synthetic faces, in minutes. Needs no data.

    ppfr demo --out runs/demo

    Writes OUT/report.html (one page, opens offline) and OUT/record.json. Equivalent to `ppfr run spine:demo`.
    """
    from ppfr.core import RunOptions
    from ppfr.workflows import run_named_experiment

    options = RunOptions(run_dir=out, device=device, resumes=resume)
    result = run_named_experiment("spine:demo", preset="laptop", seed=seed, options=options)
    finish(result, as_json=json, title="demo")


@app.command("run")
def run_experiment(
    experiment: Annotated[
        str,
        typer.Argument(
            help="FAMILY:NAME, for example spine:lfw; `ppfr run list` lists all.", autocompletion=offering(experiments)
        ),
    ],
    preset: Annotated[
        str,
        typer.Option(
            help="fast-test (minutes, meaningless results), laptop (two cores) or paper (GPU).",
            autocompletion=offering(presets),
        ),
    ] = "laptop",
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the run. Default: runs/FAMILY-NAME-PRESET.", show_default=False),
    ] = None,
    num_devices: Annotated[int, typer.Option(help="Number of processes that train each recogniser in parallel.")] = 1,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Run a complete experiment and write its record and report.

    ppfr run spine:lfw --preset laptop --data DIR --weights DIR

    Completed stages are kept. After an interruption, run the same command with --resume to continue.
    """
    from ppfr.core import RunOptions
    from ppfr.workflows import list_experiments, run_named_experiment

    if experiment == "list":
        emit(list_experiments(), as_json=json, title="experiments")
        return
    directory = out if out is not None else Path("runs") / f"{experiment.replace(':', '-')}-{preset}"
    result = run_named_experiment(
        experiment,
        preset=preset,
        seed=seed,
        options=RunOptions(run_dir=directory, device=device, num_devices=num_devices, resumes=resume),
        data=data,
        weights=weights,
    )
    finish(result, as_json=json, title=experiment)


@app.command()
def report(
    records: Annotated[
        list[Path], typer.Argument(help="record.json files or run directories; several are shown side by side.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    pictures: Annotated[
        bool,
        typer.Option(
            help="Include the pictures beside the record. Exclude them from reports on real people that you pass on."
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Render the report of complete or partial runs again, from their records.

    ppfr report runs/spine-lfw-laptop --out report.html --no-pictures
    """
    from ppfr.workflows import write_reports

    emit(write_reports(records, out, with_pictures=pictures), as_json=json, title="report")


def finish(result: Mapping[str, Any], *, as_json: bool, title: str) -> None:
    """Print the result of a run and exit with its code."""
    words = {} if as_json or result["is_sound"] is not None else {"is_sound": "not known: no control ran"}
    emit({**result, **words}, as_json=as_json, title=title)
    raise typer.Exit(EXIT_FAILED if result["is_sound"] is False else EXIT_OK)
