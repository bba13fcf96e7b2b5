"""Every experiment by its name on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ppfr.evaluation import Experiment
from ppfr.experiments import adamixup, hfcf, spine
from ppfr.experiments._context import ExperimentContext

BuildExperiment = Callable[[ExperimentContext], Experiment]
EXPERIMENTS: Mapping[str, BuildExperiment] = MappingProxyType(
    {
        "spine:demo": spine.demo,
        "spine:lfw": spine.lfw,
        "spine:cfp": spine.cfp,
        "adamixup:table1": adamixup.table1,
        "adamixup:table2": adamixup.table2,
        "adamixup:table3": adamixup.table3,
        "adamixup:cfp": adamixup.cfp,
        "adamixup:supervision": adamixup.supervision,
        "hfcf:ablation": hfcf.ablation,
        "hfcf:mapping": hfcf.mapping,
        "hfcf:one_to_n": hfcf.one_to_n,
        "hfcf:smpc": hfcf.smpc,
        "hfcf:end-to-end": hfcf.end_to_end,
    }
)
