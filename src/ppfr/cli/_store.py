"""`ppfr data`, `ppfr models` and `ppfr doctor`: available data and networks, and how to get missing ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import EXIT_FAILED, EXIT_OK, Data, Json, Weights, app, emit, help_if_alone
from ppfr.cli._completion import image_sets, offering, public_networks

data_app = typer.Typer(help="List, check, download and generate face data sets.")
models_app = typer.Typer(help="List, download, inspect and export networks: public ones by name, your own by file.")
for _group, _name in ((data_app, "data"), (models_app, "models")):
    _group.callback(invoke_without_command=True)(help_if_alone)
    app.add_typer(_group, name=_name)

Model = Annotated[
    str,
    typer.Argument(
        help="A public network's name, a .safetensors file, or the directory of a trained system.",
        autocompletion=offering(public_networks),
    ),
]


@data_app.command("list")
def list_data(data: Data = None, json: Json = False) -> None:
    """List the data sets in the data directory, with the number of images and people.

    ppfr data list --data DIR
    """
    from ppfr.workflows import describe_data

    emit(describe_data(data), as_json=json, title="data")


@data_app.command("check")
def check_data(
    source: Annotated[
        str,
        typer.Argument(
            help="lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, a folder with one folder per subject, .rec or .tar.",
            autocompletion=offering(image_sets),
        ),
    ],
    data: Data = None,
    json: Json = False,
) -> None:
    """Read every image of a data set and list all problems.

    ppfr data check photos/
    """
    from ppfr.workflows import check_images

    emit(check_images(source, data=data), as_json=json, title="all images can be read")


@data_app.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="Data set to download. Available: lfw.")],
    data: Annotated[Path, typer.Option(help="Output directory.")],
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Download a data set from its public source and align it. Checksums are verified; a download can be resumed.

    ppfr data fetch lfw --data DIR --weights DIR
    """
    from ppfr.workflows import fetch_data_set

    emit(fetch_data_set(name, data, weights=weights), as_json=json, title="fetched")


@data_app.command("synthetic")
def make_synthetic(
    out: Annotated[Path, typer.Option(help="Output directory, with one folder per subject.")],
    subjects: Annotated[int, typer.Option(help="Number of people.")] = 20,
    images: Annotated[int, typer.Option(help="Images per person.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed; another seed gives other people.")] = 1,
    json: Json = False,
) -> None:
    """Write synthetic faces as image files.

    ppfr data synthetic --out faces/ --subjects 20 --images 10
    """
    from ppfr.workflows import write_synthetic

    result = write_synthetic(out, num_subjects=subjects, images_per_subject=images, seed=seed)
    emit(result, as_json=json, title="synthetic faces")


@models_app.command("list")
def list_models(weights: Weights = None, json: Json = False) -> None:
    """List the public networks, their licences, and whether they are installed.

    ppfr models list --weights DIR
    """
    from ppfr.workflows import describe_models

    emit({"models": describe_models(weights)}, as_json=json, title="public networks")


@models_app.command("fetch")
def fetch_models(
    weights: Annotated[Path, typer.Option(help="Output directory.")],
    json: Json = False,
) -> None:
    """Download the networks that have a public source, and show how to get the others. Checksums are verified.

    ppfr models fetch --weights DIR
    """
    from ppfr.workflows import fetch_networks

    emit(fetch_networks(weights), as_json=json, title="fetched")


@models_app.command("show")
def show_model(
    model: Model,
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Show the model card of a network: architecture, training data, people it may have seen, licence.

    ppfr models show mobilefacenet-casia --weights DIR
    """
    from ppfr.workflows import describe_model

    emit(describe_model(model, weights=weights), as_json=json, title=model)


@models_app.command("export")
def export_model(
    model: Model,
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    weights: Weights = None,
    json: Json = False,
) -> None:
    """Export a network to ONNX and verify that onnxruntime computes the same embeddings.

    ppfr models export mobilefacenet-y1 --out y1.onnx --weights DIR
    """
    from ppfr.workflows import export_network

    emit(export_network(model, out, weights=weights), as_json=json, title="exported")


@app.command()
def doctor(data: Data = None, weights: Weights = None, json: Json = False) -> None:
    """Show versions, device, memory, data, weights and extras, and what is missing for each task.

    ppfr doctor --data DIR --weights DIR
    """
    from ppfr.workflows import examine_machine

    report = examine_machine(data=data, weights=weights)
    emit(report, as_json=json, title="doctor")
    raise typer.Exit(EXIT_OK if report["can_run_demo"] else EXIT_FAILED)
