"""`fit`: checks its arguments, then runs the training loop in this process or in one process per device."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppfr.core import CheckpointError, DatasetError, ImageSet, InvalidInputError, RunOptions, as_json
from ppfr.training._batches import describe_images
from ppfr.training._checkpoint import find_checkpoints, state_digest
from ppfr.training._devices import make_fabric
from ppfr.training._loop import Job, run_loop
from ppfr.training._plan import Plan
from ppfr.training._processes import fit_in_processes
from ppfr.training._record import FitRecord
from ppfr.training._task import TrainingTask

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_DEFAULT_OPTIONS = RunOptions()


def fit(
    task: TrainingTask,
    images: ImageSet,
    *,
    plan: Plan,
    seed: int,
    options: RunOptions = _DEFAULT_OPTIONS,
    with_tensorboard: bool = False,
    rebuild: Callable[[], TrainingTask] | None = None,
    prepare: Callable[[], None] | None = None,
) -> FitRecord:
    """Train a task on an image set.

    Afterwards the task holds the trained weights. It is in evaluation mode, on the device that it was on before.

    Args:
        task: the networks and losses to train. Its parameters are changed in place.
        images: plain aligned crops. The task masks them itself.
        plan: epochs, batch size, schedule, precision and so on.
        seed: seeds every random draw: order, mirroring, masking, dropout.
        options: run directory, devices, resuming and progress. The run directory gets `checkpoints/`, `log.jsonl` and
            `tensorboard/`. With several devices, each process trains on an equal slice of every batch. The task and the
            image set are pickled to the processes, and a script needs `if __name__ == "__main__":`.
        with_tensorboard: write scalars to `tensorboard/` in the run directory.
        rebuild: required with several devices if the task cannot be pickled, for example because its masker has a
            secret. A module-level function that builds an equal task, with the same secret, in each process. The new
            task receives the weights of `task`.
        prepare: sets the initial weights of `task` from the data, where that takes time. It is called before the first
            step, and not if the run continues from a checkpoint.

    Returns:
        The record of the run.

    Raises:
        CheckpointError: the run directory holds an earlier run and `options.resumes` is False; or its checkpoint is
            damaged or has another configuration (the message lists the differences).
        DatasetError: the images do not fill one batch.
        DeviceError: the device is not available.
        InvalidInputError: settings contradict each other.
        RangeError: a loss is not finite.
        StorageError: the disk is full.
    """
    fabric = make_fabric(device=options.device, num_devices=options.num_devices, plan=plan)
    data = _checked_data(task, images, plan=plan)
    job = Job(
        images=images,
        plan=plan,
        seed=seed,
        options=options,
        with_tensorboard=with_tensorboard,
        configuration=_configuration(task, plan=plan, seed=seed, data=data, num_devices=options.num_devices),
        data=data,
    )
    _check_run_dir(job)
    if prepare is not None and not (options.resumes and job.checkpoints and find_checkpoints(job.checkpoints)):
        prepare()
    return _run(fabric, task, job, rebuild=rebuild)


def _run(fabric: Fabric, task: TrainingTask, job: Job, *, rebuild: Callable[[], TrainingTask] | None) -> FitRecord:
    """Run the loop in this process, or in one process per device."""
    if job.options.num_devices > 1:
        if job.options.run_dir is not None:
            return fit_in_processes(fabric, task, job, rebuild=rebuild)
        # The processes return their result as a file.
        with tempfile.TemporaryDirectory() as folder:
            options = dataclasses.replace(job.options, run_dir=Path(folder))
            return fit_in_processes(fabric, task, dataclasses.replace(job, options=options), rebuild=rebuild)
    home = next(task.parameters()).device
    try:
        return run_loop(fabric, task, job)
    finally:
        task.eval().to(home)


def _checked_data(task: TrainingTask, images: ImageSet, *, plan: Plan) -> dict[str, Any]:
    """Name, counts and checksums of the images, after checking that they fit the plan and the task."""
    data = describe_images(images)
    if plan.num_steps(len(images)) == 0:
        raise DatasetError(
            f"{images.name!r} has {len(images)} images and a batch has {plan.batch_size}; use a smaller batch_size"
        )
    task.check_data(num_classes=data["num_subjects"])
    return data


def _configuration(
    task: TrainingTask, *, plan: Plan, seed: int, data: dict[str, Any], num_devices: int
) -> dict[str, Any]:
    """The settings that a run and its resumption must share."""
    return {
        "task": as_json(task.describe()),
        "frozen_weights_sha256": state_digest(task.frozen_state()),
        "plan": plan.fingerprint(),
        "seed": seed,
        "data": data,
        "num_devices": num_devices,
    }


def _check_run_dir(job: Job) -> None:
    if job.checkpoints is None:
        if job.options.resumes:
            raise CheckpointError("resumes=True needs the run_dir of the earlier run, and run_dir is None")
        if job.with_tensorboard:
            raise InvalidInputError("with_tensorboard=True needs a run_dir to write to, and run_dir is None")
    elif not job.options.resumes and find_checkpoints(job.checkpoints):
        raise CheckpointError(
            f"{job.checkpoints} holds checkpoints of an earlier run; resume it with resumes=True, or choose another "
            "run directory"
        )
