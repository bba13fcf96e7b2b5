"""What a run is of: the resolved configuration with data fingerprints, and a probe of each masker's secret."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppfr.core import ImageMasker, derive_seed, without_paths
from ppfr.evaluation._experiment import Arm, AttackPlan, Experiment, RunOptions
from ppfr.evaluation._provenance import describe_data
from ppfr.evaluation._workspace import config_sha256

Json = dict[str, Any]
_NUM_PROJECTIONS = 8


def describe_experiment_data(experiment: Experiment) -> list[Json]:
    """Every data set's use, counts and fingerprint."""
    rows = [describe_data(experiment.training_images, role="training")]
    if experiment.public_images is not None:
        rows.append(describe_data(experiment.public_images, role="public"))
    rows += [
        describe_data(protocol.used_images(), role="protocol", name=protocol.name) for protocol in experiment.protocols
    ]
    return rows


def resolved_config(experiment: Experiment, data: list[Json]) -> Json:
    """JSON of everything that figures depend on, secrets left out; what a resumed run must share with the first."""
    config = {
        "name": experiment.name,
        "preset": experiment.preset,
        "seed": experiment.seed,
        "people": experiment.people,
        "arms": [_arm_config(arm) for arm in experiment.arms],
        "data": {f"{row['role']}/{row['name']}": row["fingerprint"] for row in data},
        "pairs": {protocol.name: pairs_digest(protocol) for protocol in experiment.protocols},
        "judges": [
            {"name": judge.name, "knowledge": [dataclasses.asdict(known) for known in judge.knowledge]}
            for judge in experiment.judges
        ],
        "questions": [dataclasses.asdict(question) for question in experiment.questions],
        "attacks": [_attack_config(plan) for plan in experiment.attacks],
        "victims": None if experiment.victims is None else dataclasses.asdict(experiment.victims),
        "fars": list(experiment.fars),
        "judge_far": experiment.judge_far,
        "num_resamples": experiment.num_resamples,
        "batch_size": experiment.batch_size,
        "adds_mirrored": experiment.adds_mirrored,
        "has_lpips": experiment.lpips is not None,
    }
    plain: Json = without_paths(as_json(config))
    return plain


def identity_of(experiment: Experiment, config: Json) -> Json:
    """What `Workspace.claim` holds against an earlier run."""
    return {
        "config": config,
        "config_sha256": config_sha256(config),
        "probes": {arm.name: masker_probe(arm.masker) for arm in experiment.arms},
    }


def masker_probe(masker: ImageMasker) -> list[float]:
    """A few random projections of one masked noise image: they tell secrets apart and give none away."""
    rng = torch.Generator().manual_seed(derive_seed(0, "benchmark", "probe"))
    image_1CHW = torch.rand(1, *masker.spec.in_shape, generator=rng)
    with torch.no_grad():
        masked = masker.mask(image_1CHW, rng=rng).detach().cpu().double().numpy().ravel()
    directions = np.random.default_rng(derive_seed(0, "benchmark", "directions")).normal(
        size=(_NUM_PROJECTIONS, len(masked))
    )
    return [float(value) for value in directions @ masked / math.sqrt(len(masked))]


def as_json(value: Any) -> Any:
    """Plain dicts, lists, numbers and texts; infinities and not-a-number as texts, other objects by their name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def attack_config(attack: Any) -> Json:
    """An attack's public configuration, if it tells one."""
    tells = getattr(attack, "public_config", None)
    config: Json = as_json(tells()) if callable(tells) else {"attack": attack.name}
    return config


def _arm_config(arm: Arm) -> Json:
    training = arm.training
    return {
        "name": arm.name,
        "role": arm.role,
        "baseline": arm.baseline,
        "masker": {"name": arm.masker.name, "config": arm.masker.public_config()},
        "training": None
        if training is None
        else {"config": training.public_config(), "knowledge": [dataclasses.asdict(k) for k in training.knowledge]},
    }


def _attack_config(plan: AttackPlan) -> Json:
    attack = plan.make(RunOptions(run_dir=Path("unused"), shows_progress=False))
    return {
        "name": plan.name,
        "method": attack.name,
        "arm": plan.arm,
        "role": plan.role,
        "granted": dataclasses.asdict(plan.granted),
        "judge": plan.judge,
        "rule": dataclasses.asdict(plan.rule),
        "measures_pairs": plan.measures_pairs,
        "config": attack_config(attack),
    }


def pairs_digest(protocol: Any) -> str:
    """Checksum of who is compared with whom."""
    arrays = [np.asarray(a).tolist() for a in (protocol.first, protocol.second, protocol.is_genuine, protocol.fold)]
    return config_sha256(arrays)
