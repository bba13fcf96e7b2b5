"""`ppfr analyse-channels`: which frequency channels make a face visible and which identify it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppfr.cli._app import Data, Device, Json, Resume, Seed, Weights, app, emit
from ppfr.cli._choices import AnalysisPreset


@app.command("analyse-channels")
def analyse_channels(
    preset: Annotated[
        AnalysisPreset,
        typer.Option(help="fast-test: synthetic faces, seconds, meaningless results. laptop: lfw-train, two cores."),
    ] = "laptop",
    penalty_weight: Annotated[
        list[float] | None,
        typer.Option(
            help="Weight of the visibility penalty relative to the task loss; repeat for several rows. Default: set by "
            "the preset.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the run. Default: runs/ppfr-fd-analysis-PRESET.", show_default=False),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    seed: Seed = 1,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Find the frequency channels that PPFR-FD can drop, with gates that are penalised for visible channels.

    ppfr analyse-channels --preset laptop --data DIR --weights DIR

    Writes OUT/channels.json: for each penalty weight, the channels kept and dropped, the share of energy kept, and the
    task loss on held-out images.
    """
    from ppfr.core import RunOptions
    from ppfr.experiments.ppfr_fd import analyse_channels as analyse

    result = analyse(
        preset=preset,
        seed=seed,
        options=RunOptions(run_dir=out or Path("runs") / f"ppfr-fd-analysis-{preset}", device=device, resumes=resume),
        data=data,
        weights=weights,
        penalty_weights=penalty_weight or None,
    )
    emit(result, as_json=json, title="ppfr-fd:analysis")
