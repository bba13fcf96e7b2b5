"""Running an experiment: stage by stage, keeping each one's result, going on after a crash."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from rich.console import Console

from ppfr.assets import write_record
from ppfr.core import PpfrError, Record, StorageError, choose_device, duration, without_paths
from ppfr.evaluation._assembly import stage_rows
from ppfr.evaluation._experiment import Experiment
from ppfr.evaluation._identity import as_json
from ppfr.evaluation._procedure import procedure_on_images, procedure_on_templates
from ppfr.evaluation._stages import Stage
from ppfr.evaluation._templates._experiment import TemplateExperiment
from ppfr.evaluation._workspace import Json, Workspace

_LOOK_AGAIN_S = 1.0


def run(
    experiment: Experiment | TemplateExperiment,
    *,
    out_dir: Path | str,
    resume: bool = False,
    device: str = "auto",
    num_devices: int = 1,
    progress: bool = True,
) -> Record:
    """Run an experiment and keep its record as `out_dir`/record.json.

    The record is written before the first stage and anew after each one, so what was measured is never lost. A stage
    that fails is recorded with its error; those that do not rest on it go on. Everything that can be refused beforehand
    is refused before anything is trained.

    Several processes may work on one run, each on a stage of its own: start the same with `resume`, on this machine or
    on another one that shares the folder. Each returns when all is done.

    Args:
        experiment: what to run, on masked images or on templates.
        out_dir: the run's folder; a new one, or with `resume` that of an earlier run of the same experiment.
        resume: go on: stages that are done are kept, failed and missing ones run, cut trainings are taken up.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: processes side by side that train each recogniser; attackers train on one, and templates need none.
        progress: print a line for each stage with the time to go, and the trainings' own progress, to stderr.

    Returns:
        The record; its "status" is "complete" or "failed".

    Raises:
        ProblemsError: the experiment does not fit together.
        OverlapError: training or public images share people with a test.
        ThreatModelError: an attack needs what its threat model does not grant.
        CheckpointError: `out_dir` holds an earlier run and `resume` is false, or a run of another configuration.
        DeviceError: the device is not there.
        StorageError: the disk refuses; what was measured before stays.
    """
    chosen = choose_device(device)
    workspace = Workspace(Path(out_dir))
    if isinstance(experiment, TemplateExperiment):
        procedure = procedure_on_templates(experiment, workspace, device=chosen)
    else:
        procedure = procedure_on_images(
            experiment, workspace, device=chosen, num_devices=num_devices, resumes=resume, progress=progress
        )
    workspace.claim(procedure.identity, resume=resume)
    stages = procedure.stages

    def write() -> Record:
        record = procedure.assemble()
        write_record(record, workspace.record_path)
        procedure.write_pictures()
        return record

    write()
    teller = _Teller(stages, workspace, is_shown=progress)
    tried: set[str] = set()
    while left := _left(stages, workspace, tried):
        worked = [number for number in left if _work_on(number, stages, workspace, tried, teller=teller, write=write)]
        if not worked:
            time.sleep(_LOOK_AGAIN_S)  # all that is due is in other hands
    return write()


def _left(stages: Sequence[Stage], workspace: Workspace, tried: Collection[str]) -> list[int]:
    """The stages that may yet be done: not done, not tried in this sitting, not resting on one that failed."""
    rows = stage_rows(stages, {stage.name: workspace.part(stage.name) for stage in stages})
    return [
        number for number, row in enumerate(rows) if row["status"] in ("pending", "failed") and row["name"] not in tried
    ]


def _work_on(
    number: int,
    stages: Sequence[Stage],
    workspace: Workspace,
    tried: set[str],
    *,
    teller: _Teller,
    write: Callable[[], Record],
) -> bool:
    """Do a stage if it is due and no other process is at it; whether it was done here."""
    stage = stages[number]
    if not _is_due(stage, stages, workspace):
        return False
    with workspace.working_on(stage.name) as is_ours:
        if not is_ours or not _is_due(stage, stages, workspace):
            return False
        teller.begin(number)
        _measure(stage, workspace)
    tried.add(stage.name)
    write()
    teller.end(number)
    return True


def _is_due(stage: Stage, stages: Sequence[Stage], workspace: Workspace) -> bool:
    """Not done yet, and everything that it rests on is."""
    parts = {each.name: workspace.part(each.name) for each in stages}
    states = {row["name"]: row["status"] for row in stage_rows(stages, parts)}
    return states[stage.name] != "done" and all(states[name] == "done" for name in stage.after)


def _measure(stage: Stage, workspace: Workspace) -> None:
    """Run one stage and keep what it leaves, or its error.

    A message of ours names nobody, so the record may hold it. Of any other error the record holds the kind alone; the
    rest goes to a file that stays with the run.
    """
    begun = time.perf_counter()
    part: Json = {"stage": stage.name, "status": "done", "error": None, "result": None}
    try:
        part["result"] = as_json(stage.measure())
    except StorageError:
        raise  # nothing more can be kept
    except PpfrError as error:
        part["error"] = {"kind": type(error).__name__, "message": without_paths(str(error))}
    except Exception as error:
        where = workspace.write_traceback(stage.name, traceback.format_exc())
        part["error"] = {"kind": type(error).__name__, "message": f"unexpected; the run's folder has {where}"}
    if part["error"] is not None:
        part["status"] = "failed"
    part["wall_s"] = round(time.perf_counter() - begun, 3)
    workspace.write_part(stage.name, part)


class _Teller:
    """One line for each stage on stderr, with the time to go."""

    def __init__(self, stages: Sequence[Stage], workspace: Workspace, *, is_shown: bool) -> None:
        self._stages, self._workspace, self._is_shown = stages, workspace, is_shown
        self._console = Console(stderr=True, highlight=False)

    def begin(self, number: int) -> None:
        self._say(number, "…")

    def end(self, number: int) -> None:
        part = self._workspace.part(self._stages[number].name)
        if part is None:
            return
        words = f"done in {duration(part['wall_s'])}"
        if part["status"] == "failed":
            words = f"failed after {duration(part['wall_s'])}: {part['error']['kind']}: {part['error']['message']}"
        self._say(number, f"{words}{self._time_to_go()}")

    def _time_to_go(self) -> str:
        """From the pace so far: stages carry rough weights."""
        done, wall_s, left = 0.0, 0.0, 0.0
        for stage in self._stages:
            part = self._workspace.part(stage.name)
            if part is None:
                left += stage.weight
            else:
                done, wall_s = done + stage.weight, wall_s + part["wall_s"]
        return f"; about {duration(wall_s / done * left)} to go" if done and left else ""

    def _say(self, number: int, words: str) -> None:
        if self._is_shown:
            title = self._stages[number].title
            self._console.print(f"[{number + 1}/{len(self._stages)}] {title} {words}", markup=False)
