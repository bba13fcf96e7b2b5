"""`fit`: checks, devices and processes around the loop."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from ppfr.core import CheckpointError, DatasetError, ImageSet, InvalidInputError
from ppfr.training._batches import describe_images
from ppfr.training._checkpoint import find_checkpoints, state_digest
from ppfr.training._devices import make_fabric
from ppfr.training._loop import Job, run_loop
from ppfr.training._objective import Objective, as_json
from ppfr.training._plan import Plan
from ppfr.training._processes import fit_in_processes
from ppfr.training._record import FitRecord


def fit(
    objective: Objective,
    images: ImageSet,
    *,
    plan: Plan,
    seed: int,
    run_dir: Path | str | None,
    device: str = "auto",
    num_devices: int = 1,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
    rebuild: Callable[[], Objective] | None = None,
    prepare: Callable[[], None] | None = None,
) -> FitRecord:
    """Train an objective on an image set.

    Afterwards the objective holds the trained weights, in evaluation mode, on the device that it was on before.

    Args:
        objective: what is trained; its parameters are changed in place.
        images: plain aligned crops; masking is the objective's business.
        plan: length, schedule, precision and so on.
        seed: root of every draw: order, mirroring, masking, dropout.
        run_dir: gets `checkpoints/`, `log.jsonl` and `tensorboard/`; None keeps nothing, so cannot resume.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: processes side by side, each with its equal slice of every batch; the objective and the image set
            are pickled to them, and a script needs the usual `if __name__ == "__main__":`.
        resume: go on from the last checkpoint in `run_dir`, if there is one.
        progress: a bar on a terminal, else a line on stderr each 30 s; False is quiet.
        tensorboard: write scalars under `run_dir`/tensorboard.
        rebuild: for several devices and an objective that refuses pickling, as one with a keyed masker does: a function
            of some module that builds such an objective (with the same secret) in each process; it then receives the
            weights of `objective`.
        prepare: gives `objective` its first weights from the data, where that takes time: called before the first step,
            and not where a checkpoint is taken up.

    Returns:
        The facts of the run.

    Raises:
        CheckpointError: `run_dir` holds an earlier run and `resume` is false; or its checkpoint is damaged, or belongs
            to another configuration (the message names what differs).
        DatasetError: the images do not fill one batch.
        DeviceError: the device is not there.
        InvalidInputError: settings that contradict each other.
        RangeError: a loss is not finite.
        StorageError: the disk is full.
    """
    fabric = make_fabric(device=device, num_devices=num_devices, plan=plan)
    data = _checked_data(objective, images, plan=plan)
    job = Job(
        images=images,
        plan=plan,
        seed=seed,
        run_dir=None if run_dir is None else Path(run_dir),
        is_resumed=resume,
        shows_progress=progress,
        with_tensorboard=tensorboard,
        configuration=_configuration(objective, plan=plan, seed=seed, data=data, num_devices=num_devices),
        data=data,
    )
    _check_run_dir(job)
    if prepare is not None and not (resume and job.checkpoints is not None and find_checkpoints(job.checkpoints)):
        prepare()
    return _run(fabric, objective, job, rebuild=rebuild)


def _run(fabric: Fabric, objective: Objective, job: Job, *, rebuild: Callable[[], Objective] | None) -> FitRecord:
    """Here, or in processes of their own."""
    if job.configuration["num_devices"] > 1:
        if job.run_dir is not None:
            return fit_in_processes(fabric, objective, job, rebuild=rebuild)
        # Processes hand their result over as a file.
        with tempfile.TemporaryDirectory() as folder:
            return fit_in_processes(fabric, objective, dataclasses.replace(job, run_dir=Path(folder)), rebuild=rebuild)
    home = next(objective.parameters()).device
    try:
        return run_loop(fabric, objective, job)
    finally:
        objective.eval().to(home)


def _checked_data(objective: Objective, images: ImageSet, *, plan: Plan) -> dict[str, Any]:
    """Facts of the images, which fill one batch at least and fit the objective."""
    data = describe_images(images)
    if plan.num_steps(len(images)) == 0:
        raise DatasetError(
            f"{images.name!r} has {len(images)} images and a batch has {plan.batch_size}; use a smaller batch_size"
        )
    objective.check_data(num_classes=data["num_subjects"])
    return data


def _configuration(
    objective: Objective, *, plan: Plan, seed: int, data: dict[str, Any], num_devices: int
) -> dict[str, Any]:
    """What a run and its resumption must agree on."""
    return {
        "objective": as_json(objective.describe()),
        "frozen_weights_sha256": state_digest(objective.frozen_state()),
        "plan": plan.identity(),
        "seed": seed,
        "data": data,
        "num_devices": num_devices,
    }


def _check_run_dir(job: Job) -> None:
    if job.checkpoints is None:
        if job.is_resumed:
            raise CheckpointError("resume=True needs a run_dir to find the checkpoints in, and run_dir is None")
        if job.with_tensorboard:
            raise InvalidInputError("tensorboard=True needs a run_dir to write to, and run_dir is None")
    elif not job.is_resumed and find_checkpoints(job.checkpoints):
        raise CheckpointError(
            f"{job.checkpoints} holds checkpoints of an earlier run; resume it, or choose another run directory"
        )
