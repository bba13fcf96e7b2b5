"""The record of a run, assembled from the experiment and the results of the stages that have run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch

from ppfr.core import (
    SCHEMA_VERSION,
    AttackEntry,
    ComparisonEntry,
    DataEntry,
    DisjointEntry,
    ExperimentEntry,
    Json,
    MaskerEntry,
    RecogniserEntry,
    Record,
    RecordEntries,
    SoftwareEntry,
    StageEntry,
    StageError,
    SystemEntry,
    TemplatesEntry,
    as_json,
    kind_of,
    row_schema,
    status_of,
    without_paths,
)
from ppfr.evaluation._attack_plan import AnyAttack, AttackPlan, attack_config, secret_of, unused_in_words
from ppfr.evaluation._checks import attacks_of, data_uses, sets_to_keep_apart
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._measure import Stage
from ppfr.evaluation._provenance import machine
from ppfr.evaluation._workspace import json_sha256

_FLOAT_BYTES = 4


class RecordWriter:
    """Assembles the record of one run. Entries that do not change between stages are created once.

    Args:
        experiment: the experiment.
        stages: in the order in which they run.
        config: the resolved configuration.
        data: description of every image set.
        software: versions at the start of this process.
        device: the device of the run.
    """

    def __init__(
        self,
        experiment: Experiment,
        stages: Sequence[Stage],
        *,
        config: Json,
        data: Sequence[DataEntry],
        software: SoftwareEntry,
        device: torch.device,
    ) -> None:
        self._experiment, self._stages, self._data = experiment, stages, data
        self._software, self._device = software, device
        self._entry = ExperimentEntry(
            name=experiment.name,
            title=experiment.title,
            summary=experiment.summary,
            preset=experiment.preset,
            command=experiment.command,
            seed=experiment.seed,
            people=experiment.people,  # type: ignore[arg-type]  # checked before the run
            config_sha256=json_sha256(config),
            config=config,
        )
        self._apart = [
            DisjointEntry(sets=(one.name or one.images.name, other.name or other.images.name))
            for one, other in sets_to_keep_apart(data_uses(experiment))
        ]
        self._attacks = [_attack(plan, experiment) for plan in attacks_of(experiment)]
        self._row_types = {kind_of(row): row for measure in experiment.measures for row in measure.results}

    def record(self, parts: Mapping[str, Json | None]) -> Record:
        """The record with the results so far. `parts` maps the name of each stage to its result, or to None."""
        entries = stage_entries(self._stages, parts)
        rows: dict[str, list[Json]] = {kind: [] for kind in self._row_types}
        for stage in self._stages:
            part = parts[stage.name]
            if part is not None and part["status"] == "done":
                for kind, row in part["result"]:
                    rows[kind].append(row)
        results = {kind: found for kind, found in rows.items() if found}
        record = RecordEntries(
            schema_version=SCHEMA_VERSION,
            experiment=self._entry,
            status=status_of([as_json(entry) for entry in entries]),  # type: ignore[arg-type]
            software=self._software,
            machine=machine(self._device),
            wall_s=round(sum(entry.wall_s for entry in entries), 3),
            data=self._data,
            disjointness=self._apart,
            recognisers=[
                RecogniserEntry(name=each.name, label=each.label, provenance=each.provenance)
                for each in self._experiment.recognisers
            ],
            systems=[_system(system) for system in self._experiment.systems],
            comparisons=[ComparisonEntry(**dataclasses.asdict(each)) for each in self._experiment.comparisons],
            attacks=self._attacks,
            results=results,
            schemas={kind: row_schema(self._row_types[kind]) for kind in results},
            stages=entries,
        )
        plain: Record = without_paths(as_json(record))
        return plain


def stage_entries(stages: Sequence[Stage], parts: Mapping[str, Json | None]) -> list[StageEntry]:
    """State of each stage. A stage that depends on a failed one is skipped."""
    entries: list[StageEntry] = []
    states: dict[str, str] = {}
    for stage in stages:
        part = parts[stage.name]
        status = "pending" if part is None else str(part["status"])
        if status == "pending" and any(states.get(name) in ("failed", "skipped") for name in stage.after):
            status = "skipped"
        states[stage.name] = status
        error = None if part is None or part["error"] is None else StageError(**part["error"])
        entries.append(
            StageEntry(
                name=stage.name,
                title=stage.title,
                status=status,  # type: ignore[arg-type]
                wall_s=0.0 if part is None else part["wall_s"],
                error=error,
            )
        )
    return entries


def _system(system: System) -> SystemEntry:
    masker, templates, training = system.masker, system.templates, system.training
    masker_entry = None
    if masker is not None:
        low, high = (value if math.isfinite(value) else None for value in masker.spec.value_range)
        masker_entry = MaskerEntry(
            name=masker.name,
            config=dict(masker.public_config()),
            **{**dataclasses.asdict(masker.spec), "value_range": (low, high)},
        )
    templates_entry = None
    if templates is not None:
        scheme = templates.scheme
        templates_entry = TemplatesEntry(
            name=scheme.scheme_id,
            version=scheme.version,
            config=dict(scheme.public_config()),
            in_dim=scheme.in_dim,
            out_dim=scheme.out_dim,
            bytes_per_template=_FLOAT_BYTES * scheme.out_dim,
            is_keyed=templates.is_keyed,
        )
    return SystemEntry(
        name=system.name,
        label=system.label,
        role=system.role,
        baseline=system.baseline,
        masker=masker_entry,
        templates=templates_entry,
        recogniser=system.recogniser or None,
        training=None if training is None else dict(training.public_config()),
        provenance=[] if training is None else training.provenance,
        published=system.published,
    )


def _threat_in_words(plan: AttackPlan, attack: AnyAttack) -> str:
    return " ".join(filter(None, (plan.granted.in_words(), unused_in_words(attack.needs, plan.granted))))


def _attack(plan: AttackPlan, experiment: Experiment) -> AttackEntry:
    attack = plan.probe()
    return AttackEntry(
        name=plan.name,
        label=plan.label,
        method=attack.name,
        system=plan.system,
        role=plan.role,
        secret=secret_of(plan, experiment.system(plan.system)),  # type: ignore[arg-type]
        threat_model={**plan.granted.as_dict(), "in_words": _threat_in_words(plan, attack)},
        config=attack_config(attack),
        recogniser=plan.recogniser,
        control=plan.rule.entry(plan.role),
    )
