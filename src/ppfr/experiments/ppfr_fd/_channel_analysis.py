"""`ppfr-fd:analysis`: which frequency channels PPFR-FD can drop, determined by training."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ppfr
from ppfr.assets import write_atomically
from ppfr.core import CheckpointError, DatasetError, ImageSet, InvalidInputError, RunOptions, choose_device, derive_seed
from ppfr.data import StoredImageSet, float_images
from ppfr.masking import FrequencyChannels
from ppfr.metrics import mean_with_interval
from ppfr.models import Backbone
from ppfr.systems import FineTuning, FromScratch, TrainingStrategy, read_images
from ppfr.training import (
    Batch,
    ChannelAnalysisTask,
    FineTuningTask,
    FitRecord,
    MarginTask,
    OptimizerSettings,
    Plan,
    TrainingTask,
    fit,
)

EXPERIMENT = "ppfr-fd:analysis"
ANALYSIS_PRESETS = ("fast-test", "laptop")
ANALYSIS_FILE = "channels.json"
_CANDIDATES = 37  # DC and the 36 channels that PPFR-FD keeps by default
_MIN_IMAGES = 3  # images of a subject, so that one can be held out
_EVALUATED_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalysisBudget:
    """Compute budget of an analysis, equal for all penalty weights.

    Attributes:
        images: image set, a name for `read_images`.
        start: training strategy of the initial recogniser, which gets every candidate channel.
        plan: plan of the joint training of gates and recogniser, one per weight.
        optimizer: optimizer of that training.
        gate_lr_scale: see `ChannelAnalysisTask`.
        penalty_weights: in increasing order; 0 is the control, trained equally long without a penalty.
        num_held_out: number of held-out images, one per subject, on which the loss of the task is measured.
        num_resamples: bootstrap resamples per interval.
    """

    images: str
    start: TrainingStrategy
    plan: Plan
    optimizer: OptimizerSettings
    gate_lr_scale: float
    penalty_weights: tuple[float, ...]
    num_held_out: int
    num_resamples: int


def analysis_budget(preset: str, *, weights: Path | None) -> AnalysisBudget:
    """The budget of a preset.

    Args:
        preset: "fast-test" (synthetic faces, seconds, labels as the task) or "laptop" (lfw-train, the embeddings of
            mobilefacenet-y1 as the task).
        weights: directory of public networks, or None for PPFR_WEIGHTS.

    Raises:
        InvalidInputError: the preset is unknown.
    """
    if preset == "fast-test":
        return _fast_test()
    if preset == "laptop":
        return _laptop(weights)
    raise InvalidInputError(f"{EXPERIMENT} has no preset {preset!r}; available: {', '.join(ANALYSIS_PRESETS)}")


def _fast_test() -> AnalysisBudget:
    return AnalysisBudget(
        images="synthetic:16x5",
        start=FromScratch(
            plan=Plan(epochs=4, batch_size=16, warmup_steps=2),
            network="mobilefacenet-small",
            head="cosface",
            scale=32.0,
            margin=0.2,
            optimizer=OptimizerSettings(optimizer="adamw", lr=4e-3, weight_decay=1e-2),
        ),
        plan=Plan(epochs=2, batch_size=16, schedule="constant"),
        optimizer=OptimizerSettings(optimizer="adamw", lr=2e-3, weight_decay=1e-2),
        gate_lr_scale=150.0,  # so that gates can close in as few steps
        penalty_weights=(0.0, 1e3),
        num_held_out=8,
        num_resamples=100,
    )


def _laptop(weights: Path | None) -> AnalysisBudget:
    return AnalysisBudget(
        images="lfw-train",
        start=FineTuning(
            plan=Plan(epochs=1, batch_size=64, warmup_steps=10, clip_norm=5.0, checkpoint_every_steps=50),
            weights=weights,
        ),
        plan=Plan(epochs=1, batch_size=64, max_steps=50, warmup_steps=5, checkpoint_every_steps=25),
        optimizer=OptimizerSettings(optimizer="adamw", lr=5e-4, weight_decay=1e-4),
        gate_lr_scale=200.0,
        penalty_weights=(0.0, 0.1, 0.5, 2.0),
        num_held_out=256,
        num_resamples=1000,
    )


def analyse_channels(
    *,
    preset: str,
    seed: int,
    options: RunOptions,
    data: Path | None = None,
    weights: Path | None = None,
    penalty_weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Train the channel analysis for each penalty weight and write the table.

    First a recogniser is trained on all candidates (DC and the 36 lowest other channels of luma, plain block DCT).
    Then gates and recogniser are trained together, once per weight, each time from that recogniser and on the same
    batches. The loss of the task is measured on held-out images of subjects in the training set, with gates at 0 or 1.

    Args:
        preset: one of `ANALYSIS_PRESETS`.
        seed: seeds every random draw.
        options: `channels.json` and checkpoints are written to `run_dir`.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        penalty_weights: replace those of the preset.

    Returns:
        The table, one row per weight, and the path "record" of the complete record.

    Raises:
        InvalidInputError: the preset is unknown, or weights are negative or repeated.
        CheckpointError: `run_dir` holds an earlier run and `resumes` is false, or a run of another configuration.
        MissingAssetError: data or weights are not available.
        DeviceError: the device is not available.
    """
    choose_device(options.device)
    out_dir = options.directory
    budget = analysis_budget(preset, weights=weights)
    if penalty_weights is not None:
        budget = dataclasses.replace(budget, penalty_weights=tuple(penalty_weights))
    _check_weights(budget.penalty_weights)
    _refuse_earlier_analysis(out_dir, resumes=options.resumes)
    began = time.perf_counter()
    images = read_images(budget.images, data=data)
    if preset == "fast-test":
        images = images.cached()  # rendering a face takes as long as training on it
    run = _Run(budget=budget, images=images, seed=seed, options=options)
    given = "".join(f" --penalty-weight {weight:g}" for weight in penalty_weights or ())
    record = {
        "experiment": EXPERIMENT,
        "preset": preset,
        "command": f"ppfr analyse-channels --preset {preset} --seed {seed}{given}",
        "seed": seed,
        "ppfr_version": ppfr.__version__,
        **run.table(),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    path = out_dir / ANALYSIS_FILE
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return {**_summary(record), "record": str(path)}


class _Run:
    """One analysis: the data, the initial recogniser, a row per weight."""

    def __init__(self, *, budget: AnalysisBudget, images: StoredImageSet, seed: int, options: RunOptions) -> None:
        self._budget, self._seed, self._options = budget, seed, options
        self._masker = FrequencyChannels(num_channels=_CANDIDATES, keeps_dc=True)
        held_out = _held_out(images, budget.num_held_out, seed=seed)
        kept = np.setdiff1d(np.arange(len(images)), held_out)
        self._training = images.subset(kept.tolist(), name=f"{images.name}-less-held-out")
        self._held_out = images.subset(held_out.tolist(), name=f"{images.name}-held-out")
        self._classes = {subject: rank for rank, subject in enumerate(sorted(set(self._training.subject_ids)))}

    def table(self) -> dict[str, Any]:
        """The part of the record that is trained or measured."""
        start, network = self._budget.start.build(
            self._masker, num_classes=len(self._classes), seed=derive_seed(self._seed, "start")
        )
        first = self._fit(start, "start", plan=self._budget.start.plan)
        rows, analysis = [], None
        for number, weight in enumerate(self._budget.penalty_weights):
            analysis = self._analysis(start, network, weight)
            # All weights use one seed, and thus the same batches and draws, so that rows differ only by the weight.
            rows.append(self._row(analysis, self._fit(analysis, f"weight-{number}", plan=self._budget.plan)))
        assert analysis is not None
        channels = self._masker.kept_channels
        return {
            "data": {
                "name": self._training.name,
                "num_images": len(self._training),
                "num_subjects": len(self._classes),
                "num_held_out": len(self._held_out),
            },
            "masker": {"name": self._masker.name, "config": dict(self._masker.public_config())},
            "candidates": list(channels),
            "energies": dict(zip(map(str, channels), analysis.energies(), strict=True)),
            "task": _task_name(analysis),
            "provenance": [{"name": c.name, "training_data": c.training_data} for c in self._budget.start.cards()],
            "start": first.as_dict(),
            "rows": rows,
        }

    def _analysis(self, start: TrainingTask, network: Backbone, weight: float) -> ChannelAnalysisTask:
        task: dict[str, Any] = {}
        if isinstance(start, FineTuningTask):
            task = {"teacher": start.teacher, "teacher_card": start.teacher_card}
        elif isinstance(start, MarginTask):
            task = {"head": copy.deepcopy(start.head)}
        return ChannelAnalysisTask(
            self._masker,
            copy.deepcopy(network),
            **task,
            penalty_weight=weight,
            gate_lr_scale=self._budget.gate_lr_scale,
            optimizer=self._budget.optimizer,
            provenance=self._budget.start.cards(),
        )

    def _fit(self, task: TrainingTask, name: str, *, plan: Plan) -> FitRecord:
        return fit(
            task,
            self._training,
            plan=plan,
            seed=derive_seed(self._seed, "start" if name == "start" else "analysis"),
            options=dataclasses.replace(self._options, run_dir=self._options.directory / "training" / name),
        )

    def _row(self, analysis: ChannelAnalysisTask, record: FitRecord) -> dict[str, Any]:
        names = self._masker.kept_channels
        kept = analysis.channels_kept()
        dropped = [place for place in range(len(names)) if place not in kept]
        return {
            "penalty_weight": analysis.penalty_weight,
            "channels_kept": [names[place] for place in kept],
            "channels_dropped": [names[place] for place in dropped],
            "energy_share_kept": analysis.energy_share(kept),
            "task_loss": self._loss(analysis, kept),
            "task_loss_of_all_channels": self._loss(analysis, range(len(names))),
            "gates": dict(zip(map(str, names), analysis.gates(), strict=True)),
            "training": record.as_dict(),
        }

    def _loss(self, analysis: ChannelAnalysisTask, places: Sequence[int]) -> dict[str, Any]:
        """Mean loss of the task over the held-out images, with gates at 0 or 1."""
        device, losses = choose_device(self._options.device), []
        analysis.eval().to(device)
        for start in range(0, len(self._held_out), _EVALUATED_AT_ONCE):
            indices = list(range(start, min(start + _EVALUATED_AT_ONCE, len(self._held_out))))
            rng = torch.Generator().manual_seed(derive_seed(self._seed, "held-out", start))
            batch = _batch(self._held_out, indices, classes=self._classes, device=device)
            losses.append(analysis.task_losses_with(places, batch, rng=rng).cpu().numpy())
        estimate = mean_with_interval(
            np.concatenate(losses),
            list(self._held_out.subject_ids),
            seed=derive_seed(self._seed, "interval"),
            num_resamples=self._budget.num_resamples,
        )
        return estimate.to_dict()


def _batch(images: ImageSet, indices: Sequence[int], *, classes: dict[str, int], device: torch.device) -> Batch:
    pixels = float_images(images.read(indices))
    labels = torch.tensor([classes[images.subject_ids[index]] for index in indices], dtype=torch.int64)
    return Batch(
        images_BCHW=pixels.to(device), labels_B=labels.to(device), indices_B=torch.tensor(indices, dtype=torch.int64)
    )


def _held_out(images: ImageSet, most: int, *, seed: int) -> np.ndarray:
    """Indices of the last image of up to `most` random subjects with enough images.

    Raises:
        DatasetError: fewer than two subjects have enough images.
    """
    subjects, index_N, count_S = np.unique(np.asarray(images.subject_ids), return_inverse=True, return_counts=True)
    enough = np.flatnonzero(count_S >= _MIN_IMAGES)
    if len(enough) < 2:
        raise DatasetError(
            f"only {len(enough)} of {len(subjects)} subjects in {images.name!r} have at least {_MIN_IMAGES} images; "
            "the analysis needs two of them to hold out images, so use a larger image set"
        )
    rng = np.random.default_rng(derive_seed(seed, "held-out"))
    chosen = rng.choice(enough, size=min(most, len(enough)), replace=False)
    last_S = np.zeros(len(subjects), dtype=np.int64)
    np.maximum.at(last_S, index_N, np.arange(len(index_N)))
    return np.sort(last_S[chosen])


def _task_name(analysis: ChannelAnalysisTask) -> str:
    if analysis.teacher_card is not None:
        return f"1 - cosine to the embedding of {analysis.teacher_card.name} on the plain image"
    return "the margin head's loss on the labels"


def _check_weights(weights: Sequence[float]) -> None:
    if not weights or any(not 0 <= weight < float("inf") for weight in weights) or len(set(weights)) != len(weights):
        raise InvalidInputError(
            f"penalty weights are {', '.join(f'{weight:g}' for weight in weights) or 'empty'}; give one or more "
            "different numbers of at least 0"
        )


def _refuse_earlier_analysis(out_dir: Path, *, resumes: bool) -> None:
    if not resumes and any((out_dir / name).exists() for name in (ANALYSIS_FILE, "training")):
        raise CheckpointError(
            f"{out_dir} holds an earlier run; continue it with --resume, or choose another directory with --out"
        )


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of the record that the command prints."""
    return {
        "experiment": record["experiment"],
        "task": record["task"],
        "images": record["data"]["num_images"],
        "held_out": record["data"]["num_held_out"],
        "rows": [
            {
                "name": f"weight {row['penalty_weight']:g}",
                "channels_kept": row["channels_kept"],
                "channels_dropped": row["channels_dropped"],
                "energy_share_kept": row["energy_share_kept"],
                "task_loss": row["task_loss"],
                "task_loss_of_all_channels": row["task_loss_of_all_channels"],
            }
            for row in record["rows"]
        ],
        "wall_s": record["wall_s"],
    }
