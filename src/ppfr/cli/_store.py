"""`ppfr data`, `ppfr models` and `ppfr doctor`: what is on this machine, and how to get what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import EXIT_FAILED, EXIT_OK, Data, Json, Weights, app, emit, out

data_app = typer.Typer(help="Real faces: what is there, and how to get it.", no_args_is_help=True)
models_app = typer.Typer(help="Networks: the public ones by name, and your own by file.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")


@data_app.command("list")
def list_data(data: Data = None, json: Json = False) -> None:
    """Which data sets are in the data directory, with images and people of each."""
    from ppfr.recipes import describe_data

    emit(describe_data(data), as_json=json, title="data")


@data_app.command("check")
def check_data(
    source: Annotated[
        str, typer.Argument(help="lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, a folder, .rec or .tar.")
    ],
    data: Data = None,
    json: Json = False,
) -> None:
    """Read every image of a set and list all problems at once."""
    from ppfr.recipes import check_images

    emit(check_images(source, data=data), as_json=json, title="all images can be read")


@data_app.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="lfw")],
    data: Annotated[Path, typer.Option(help="Directory to fill.")],
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Download a data set from its public source (checksummed, resumed where it broke off) and align it.

    ppfr data fetch lfw --data DIR --weights DIR
    """
    from ppfr.recipes import fetch_data_set

    emit(fetch_data_set(name, data, weights=weights), as_json=json, title="fetched")


@data_app.command("synthetic")
def make_synthetic(
    out: Annotated[Path, typer.Option(help="Directory to fill: a folder a person.")],
    subjects: Annotated[int, typer.Option(help="How many people.")] = 20,
    images: Annotated[int, typer.Option(help="Images a person.")] = 10,
    seed: Annotated[int, typer.Option(help="Which people.")] = 1,
    json: Json = False,
) -> None:
    """Write synthetic faces as image files, to look at or to try the other commands on."""
    from ppfr.recipes import write_synthetic

    emit(write_synthetic(out, num_subjects=subjects, images_per_subject=images, seed=seed), as_json=json)


@models_app.command("list")
def list_models(weights: Weights = None, json: Json = False) -> None:
    """The public networks that ppfr knows by name, their licence, and whether they are here."""
    from ppfr.recipes import describe_models

    rows = describe_models(weights)
    if json:
        emit({"models": rows}, as_json=True)
        return
    for row in rows:
        emit(row, as_json=False, title=str(row.pop("name")))
        out.print()


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A public network's name, or a .safetensors file.")],
    weights: Weights = None,
    json: Json = False,
) -> None:
    """The card of a network: what it is, what it was trained on, whom it may have seen, under which terms."""
    from ppfr.recipes import describe_model

    emit(describe_model(model, weights=weights), as_json=json)


@models_app.command("export")
def export_model(
    model: Annotated[str, typer.Argument(help="A public network's name, or a .safetensors file.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Write a network as ONNX and check that onnxruntime gives the same embeddings.

    ppfr models export mobilefacenet-y1 --out y1.onnx
    """
    from ppfr.recipes import export_network

    emit(export_network(model, out, weights=weights), as_json=json, title="exported")


@app.command()
def doctor(data: Data = None, weights: Weights = None, json: Json = False) -> None:
    """What this machine has: versions, device, memory, data, weights, extras, and what is missing for which job."""
    from ppfr.recipes import examine_machine

    report = examine_machine(data=data, weights=weights)
    emit(report, as_json=json, title="doctor")
    raise typer.Exit(EXIT_OK if report["can_run_demo"] else EXIT_FAILED)
