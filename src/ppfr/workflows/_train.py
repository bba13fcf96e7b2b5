"""The workflow of `ppfr train`: trains one recogniser of masked faces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from ppfr.core import CheckpointError, InvalidInputError, RunOptions, choose_device
from ppfr.systems import (
    NETWORK_FILE,
    SECRET_FILE,
    TRAINED_ON_FILE,
    Distillation,
    FineTuning,
    FromScratch,
    TrainingStrategy,
    check_mixing_batch,
    make_masker,
    needs_secret,
    parse_mixing,
    read_images,
    read_or_create_secret,
    save_system,
)
from ppfr.training import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What to train, with the names of the command line.

    Attributes:
        images: a name that `read_images` accepts.
        method: a key of `MASKERS`.
        strategy: "scratch", "distill" or "finetune".
        teacher: pretrained network, for "distill" and "finetune".
        network: a key of `NETWORKS`, for "scratch" and "distill".
        head: a key of `HEADS`, for "scratch".
        mix: a mixing that `parse_mixing` accepts, or None.
        epochs: number of times that every image is used.
        batch_size: images per step, over all devices together.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        seed: seeds every random draw.
        lists_subjects: list the people of the training set as hashes of their names in trained-on.json.
    """

    images: str
    method: str
    strategy: Literal["scratch", "distill", "finetune"]
    teacher: str
    network: str
    head: str
    epochs: int
    batch_size: int
    precision: str
    seed: int
    mix: str | None = None
    lists_subjects: bool = True


def train_system(
    request: TrainingRequest,
    *,
    options: RunOptions,
    secret_path: Path | None,
    data: Path | None,
    weights: Path | None,
    with_tensorboard: bool,
) -> dict[str, Any]:
    """Train and save a system, and return facts about it.

    Args:
        request: what to train.
        options: devices, resuming and progress. `run_dir` gets the system and, in `training/`, checkpoints and logs.
        secret_path: file of the secret of the deployment; None for `run_dir`/secret.key. It is created if absent.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of pretrained networks, or None for PPFR_WEIGHTS.
        with_tensorboard: write TensorBoard scalars.

    Raises:
        InvalidInputError: a name is unknown, `options.run_dir` is None, a batch has one image per device, or the images
            show fewer than two people.
        CheckpointError: `run_dir` holds an earlier run and `options.resumes` is False, or the run has another
            configuration.
        MissingAssetError: data or weights are not available.
        DeviceError: the device is not available.
    """
    out_dir = options.run_dir
    if out_dir is None:
        raise InvalidInputError("`run_dir` must be a directory to save the system in, got None.")
    # Check all input before a secret is created.
    choose_device(options.device)
    strategy = _strategy(request, weights)
    if (per_device := request.batch_size // max(1, options.num_devices)) == 1:
        raise InvalidInputError(
            f"--batch-size {request.batch_size} gives {per_device} image per device, but batch normalisation needs at "
            "least 2. Use a larger --batch-size."
        )
    check_mixing_batch(strategy.mixing, request.batch_size // max(1, options.num_devices))
    is_keyed = needs_secret(request.method)
    _check_out_dir(out_dir, resumes=options.resumes)
    images = read_images(request.images, data=data)
    if (num_people := len(set(images.subject_ids))) < 2:
        raise InvalidInputError(
            f"--images {request.images} has {num_people} person, but a recogniser learns to tell people apart. Give "
            "images of at least 2."
        )
    secret, path = None, None
    if is_keyed:
        path = secret_path or out_dir / SECRET_FILE
        secret, _ = read_or_create_secret(path)
    masker = make_masker(request.method, secret=secret)
    system, record = strategy.train(
        masker,
        images,
        seed=request.seed,
        options=dataclasses.replace(options, run_dir=out_dir / "training"),
        secret=secret,
        with_tensorboard=with_tensorboard,
    )
    card = save_system(out_dir, system, lists_subjects=request.lists_subjects)
    return {
        "system": str(out_dir),
        "network": card.name,
        "sha256": card.sha256,
        "secret": str(path) if path else "none",
        "images": len(images),
        "people": num_people,
        "trained_on": f"{out_dir / TRAINED_ON_FILE}, {'with' if request.lists_subjects else 'without'} hashes of names",
        "steps": record.steps,
        "images_per_s": round(record.images_per_s, 1),
        "wall_s": round(record.wall_s, 1),
        **({} if not record.outcome else {"outcome": record.outcome}),
        "losses": {name: round(value, 4) for name, value in record.losses.items()},
        "may_have_seen": list(card.may_have_seen) or "nothing known",
        "next": f"ppfr evaluate --model {out_dir} --protocol lfw",
    }


def _check_out_dir(out_dir: Path, *, resumes: bool) -> None:
    if not resumes and any((out_dir / name).exists() for name in (NETWORK_FILE, "training/checkpoints")):
        raise CheckpointError(
            f"{out_dir} holds an earlier run. Continue it with --resume, or choose another directory with --out."
        )


def _strategy(request: TrainingRequest, weights: Path | None) -> TrainingStrategy:
    plan = Plan(
        epochs=request.epochs,
        batch_size=request.batch_size,
        precision=request.precision,
        warmup_steps=50,
        clip_norm=5.0,
        checkpoint_every_steps=100,
    )
    mixing = parse_mixing(request.mix)
    if request.strategy == "scratch":
        return FromScratch(plan=plan, network=request.network, head=request.head, mixing=mixing)
    if request.strategy == "distill":
        return Distillation(plan=plan, teacher=request.teacher, weights=weights, network=request.network, mixing=mixing)
    return FineTuning(plan=plan, teacher=request.teacher, weights=weights, mixing=mixing)
