"""HFCF as a whole: image masking, identity-specific mapping of those embeddings, and three-party decisions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from ppfr.assets import data_root
from ppfr.data import OpenSetProtocol, PairProtocol, one_reference_each, read_lfw, read_lfw_images
from ppfr.evaluation import (
    AccuracyGaps,
    Comparison,
    Experiment,
    Identification,
    SecureDecisions,
    SecureFormat,
    SecureSearches,
    System,
    Training,
    Verification,
)
from ppfr.experiments._context import Budget, ExperimentContext, budget_of, simulated_secret
from ppfr.experiments.hfcf._ablation import BUDGETS, ablation_setting, ablation_systems, training_in_words
from ppfr.experiments.hfcf._secure_decisions import secure_decisions
from ppfr.experiments.hfcf._templates import FARS, keyed_system, synthetic_open_set
from ppfr.models import load_pretrained
from ppfr.secure import FixedPoint, ThreePartyMatcher
from ppfr.systems import FineTuning, FromScratch, TrainingStrategy
from ppfr.templates import IdentityMapping

_UNPROTECTED, _HFCF = "unprotected", "hfcf-1"
_MASKINGS = (_UNPROTECTED, "ppfr-fd", "dctdp-0.5", _HFCF)
_FPIRS = (1e-2,)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Mapping:
    """A setting of the mapping, from `hfcf:mapping`.

    Attributes:
        name: suffix of the names of systems.
        overlap: o.
        scale: factor of the embedding; None for sqrt(n).
    """

    name: str
    overlap: int
    scale: float | None

    @property
    def label(self) -> str:
        """For tables."""
        return f"mapping, o = {self.overlap}, scale {'sqrt(n)' if self.scale is None else f'{self.scale:g}'}"


RECOGNISING = _Mapping(name="mapping-recognises", overlap=4, scale=1.0)
"""The most accurate setting of `hfcf:mapping`. Its templates are inverted nearly without loss."""
HIDING = _Mapping(name="mapping-hides", overlap=0, scale=None)
"""The setting of `hfcf:mapping` in which no recovered embedding was accepted."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndToEndBudget:
    """What a preset needs besides the trainings of `hfcf:ablation`.

    Attributes:
        max_probes_each: maximum probes per enrolled subject in 1:N.
        num_decided: searches that the three parties decide.
    """

    max_probes_each: int
    num_decided: int


END_TO_END_BUDGETS: Mapping[str, EndToEndBudget] = MappingProxyType(
    {
        "fast-test": EndToEndBudget(max_probes_each=1, num_decided=10),
        "laptop": EndToEndBudget(max_probes_each=1, num_decided=300),
        "paper": EndToEndBudget(max_probes_each=50, num_decided=1000),
    }
)


def end_to_end(context: ExperimentContext) -> Experiment:
    """HFCF as a whole, PPFR-FD and DCTDP with the same back half: 1:1 and 1:N, and the cost of each stage."""
    budget, searches = budget_of(BUDGETS, context.preset), budget_of(END_TO_END_BUDGETS, context.preset)
    setting = ablation_setting(context, budget)
    if context.preset == "fast-test":
        pairs, open_set = setting.testbed.protocols[0], synthetic_open_set()
    else:
        pairs = read_lfw(data_root(context.data))
        open_set = _people_of(pairs, context, searches.max_probes_each)
    masked = {system.name: system for system in ablation_systems(setting, simulated_secret(context))}
    dim = _embedding_length(setting.strategy)
    return Experiment(
        name="hfcf:end-to-end",
        title="HFCF as a whole: masking, mapping and three-party decisions",
        summary=(
            f"{training_in_words(context, budget, setting.testbed.images)} Each image is masked once. The embeddings "
            "of the masked images are mapped under identity-specific keys, and three parties decide on shares of the "
            "templates. PPFR-FD, DCTDP and plain images have the same back half."
        ),
        preset=context.preset,
        command=context.command,
        seed=context.seed,
        people=setting.testbed.people,
        systems=[system for name in _MASKINGS for system in _rows(masked[name], dim)],
        measures=_measures(pairs, open_set, budget, searches),
        comparisons=_comparisons(),
        training_images=setting.testbed.images,
        num_resamples=budget.num_resamples,
    )


def _measures(
    pairs: PairProtocol, open_set: OpenSetProtocol, budget: Budget, searches: EndToEndBudget
) -> list[Training | Verification | AccuracyGaps | SecureDecisions | Identification | SecureSearches]:
    return [
        Training(),
        Verification(protocols=[pairs], fars=FARS),
        AccuracyGaps(protocols=[pairs]),
        SecureDecisions(pairs=pairs, decide=functools.partial(secure_decisions, num_resamples=budget.num_resamples)),
        Identification(protocol=open_set, fpirs=_FPIRS),
        SecureSearches(protocol=open_set, formats=secure_formats, num_decided=searches.num_decided, fpirs=_FPIRS),
    ]


def _rows(masked: System, dim: int) -> list[System]:
    """A masking alone, and with each mapping of its embeddings. The three have one training."""
    mapped = [
        keyed_system(
            IdentityMapping(dim=dim, overlap=each.overlap, scale=each.scale),
            f"{masked.name}-{each.name}",
            f"{masked.label}, {each.label}",
            recogniser=masked.name,
            baseline=masked.name,
        )
        for each in (RECOGNISING, HIDING)
    ]
    return [masked, *mapped]


def _comparisons() -> list[Comparison]:
    """The cost of masking and mapping together, and HFCF against the others with the same back half."""
    totals = [
        Comparison(
            name=f"{name}-{each.name}-in-all",
            text="What do masking and mapping cost together?",
            system=f"{name}-{each.name}",
            against=_UNPROTECTED,
        )
        for name in _MASKINGS[1:]
        for each in (RECOGNISING, HIDING)
    ]
    sides = [
        Comparison(
            name=f"hfcf-against-{name}{suffix}",
            text="Is HFCF more accurate with the same back half?" if suffix else "Is HFCF's masking more accurate?",
            system=f"{_HFCF}{suffix}",
            against=f"{name}{suffix}",
        )
        for name in _MASKINGS[1:-1]
        for suffix in ("", f"-{RECOGNISING.name}", f"-{HIDING.name}")
    ]
    return [*totals, *sides]


def _people_of(pairs: PairProtocol, context: ExperimentContext, max_probes_each: int) -> OpenSetProtocol:
    """All images of the people of the pairs. Recognisers may be trained on the other people of LFW."""
    images = read_lfw_images(data_root(context.data))
    kept = images.subset_of_subjects(set(pairs.subjects()), name="lfw-of-pairs")
    return one_reference_each(kept, name="lfw-of-pairs-open-set", most_probes_each=max_probes_each)


def _embedding_length(strategy: TrainingStrategy) -> int:
    """Length of the embeddings of the networks that a strategy of `hfcf:ablation` trains."""
    if isinstance(strategy, FromScratch):
        return strategy.dim
    assert isinstance(strategy, FineTuning)
    network, _ = load_pretrained(strategy.teacher, weights_dir=strategy.weights)
    return network.dim


def secure_formats(dim: int) -> Sequence[SecureFormat]:
    """Both fixed-point formats of the three parties, for rows of `dim` values."""
    return [_secure_format(dim, values) for values in ("int8", "int16")]


def _secure_format(dim: int, values: Literal["int8", "int16"]) -> SecureFormat:
    point = FixedPoint(dim=dim, values=values)

    def integers(rows_NK: np.ndarray) -> np.ndarray:
        return np.asarray(point.signed(point.quantise(rows_NK)), dtype=np.float64)

    return SecureFormat(
        values=values,
        ring_bits=point.ring_bits,
        scale=point.scale,
        integers=integers,
        matcher=functools.partial(ThreePartyMatcher, values=values),
    )
