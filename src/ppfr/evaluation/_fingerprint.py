"""The run fingerprint: resolved configuration with data fingerprints, and a probe of the secret of each masker."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppfr.core import DataEntry, ImageMasker, Json, as_json, derive_seed, without_paths
from ppfr.evaluation._experiment import Experiment, System
from ppfr.evaluation._workspace import json_sha256
from ppfr.training import masked_probe

if TYPE_CHECKING:
    from ppfr.data import OpenSetProtocol, PairProtocol

_NUM_PROJECTIONS = 8


def resolved_config(experiment: Experiment, data: Sequence[DataEntry]) -> Json:
    """JSON of everything that figures depend on, except secrets. A resumed run must have the same."""
    config = {
        "name": experiment.name,
        "preset": experiment.preset,
        "seed": experiment.seed,
        "people": experiment.people,
        "systems": [_system_config(system) for system in experiment.systems],
        "measures": [
            {"measure": type(measure).__name__, "config": measure.config()} for measure in experiment.measures
        ],
        "recognisers": [
            {"name": each.name, "provenance": [dataclasses.asdict(p) for p in each.provenance]}
            for each in experiment.recognisers
        ],
        "comparisons": [dataclasses.asdict(comparison) for comparison in experiment.comparisons],
        "data": {f"{entry.role}/{entry.name}": entry.fingerprint for entry in data},
        "num_resamples": experiment.num_resamples,
        "batch_size": experiment.batch_size,
        "mirrors_input": experiment.mirrors_input,
    }
    plain: Json = without_paths(as_json(config))
    return plain


def _system_config(system: System) -> Mapping[str, Any]:
    templates = system.templates
    return {
        "name": system.name,
        "role": system.role,
        "baseline": system.baseline,
        "masker": None
        if system.masker is None
        else {"name": system.masker.name, "config": system.masker.public_config()},
        "training": None
        if system.training is None
        else {
            "config": system.training.public_config(),
            "provenance": [dataclasses.asdict(each) for each in system.training.provenance],
        },
        "recogniser": system.recogniser,
        "templates": None
        if templates is None
        else {
            "scheme": {"name": templates.scheme.scheme_id, "config": dict(templates.scheme.public_config())},
            "is_keyed": templates.is_keyed,
            "selection": None
            if templates.selection is None
            else {"in_words": templates.selection.in_words, "fmr": templates.selection.fmr},
        },
    }


def run_fingerprint(experiment: Experiment, config: Json) -> Json:
    """What `Workspace.claim` compares with an earlier run in the same folder."""
    return {
        "config": config,
        "config_sha256": json_sha256(config),
        "probes": {s.name: _projected_probe(s.masker) for s in experiment.systems if s.masker is not None},
    }


def _projected_probe(masker: ImageMasker) -> list[float]:
    """Random projections of one masked noise image. They differ between two secrets and do not reveal the secret."""
    masked_V = masked_probe(masker, purpose="benchmark").detach().cpu().double().numpy().ravel()
    rng = np.random.default_rng(derive_seed(0, "benchmark", "directions"))
    directions_OV = rng.normal(size=(_NUM_PROJECTIONS, len(masked_V)))
    return [float(value) for value in directions_OV @ masked_V / math.sqrt(len(masked_V))]


def pairs_digest(protocol: PairProtocol) -> str:
    """Checksum of the compared pairs, their labels and folds."""
    arrays = (protocol.first, protocol.second, protocol.is_genuine, protocol.fold)
    return json_sha256([np.asarray(array).tolist() for array in arrays])


def searches_digest(protocol: OpenSetProtocol) -> str:
    """Checksum of the references and of the mated and non-mated probes."""
    arrays = (protocol.references, protocol.mated, protocol.unmated)
    return json_sha256([np.asarray(array).tolist() for array in arrays])
