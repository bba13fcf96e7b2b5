"""The runner: runs an experiment stage by stage, stores the rows of each stage, and resumes after a crash."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence

from rich.console import Console

from ppfr.assets import write_record
from ppfr.core import (
    Json,
    PpfrError,
    Record,
    RunOptions,
    StorageError,
    as_json,
    choose_device,
    duration,
    kind_of,
    without_paths,
)
from ppfr.evaluation._checks import check_experiment, check_stages, data_uses
from ppfr.evaluation._experiment import Experiment
from ppfr.evaluation._fingerprint import resolved_config, run_fingerprint
from ppfr.evaluation._measure import Stage
from ppfr.evaluation._picture_files import write_index
from ppfr.evaluation._provenance import describe_data, software
from ppfr.evaluation._record import RecordWriter, stage_entries
from ppfr.evaluation._session import Session
from ppfr.evaluation._workspace import Workspace

_LOOK_AGAIN_S = 1.0


def run(
    experiment: Experiment,
    *,
    options: RunOptions,
) -> Record:
    """Run an experiment and write its record to record.json in `options.run_dir`.

    The record is written before the first stage and again after each stage, so no result is lost. If a stage fails,
    its error is recorded, and stages that do not depend on it still run. An experiment with problems is rejected before
    anything is trained.

    Several processes can share one run. Start the same experiment with `resumes` on this machine, or on another one
    that shares the folder. Each process works on one stage at a time and returns when all stages are done.

    Args:
        experiment: the experiment.
        options: `run_dir` is the folder of the run. It must be new, unless `resumes` is true; then finished stages of
            an earlier run of the same experiment are kept. `num_devices` processes train each recogniser. Attacks
            train in one process.

    Returns:
        The record; its "status" is "complete" or "failed".

    Raises:
        ProblemsError: the experiment has problems; all are listed.
        OverlapError: training or public images share subjects with a protocol.
        ThreatModelError: an attack needs more than its threat model grants.
        CheckpointError: `run_dir` holds an earlier run and `resumes` is false, or a run of another configuration.
        DeviceError: the device is not available.
        StorageError: a file cannot be written. Earlier results are kept.
    """
    chosen = choose_device(options.device)
    workspace = Workspace(options.directory)
    check_experiment(experiment, device=str(chosen))
    stages = stages_of(Session(experiment, workspace, device=chosen, options=options))
    data = [describe_data(use) for use in data_uses(experiment)]
    config = resolved_config(experiment, data)
    workspace.claim(run_fingerprint(experiment, config), resume=options.resumes)
    writer = RecordWriter(experiment, stages, config=config, data=data, software=software(), device=chosen)

    def write() -> Record:
        record = writer.record({stage.name: workspace.part(stage.name) for stage in stages})
        write_record(record, workspace.record_path)
        _write_picture_index(experiment, workspace)
        return record

    write()
    reporter = _Reporter(stages, workspace, is_shown=options.shows_progress)
    tried: set[str] = set()
    while left := _left(stages, workspace, tried):
        worked = [_work_on(number, stages, workspace, tried, reporter=reporter, write=write) for number in left]
        if not any(worked):
            time.sleep(_LOOK_AGAIN_S)  # other processes work on every stage that can run now
    return write()


def stages_of(session: Session) -> list[Stage]:
    """The stages of all measures, each once, such that every stage comes after those that it depends on.

    Raises:
        ProblemsError: a stage depends on one that no measure has, or stages depend on each other.
    """
    found: dict[str, Stage] = {}
    for measure in session.experiment.measures:
        for stage in measure.stages(session):
            found.setdefault(stage.name, stage)
    check_stages(session.experiment, found)
    ordered: dict[str, Stage] = {}

    def put(stage: Stage) -> None:
        for name in stage.after:
            if name not in ordered:
                put(found[name])
        ordered[stage.name] = stage

    for stage in found.values():
        if stage.name not in ordered:
            put(stage)
    return list(ordered.values())


def _write_picture_index(experiment: Experiment, workspace: Workspace) -> None:
    """List the strips of faces that are there."""
    for measure in experiment.measures:
        rows = [dict(row) for row in measure.pictures(experiment)]
        present = [row for row in rows if (workspace.pictures / row["file"]).is_file()]
        if present:
            write_index(workspace.pictures, rows=present)


def _states(stages: Sequence[Stage], workspace: Workspace) -> dict[str, str]:
    parts = {stage.name: workspace.part(stage.name) for stage in stages}
    return {entry.name: entry.status for entry in stage_entries(stages, parts)}


def _left(stages: Sequence[Stage], workspace: Workspace, tried: Collection[str]) -> list[int]:
    """Numbers of the stages that may still run: not done, not tried by this process, no dependency has failed."""
    states = _states(stages, workspace)
    return [
        number
        for number, stage in enumerate(stages)
        if states[stage.name] in ("pending", "failed") and stage.name not in tried
    ]


def _work_on(
    number: int,
    stages: Sequence[Stage],
    workspace: Workspace,
    tried: set[str],
    *,
    reporter: _Reporter,
    write: Callable[[], Record],
) -> bool:
    """Run a stage if it is due and no other process works on it. Returns whether it ran here."""
    stage = stages[number]
    if not _is_due(stage, workspace):
        return False
    with workspace.working_on(stage.name) as is_ours:
        if not is_ours or not _is_due(stage, workspace):
            return False
        reporter.begin(number)
        _measure(stage, workspace)
    tried.add(stage.name)
    write()
    reporter.end(number)
    return True


def _is_due(stage: Stage, workspace: Workspace) -> bool:
    """Whether the stage is not done, but everything that it depends on is."""
    return not _is_done(stage.name, workspace) and all(_is_done(name, workspace) for name in stage.after)


def _is_done(name: str, workspace: Workspace) -> bool:
    part = workspace.part(name)
    return part is not None and part["status"] == "done"


def _measure(stage: Stage, workspace: Workspace) -> None:
    """Run one stage and store its rows or its error.

    Messages of `PpfrError` contain no personal data, so the record may hold them. Of any other error the record holds
    only the type. Its traceback is written to a file in the folder of the run.
    """
    begun = time.perf_counter()
    part: Json = {"stage": stage.name, "status": "done", "error": None, "result": None}
    try:
        part["result"] = [[kind_of(row), as_json(row)] for row in stage.measure()]
    except StorageError:
        raise  # no further result can be stored
    except PpfrError as error:
        part["error"] = {"kind": type(error).__name__, "message": without_paths(str(error))}
    except Exception as error:
        where = workspace.write_traceback(stage.name, traceback.format_exc())
        message = f"unexpected error; the traceback is in {where} in the folder of the run"
        part["error"] = {"kind": type(error).__name__, "message": message}
    if part["error"] is not None:
        part["status"] = "failed"
    part["wall_s"] = round(time.perf_counter() - begun, 3)
    workspace.write_part(stage.name, part)


def remaining_s(stages: Sequence[Stage], taken_s: Mapping[str, float]) -> float:
    """Estimated time of the stages that have not run, in seconds; 0 without an estimate, or if all have run.

    Stages of one kind (the part of the name before "/") take similar times per weight, and stages of different kinds do
    not: one second of embedding says little about a training. A kind that has run is therefore estimated by itself, and
    any other by all stages so far. While most of the remaining weight is of kinds that have not run, there is no
    estimate: it would be wrong by a large factor.

    Args:
        stages: all stages of the run.
        taken_s: the time of each stage that has run, by its name.
    """
    weights: dict[str, float] = {}
    times: dict[str, float] = {}
    for stage in stages:
        if stage.name in taken_s:
            weights[_kind(stage)] = weights.get(_kind(stage), 0.0) + stage.weight
            times[_kind(stage)] = times.get(_kind(stage), 0.0) + taken_s[stage.name]
    left = [stage for stage in stages if stage.name not in taken_s]
    known = sum(stage.weight for stage in left if _kind(stage) in weights)
    if not left or 2 * known < sum(stage.weight for stage in left):
        return 0.0
    overall = sum(times.values()) / sum(weights.values())
    rates = {kind: times[kind] / weights[kind] for kind in weights}
    return sum(stage.weight * rates.get(_kind(stage), overall) for stage in left)


def _kind(stage: Stage) -> str:
    return stage.name.partition("/")[0]


class _Reporter:
    """Prints one line per stage on stderr, with the estimated remaining time."""

    def __init__(self, stages: Sequence[Stage], workspace: Workspace, *, is_shown: bool) -> None:
        self._stages, self._workspace, self._is_shown = stages, workspace, is_shown
        self._console = Console(stderr=True, highlight=False)

    def begin(self, number: int) -> None:
        self._print(number, "…")

    def end(self, number: int) -> None:
        part = self._workspace.part(self._stages[number].name)
        if part is None:
            return
        words = f"done in {duration(part['wall_s'])}"
        if part["status"] == "failed":
            words = f"failed after {duration(part['wall_s'])}: {part['error']['kind']}: {part['error']['message']}"
        self._print(number, f"{words}{self._remaining()}")

    def _remaining(self) -> str:
        parts = {stage.name: self._workspace.part(stage.name) for stage in self._stages}
        taken = {name: float(part["wall_s"]) for name, part in parts.items() if part is not None}
        left_s = remaining_s(self._stages, taken)
        return f"; about {duration(left_s)} remaining" if left_s else ""

    def _print(self, number: int, words: str) -> None:
        if self._is_shown:
            title = self._stages[number].title
            self._console.print(f"[{number + 1}/{len(self._stages)}] {title} {words}", markup=False)
