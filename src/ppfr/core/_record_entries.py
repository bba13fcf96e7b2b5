"""The entries of a result record other than results: experiment, systems, attacks, data, software, machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

SystemRole = Literal["baseline", "protected", "control"]
AttackRole = Literal["attack", "positive control", "negative control"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Pretraining provenance: a pretrained network in a system, and its training data.

    Attributes:
        name: the network's short name.
        used_as: its purpose, as in "start of the body".
        training_data: data sets that it was trained on.
        may_have_seen: known overlaps of these with test data.
        licence: terms of the weights.
        source: origin of the weights.
        sha256: checksum of the weights file, or "".
        notes: further remarks.
    """

    name: str
    used_as: str
    training_data: str
    may_have_seen: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    sha256: str = ""
    notes: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A published result, shown next to measured ones and never mixed with them.

    Attributes:
        measure: what was measured, as in "accuracy on lfw". Accuracies are matched to protocols by this name.
        value: as a share or a score, not as a percentage.
        source: publication and place, as in "arXiv 2403.10558, table 2".
    """

    measure: str
    value: float
    source: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskerEntry:
    """The masker of a system. An end of `value_range` is None if unbounded."""

    name: str
    config: Mapping[str, Any]
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    value_range: tuple[float | None, float | None]
    is_stochastic: bool
    is_keyed: bool
    is_trainable: bool
    is_differentiable: bool
    bytes_per_face: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TemplatesEntry:
    """The template scheme of a system."""

    name: str
    version: int
    config: Mapping[str, Any]
    in_dim: int
    out_dim: int
    bytes_per_template: int
    is_keyed: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SystemEntry:
    """A system under evaluation.

    Attributes:
        name: unique.
        label: for tables.
        role: its role in the experiment.
        baseline: the system that its accuracy is compared with.
        masker: its image protection, or None.
        templates: its template protection, or None.
        recogniser: the evaluation recogniser, or the trained system, whose embeddings it protects, or None.
        training: configuration of the strategy that its recogniser is trained with, or None.
        provenance: pretrained networks that it contains.
        published: published results of the method.
    """

    name: str
    label: str
    role: SystemRole
    baseline: str | None
    masker: MaskerEntry | None
    templates: TemplatesEntry | None
    recogniser: str | None
    training: Mapping[str, Any] | None
    provenance: Sequence[Provenance]
    published: Sequence[PublishedFigure]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecogniserEntry:
    """An evaluation recogniser of plain faces, part of no protected system's training."""

    name: str
    label: str
    provenance: Sequence[Provenance]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonEntry:
    """A paired comparison of two systems; `text` is the question that it answers."""

    name: str
    text: str
    system: str
    against: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ControlEntry:
    """What a control must show: the attack wins, or stays at the chance level."""

    expects: Literal["win", "chance"]
    rule: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttackEntry:
    """One attack on one system under one threat model.

    Attributes:
        name: unique.
        label: for tables.
        method: the attack's own name.
        system: the system that is attacked.
        role: an attack, or a control.
        secret: whether the adversary knows the deployment's secret; "none" if there is none.
        threat_model: `ThreatModel.as_dict` of what is granted, and the same "in_words" with what the attack does
            not use.
        config: configuration of the attack.
        recogniser: the evaluation recogniser that its outcome is measured with.
        control: the rule, for controls only.
    """

    name: str
    label: str
    method: str
    system: str
    role: AttackRole
    secret: Literal["known", "unknown", "none"]
    threat_model: Mapping[str, Any]
    config: Mapping[str, Any]
    recogniser: str
    control: ControlEntry | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DataEntry:
    """An image set: its use, counts and fingerprint (SHA-256 over subject ids and some pixels)."""

    role: Literal["training", "public", "protocol"]
    name: str
    num_images: int
    num_subjects: int
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DisjointEntry:
    """Two sets that were checked to share no subject."""

    sets: tuple[str, str]
    num_shared_subjects: Literal[0] = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageError:
    """Error of a failed stage."""

    kind: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageEntry:
    """State of a stage. It is skipped if a stage that it depends on failed."""

    name: str
    title: str
    status: Literal["done", "failed", "pending", "skipped"]
    wall_s: float
    error: StageError | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentEntry:
    """The experiment, the command that reproduces it, and its resolved configuration without secrets."""

    name: str
    title: str
    summary: str
    preset: str
    command: str
    seed: int
    people: Literal["real", "synthetic"]
    config_sha256: str
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareEntry:
    """Versions. `commit` and `is_modified` describe the checkout that ppfr ran from, if there was one."""

    ppfr: str
    commit: str | None
    is_modified: bool | None
    python: str
    packages: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachineEntry:
    """Kind of machine, without host name, user or path."""

    system: str
    architecture: str
    num_cores: int
    num_threads: int
    device: str
    device_name: str
    memory_bytes: int | None
    peak_memory_bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordEntries:
    """A whole record. `results` contains rows by kind, `schemas` the JSON Schema of each kind."""

    schema_version: Literal[2]
    experiment: ExperimentEntry
    status: Literal["complete", "failed", "partial"]
    software: SoftwareEntry
    machine: MachineEntry
    wall_s: float
    data: Sequence[DataEntry]
    disjointness: Sequence[DisjointEntry]
    recognisers: Sequence[RecogniserEntry]
    systems: Sequence[SystemEntry]
    comparisons: Sequence[ComparisonEntry]
    attacks: Sequence[AttackEntry]
    results: Mapping[str, Sequence[Mapping[str, Any]]]
    schemas: Mapping[str, Mapping[str, Any]]
    stages: Sequence[StageEntry]
