"""Training on several devices: one spawned process each, and getting the result and any error back from them."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from lightning.fabric import Fabric
from torch import Tensor

import ppfr.core
from ppfr.core import InvalidInputError, PpfrError
from ppfr.training._checkpoint import find_checkpoints, load_checkpoint
from ppfr.training._devices import fabric_notes_unheard
from ppfr.training._loop import Job, load_learned_state, run_loop
from ppfr.training._objective import Objective
from ppfr.training._record import FitRecord


class _Parcel:
    """What each process gets besides the objective.

    A plain class: Fabric walks through dataclasses and containers among its arguments and would take them apart.
    """

    def __init__(self, job: Job, rebuild: Callable[[], Objective] | None, state: dict[str, Tensor]) -> None:
        self.job, self.rebuild, self.state = job, rebuild, state


def fit_in_processes(
    fabric: Fabric, objective: Objective, job: Job, *, rebuild: Callable[[], Objective] | None
) -> FitRecord:
    """Run the loop in as many processes as the fabric has devices; put the trained weights into `objective`.

    Raises:
        InvalidInputError: something cannot be handed to another process.
        PpfrError: what one of the processes raised, of the class it was raised with.
    """
    assert job.checkpoints is not None
    home = next(objective.parameters()).device
    # CUDA tensors are shared with spawned processes, not copied; each process moves its own copy to its device.
    objective.to("cpu")
    try:
        if rebuild is None:
            _check_can_travel(objective, "the objective", "give rebuild=, a function that builds it in each process")
            parcel, sent = _Parcel(job, None, {}), objective
        else:
            _check_can_travel(rebuild, "rebuild", "define it at the top of a module")
            parcel, sent = _Parcel(job, rebuild, objective.state_dict()), None
        _check_can_travel(job.images, f"the image set {job.images.name!r}", "use one that is read from files")
        launch: Callable[..., str] = fabric.launch
        with fabric_notes_unheard():
            facts = json.loads(launch(_run_rank, sent, parcel))
        path = find_checkpoints(job.checkpoints)[-1]
        load_learned_state(objective, load_checkpoint(path)[0], path=path)
    except torch.multiprocessing.ProcessRaisedException as error:
        raise _own_error(str(error)) from error
    finally:
        objective.eval().to(home)
    return FitRecord(**facts)


def _run_rank(fabric: Fabric, sent: Objective | None, parcel: _Parcel) -> str:
    """One process; its result goes back as text, which every way of starting processes can carry."""
    objective = sent
    if objective is None:
        assert parcel.rebuild is not None
        objective = parcel.rebuild()
        objective.load_state_dict(parcel.state)
    return json.dumps(run_loop(fabric, objective, parcel.job).as_dict())


class _Probe(pickle.Pickler):
    """Pickles all but the numbers, to learn whether an object can be pickled without doing the work."""

    def persistent_id(self, obj: Any) -> str | None:
        return "numbers" if isinstance(obj, Tensor | np.ndarray) else None


def _check_can_travel(thing: object, what: str, remedy: str) -> None:
    try:
        _Probe(io.BytesIO()).dump(thing)
    except Exception as error:  # pickling raises whatever an object's own hooks raise
        raise InvalidInputError(f"{what} cannot be handed to another process ({error}); {remedy}") from error


def _own_error(report: str) -> PpfrError:
    """The error that a process raised, from its traceback's last line."""
    found = re.search(r"^ppfr\.core\._errors\.(\w+): (.*)", report, flags=re.MULTILINE | re.DOTALL)
    kind = getattr(ppfr.core, found.group(1), None) if found else None
    if found and kind is not None and not any("__init__" in vars(c) for c in kind.__mro__ if issubclass(c, PpfrError)):
        error: PpfrError = kind(found.group(2).strip())
        return error
    return PpfrError(f"a training process failed:\n{report.strip()}")
