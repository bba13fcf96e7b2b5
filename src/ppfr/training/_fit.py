"""`fit`: checks, devices and processes around the loop."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from lightning.fabric import Fabric

import ppfr.core
from ppfr.core import CheckpointError, DatasetError, ImageSet, InvalidInputError, PpfrError
from ppfr.training._batches import describe_images
from ppfr.training._checkpoint import find_checkpoints, load_checkpoint, state_digest
from ppfr.training._devices import deterministic_kernels, fabric_notes_unheard, make_fabric
from ppfr.training._loop import Job, Loop, load_learned_state
from ppfr.training._objective import Objective, as_json
from ppfr.training._plan import Plan
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
    data = describe_images(images)
    if plan.num_steps(len(images)) == 0:
        raise DatasetError(
            f"{images.name!r} has {len(images)} images and a batch has {plan.batch_size}; use a smaller batch_size"
        )
    objective.check_data(num_classes=data["num_subjects"])
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
    if run_dir is None and num_devices > 1:
        # Processes hand their result over as a file.
        with tempfile.TemporaryDirectory() as folder:
            return _fit_in_processes(fabric, objective, dataclasses.replace(job, run_dir=Path(folder)))
    if num_devices > 1:
        return _fit_in_processes(fabric, objective, job)
    home = next(objective.parameters()).device
    try:
        return _run(fabric, objective, job)
    finally:
        objective.eval().to(home)


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


def _run(fabric: Fabric, objective: Objective, job: Job) -> FitRecord:
    with fabric_notes_unheard(), deterministic_kernels(job.plan.is_deterministic):
        return Loop(fabric, objective, job).run()


def _run_rank(fabric: Fabric, objective: Objective, parcel: _Parcel) -> str:
    """One spawned process; its result goes back as text, which every start method can carry."""
    return json.dumps(_run(fabric, objective, parcel.job).as_dict())


class _Parcel:
    """Keeps Fabric, which walks through dataclasses among its arguments, from taking the job apart."""

    def __init__(self, job: Job) -> None:
        self.job = job


def _fit_in_processes(fabric: Fabric, objective: Objective, job: Job) -> FitRecord:
    assert job.checkpoints is not None
    home = next(objective.parameters()).device
    # CUDA tensors cannot be unshared between spawned processes; each of them moves its own copy to its device.
    objective.to("cpu")
    try:
        with fabric_notes_unheard():
            launch: Callable[..., str] = fabric.launch
            facts = json.loads(launch(_run_rank, objective, _Parcel(job)))
    except torch.multiprocessing.ProcessRaisedException as error:
        raise _own_error(str(error)) from error
    path = find_checkpoints(job.checkpoints)[-1]
    tensors, _ = load_checkpoint(path)
    load_learned_state(objective, tensors, path=path)
    objective.eval().to(home)
    return FitRecord(**facts)


def _own_error(report: str) -> PpfrError:
    """The error that a process raised, from its traceback's last line."""
    found = re.search(r"^ppfr\.core\._errors\.(\w+): (.*)", report, flags=re.MULTILINE | re.DOTALL)
    kind = getattr(ppfr.core, found.group(1), PpfrError) if found else PpfrError
    if found and kind.__init__ is Exception.__init__:
        return kind(found.group(2).strip())
    return PpfrError(f"a training process failed:\n{report.strip()}")
