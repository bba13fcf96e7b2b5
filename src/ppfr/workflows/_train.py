"""What `ppfr train` does: one masked recogniser, from words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ppfr.core import CheckpointError, InvalidInputError, choose_device
from ppfr.systems._catalogue import make_masker, needs_secret, read_images, read_or_create_secret
from ppfr.systems._mixing import check_batch, read_mixing
from ppfr.systems._strategies import Adapt, Distil, FitOptions, FromScratch, Way, check_names
from ppfr.systems._system import NETWORK_FILE, SECRET_FILE, save_system
from ppfr.training import Plan

WAYS = ("scratch", "distil", "adapt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What to train, in the command line's words.

    Attributes:
        images: a name that `read_images` knows.
        method: a key of `MASKERS`.
        way: one of `WAYS`.
        teacher: public network, for distil and adapt.
        network: a key of `NETWORKS`, for scratch and distil.
        head: a key of `HEADS`, for scratch.
        mix: a word that `read_mixing` knows, or None.
        passes: times every image is seen.
        batch_size: images a step, over all devices.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        seed: root of every draw.
    """

    images: str
    method: str
    way: str
    teacher: str
    network: str
    head: str
    passes: int
    batch_size: int
    precision: str
    seed: int
    mix: str | None = None


def train_system(
    request: TrainingRequest,
    *,
    out_dir: Path,
    secret_path: Path | None,
    data: Path | None,
    weights: Path | None,
    device: str,
    num_devices: int,
    resumes: bool,
    with_tensorboard: bool,
) -> dict[str, Any]:
    """Train, save, and tell the facts.

    Args:
        request: what to train.
        out_dir: for the system and, in `training/`, checkpoints and logs.
        secret_path: the deployment's secret; None for `out_dir`/secret.key. Drawn if the file is not there.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: processes side by side.
        resumes: go on with the run in `out_dir`.
        with_tensorboard: write scalars too.

    Raises:
        InvalidInputError: words that name nothing.
        CheckpointError: `out_dir` holds an earlier run and `resumes` is false, or belongs to another configuration.
        MissingAssetError: data or weights are not there.
        DeviceError: the device is not there.
    """
    choose_device(device)  # what can be refused is refused before a secret is drawn
    way = _way(request, weights)
    check_batch(way.mixing, request.batch_size // max(1, num_devices))
    is_keyed = needs_secret(request.method)
    _refuse_earlier_training(out_dir, resumes=resumes)
    images = read_images(request.images, data=data)
    secret, path = None, None
    if is_keyed:
        path = secret_path or out_dir / SECRET_FILE
        secret, _ = read_or_create_secret(path)
    masker = make_masker(request.method, secret=secret)
    options = FitOptions(
        run_dir=out_dir / "training",
        device=device,
        num_devices=num_devices,
        resumes=resumes,
        with_tensorboard=with_tensorboard,
        secret=secret,
    )
    system, record = way.train(masker, images, seed=request.seed, options=options)
    card = save_system(out_dir, system)
    return {
        "system": str(out_dir),
        "network": card.name,
        "sha256": card.sha256,
        "secret": str(path) if path else "none",
        "images": len(images),
        "steps": record.steps,
        "images_per_s": round(record.images_per_s, 1),
        "wall_s": round(record.wall_s, 1),
        **({} if not record.outcome else {"outcome": record.outcome}),
        "losses": {name: round(value, 4) for name, value in record.losses.items()},
        "may_have_seen": list(card.may_have_seen) or "nothing known",
        "next": f"ppfr evaluate --model {out_dir} --protocol lfw",
    }


def _refuse_earlier_training(out_dir: Path, *, resumes: bool) -> None:
    if not resumes and any((out_dir / name).exists() for name in (NETWORK_FILE, "training/checkpoints")):
        raise CheckpointError(
            f"{out_dir} holds an earlier run; add --resume to go on with it, or choose another directory with --out"
        )


def _way(request: TrainingRequest, weights: Path | None) -> Way:
    check_names(network=request.network, head=request.head, teacher=request.teacher)
    steps = {"batch_size": request.batch_size, "passes": request.passes, "precision": request.precision}
    plan = Plan(warmup_steps=50, clip_norm=5.0, checkpoint_every_steps=100, **steps)  # type: ignore[arg-type]
    mixing = read_mixing(request.mix)
    if request.way == "scratch":
        return FromScratch(plan=plan, network=request.network, head=request.head, mixing=mixing)
    if request.way == "distil":
        return Distil(plan=plan, teacher=request.teacher, weights=weights, network=request.network, mixing=mixing)
    if request.way == "adapt":
        return Adapt(plan=plan, teacher=request.teacher, weights=weights, mixing=mixing)
    raise InvalidInputError(f"no way of training is named {request.way!r}; there are {', '.join(WAYS)}")
