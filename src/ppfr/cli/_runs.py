"""`ppfr demo`, `ppfr run` and `ppfr report`: whole experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import EXIT_FAILED, EXIT_OK, Data, Device, Json, Out, Resume, Seed, Weights, app, emit


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """The whole loop on synthetic faces, in minutes: mask, train, recognise, attack, report. Needs no data.

    Writes OUT/report.html (one page, opens without a network) and OUT/record.json.
    """
    from ppfr.recipes import run_recipe

    result = run_recipe("spine:demo", preset="laptop", out_dir=out, seed=seed, device=device, resumes=resume)
    emit(result, as_json=json, title="demo")
    raise typer.Exit(EXIT_OK if result["is_complete"] else EXIT_FAILED)


@app.command("run")
def run_experiment(
    recipe: Annotated[str, typer.Argument(help="FAMILY:NAME, as in spine:lfw. `ppfr run list` lists them.")],
    preset: Annotated[str, typer.Option(help="fast-test (seconds), laptop (two cores) or paper (GPU).")] = "laptop",
    out: Annotated[Path | None, typer.Option(help="Directory for the run. Default: runs/FAMILY-NAME-PRESET.")] = None,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Run a whole experiment and write its record and report.

        ppfr run spine:lfw --preset laptop --data DIR --weights DIR

    Every finished part is kept; after an interruption, the same command with --resume goes on.
    """
    from ppfr.recipes import list_recipes, run_recipe

    if recipe == "list":
        emit(list_recipes(), as_json=json, title="recipes")
        return
    family, _, name = recipe.partition(":")
    directory = out if out is not None else Path("runs") / f"{family}-{name}-{preset}"
    result = run_recipe(
        recipe, preset=preset, out_dir=directory, seed=seed, device=device, resumes=resume, data=data, weights=weights
    )
    emit(result, as_json=json, title=recipe)
    raise typer.Exit(EXIT_OK if result["is_complete"] else EXIT_FAILED)


@app.command()
def report(
    records: Annotated[
        list[Path], typer.Argument(help="One or several record.json files; several are shown side by side.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    pictures: Annotated[bool, typer.Option(help="Show the pictures kept beside the record.")] = True,
    json: Json = False,
) -> None:
    """Write the report of finished (or half-finished) runs again, from their records.

    ppfr report runs/spine-lfw-laptop/record.json --out report.html --no-pictures
    """
    from ppfr.recipes import write_reports

    emit(write_reports(records, out, with_pictures=pictures), as_json=json, title="report")
