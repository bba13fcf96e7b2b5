"""Training on several devices: one spawned process per device, which returns its result or error."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException

import ppfr.core
from ppfr.core import InvalidInputError, PpfrError
from ppfr.training._checkpoint import find_checkpoints, load_checkpoint
from ppfr.training._devices import ignored_fabric_warnings
from ppfr.training._loop import Job, load_learned_state, run_loop
from ppfr.training._record import FitRecord
from ppfr.training._task import TrainingTask

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class _Parcel:
    """The inputs of each process other than the task.

    This is a plain class because Fabric traverses dataclasses and containers among its arguments.
    """

    def __init__(self, job: Job, rebuild: Callable[[], TrainingTask] | None, state: dict[str, Tensor]) -> None:
        self.job, self.rebuild, self.state = job, rebuild, state


def fit_in_processes(
    fabric: Fabric, task: TrainingTask, job: Job, *, rebuild: Callable[[], TrainingTask] | None
) -> FitRecord:
    """Run the loop in one process per device of the fabric, and load the trained weights into `task`.

    Raises:
        InvalidInputError: an argument cannot be pickled.
        PpfrError: the error of one of the processes, with the same class.
    """
    assert job.checkpoints is not None
    home = next(task.parameters()).device
    # CUDA tensors would be shared with spawned processes. On the CPU, each process moves a copy to its device.
    task.to("cpu")
    try:
        if rebuild is None:
            _check_can_be_pickled(task, "the task", "give rebuild=, a function that builds it in each process")
            parcel, sent = _Parcel(job, None, {}), task
        else:
            _check_can_be_pickled(rebuild, "rebuild", "define it at module level")
            parcel, sent = _Parcel(job, rebuild, task.state_dict()), None
        _check_can_be_pickled(
            job.images, f"the image set {job.images.name!r}", "use an image set that reads its images from files"
        )
        launch: Callable[..., str] = fabric.launch
        with ignored_fabric_warnings():
            facts = json.loads(launch(_run_rank, sent, parcel))
        path = find_checkpoints(job.checkpoints)[-1]
        load_learned_state(task, load_checkpoint(path)[0], path=path)
    except ProcessRaisedException as error:
        raise _own_error(str(error)) from error
    finally:
        task.eval().to(home)
    return FitRecord(**facts)


def _run_rank(fabric: Fabric, sent: TrainingTask | None, parcel: _Parcel) -> str:
    """Run one process. It returns text, which every start method can transfer."""
    task = sent
    if task is None:
        assert parcel.rebuild is not None
        task = parcel.rebuild()
        task.load_state_dict(parcel.state)
    return json.dumps(run_loop(fabric, task, parcel.job).as_dict())


class _Probe(pickle.Pickler):
    """Pickles everything except tensors and arrays, to check cheaply whether an object can be pickled."""

    def persistent_id(self, obj: Any) -> str | None:
        return "numbers" if isinstance(obj, Tensor | np.ndarray) else None


def _check_can_be_pickled(thing: object, what: str, remedy: str) -> None:
    try:
        _Probe(io.BytesIO()).dump(thing)
    except Exception as error:  # the hooks of an object may raise anything
        raise InvalidInputError(f"{what} cannot be passed to another process ({error}); {remedy}") from error


def _own_error(report: str) -> PpfrError:
    """The error of a process, parsed from the last line of its traceback."""
    found = re.search(r"^ppfr\.core\._errors\.(\w+): (.*)", report, flags=re.MULTILINE | re.DOTALL)
    kind = getattr(ppfr.core, found.group(1), None) if found else None
    if found and kind is not None and not any("__init__" in vars(c) for c in kind.__mro__ if issubclass(c, PpfrError)):
        error: PpfrError = kind(found.group(2).strip())
        return error
    return PpfrError(f"a training process failed:\n{report.strip()}")
