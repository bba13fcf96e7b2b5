"""Template protection of HFCF: accuracy and leakage of the identity-specific mapping, 1:1 and 1:N, at every overlap."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from ppfr.assets import data_root
from ppfr.attacks import MappingInversion, templates_threat
from ppfr.core import AttackRole, PolynomialKeys, RunOptions, SubjectKey, choose_device, derive_seed
from ppfr.data import (
    OpenSetProtocol,
    PairProtocol,
    StoredImageSet,
    one_reference_each,
    read_lfw,
    read_lfw_images,
    training_split_for_lfw,
)
from ppfr.evaluation import (
    AccuracyGaps,
    EvaluationRecogniser,
    Experiment,
    Identification,
    InversionRule,
    KeySelection,
    Measure,
    Renewal,
    System,
    TemplateAttackPlan,
    TemplateInversion,
    TemplateProtection,
    Transfer,
    Unlinkability,
    Verification,
    provenance_of,
)
from ppfr.experiments._context import ExperimentContext, budget_of
from ppfr.matching import ExactMatcher, KeyedGallery, KeyedMatcher
from ppfr.models import NetworkEmbedder, for_inference, load_pretrained
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import NETWORKS, SYNTHETIC_SEED, synthetic_protocol
from ppfr.templates import ConstantTemplates, IdentityMapping, UnprotectedTemplates, select_key

RECOGNISER, OTHER = "mobilefacenet-y1", "mobilefacenet-casia"
_TERMS = 5
FARS = (1e-2, 1e-3)
_SELECTED_OVERLAPS = (0, 2, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateBudget:
    """Compute budget of a preset for experiments on templates, equal for all systems.

    Attributes:
        num_targets: number of target subjects.
        num_templates: templates of each target subject that the joint inversion uses.
        num_starts: starts of the solver.
        max_iterations: maximum iterations per start.
        num_renewals: number of re-enrolments.
        max_public: maximum faces that the map to another recogniser is fitted on; 0 for no map.
        max_keys: candidates of key selection; 0 for no key selection.
        max_probes_each: maximum probes per enrolled subject in 1:N.
        overlaps: overlaps of neighbouring windows.
        num_resamples: bootstrap resamples per interval.
        fmrs: false match rates of the recogniser at which impersonation success is measured.
    """

    num_targets: int
    num_templates: int = 5
    num_starts: int = 5
    max_iterations: int = 500
    num_renewals: int = 5
    max_public: int = 0
    max_keys: int = 0
    max_probes_each: int = 1
    overlaps: Sequence[int] = tuple(range(_TERMS))
    num_resamples: int = 1000
    fmrs: Sequence[float] = (1e-3, 1e-4)


TEMPLATE_BUDGETS: Mapping[str, TemplateBudget] = MappingProxyType(
    {
        "fast-test": TemplateBudget(
            num_targets=10,
            num_starts=1,
            max_iterations=60,
            num_renewals=2,
            max_keys=2,
            overlaps=(0, 4),
            num_resamples=100,
            fmrs=(1e-1, 1e-2),
        ),
        "laptop": TemplateBudget(num_targets=100, num_starts=3, max_keys=5),
        "paper": TemplateBudget(
            num_targets=1000, max_iterations=2000, num_renewals=20, max_public=6000, max_keys=10, max_probes_each=50
        ),
    }
)


def mapping(context: ExperimentContext) -> Experiment:
    """Identity-specific mapping at every overlap: 1:1 in both token scenarios, inversion, linkability, renewal."""
    budget = budget_of(TEMPLATE_BUDGETS, context.preset)
    recogniser, people = public_recogniser(context, RECOGNISER), "real"
    transfer = None
    if context.preset == "fast-test":
        pairs: PairProtocol = synthetic_protocol(num_pairs=120)
        people = "synthetic"
    else:
        pairs = read_lfw(data_root(context.data))
        transfer = None if budget.max_public == 0 else _transfer(context, budget.max_public)
    systems = _systems(recogniser, budget, scales=("sqrt(n)", "1"), selects=budget.max_keys > 0)
    measures: list[Measure] = [
        Verification(protocols=[pairs], fars=FARS),
        AccuracyGaps(protocols=[pairs]),
        Unlinkability(pairs=pairs),
        Renewal(pairs=pairs, num_renewals=budget.num_renewals),
        TemplateInversion(
            pairs=pairs,
            plans=[plan for system in systems for plan in _attacks(system, budget)],
            num_targets=budget.num_targets,
            fmrs=budget.fmrs,
            transfer=None if transfer is None else transfer[1],
        ),
    ]
    return Experiment(
        name="hfcf:mapping",
        title="Identity-specific mapping of embeddings",
        summary=(
            "The mapping of PolyProtect as HFCF uses it to protect templates: every person has different polynomials. "
            "Measured are its accuracy in the genuine-token and the stolen-token scenario, how often an embedding "
            "recovered from a stolen template is accepted, and whether two templates of one person can be linked."
        ),
        people=people,
        recognisers=[recogniser, *([] if transfer is None else [transfer[0]])],
        systems=systems,
        measures=measures,
        **_common(context, budget),
    )


def one_to_n(context: ExperimentContext) -> Experiment:
    """Identity-specific mapping in open-set 1:N: does one key per subject raise or lower the identification rate?"""
    budget = budget_of(TEMPLATE_BUDGETS, context.preset)
    recogniser = public_recogniser(context, RECOGNISER)
    if context.preset == "fast-test":
        open_set, people = synthetic_open_set(), "synthetic"
    else:
        images = read_lfw_images(data_root(context.data))
        open_set = one_reference_each(images, name="lfw-open-set", most_probes_each=budget.max_probes_each)
        people = "real"
    return Experiment(
        name="hfcf:one_to_n",
        title="Identification under identity-specific keys",
        summary=(
            "One reference per subject, and non-mated probes. Either the matcher holds all keys and maps a probe under "
            "each, or a probe arrives mapped under one key: that of its subject, or a stolen one. HFCF claims better "
            "1:N rates for the whole method, not for its mapping alone. What the mapping contributes is measured "
            "against the same embeddings without it."
        ),
        people=people,
        recognisers=[recogniser],
        systems=_systems(recogniser, budget, scales=("sqrt(n)", "1"), selects=False),
        measures=[Identification(protocol=open_set)],
        **_common(context, budget),
    )


def _common(context: ExperimentContext, budget: TemplateBudget) -> dict[str, Any]:
    return {
        "preset": context.preset,
        "command": context.command,
        "seed": context.seed,
        "num_resamples": budget.num_resamples,
        "mirrors_input": context.preset != "fast-test",
    }


def public_recogniser(context: ExperimentContext, name: str) -> EvaluationRecogniser:
    """A public network. In "fast-test" it is a random network, whose figures are meaningless."""
    device = choose_device(context.options.device)
    if context.preset == "fast-test":
        network = NETWORKS["mobilefacenet-small"](
            in_shape=(3, 112, 112), seed=derive_seed(context.seed, "random network")
        )
        embedder = NetworkEmbedder(for_inference(network.eval()).to(device))
        return EvaluationRecogniser(name="random-network", label="a random network", embedder=embedder)
    network, card = load_pretrained(name, weights_dir=context.weights)
    return EvaluationRecogniser(
        name=card.name,
        label=card.name,
        embedder=NetworkEmbedder(for_inference(network).to(device)),
        provenance=[provenance_of(card, used_as="the recogniser" if name == RECOGNISER else "the other recogniser")],
    )


def _transfer(context: ExperimentContext, max_public: int) -> tuple[EvaluationRecogniser, Transfer]:
    public = training_split_for_lfw(data_root(context.data))
    some = np.unique(np.linspace(0, len(public) - 1, min(max_public, len(public))).astype(int)).tolist()
    images = public.subset(some, name=f"{public.name}-{len(some)}")
    return public_recogniser(context, OTHER), Transfer(recogniser=OTHER, public_images=images)


def synthetic_open_set() -> OpenSetProtocol:
    """50 images of 25 subjects, one of which is enrolled each, and one image of 15 others."""
    people = SyntheticFaces(40, 2, seed=SYNTHETIC_SEED, first_subject=2_000_000)
    images: StoredImageSet = people.subset([*range(50), *range(50, 80, 2)], name="synthetic-open-set").cached()
    return one_reference_each(images, name="synthetic-open-set")


def _systems(
    recogniser: EvaluationRecogniser, budget: TemplateBudget, *, scales: Sequence[str], selects: bool
) -> list[System]:
    dim = recogniser.embedder.dim
    constant = ConstantTemplates(dim=dim, out_dim=16)
    systems = [plain_system(recogniser)]
    factors = {"sqrt(n)": math.sqrt(dim), "1": 1.0}
    for words in scales:
        for overlap in budget.overlaps:
            scheme = IdentityMapping(dim=dim, num_terms=_TERMS, overlap=overlap, scale=factors[words])
            name, label = f"mapping-o{overlap}-scale-{_slug(words)}", f"Mapping, o = {overlap}, scale {words}"
            systems.append(keyed_system(scheme, name, label, recogniser=recogniser.name, baseline="unprotected"))
            if selects and words == "sqrt(n)" and overlap in _SELECTED_OVERLAPS:
                protection = systems[-1].templates
                assert protection is not None
                systems.append(
                    dataclasses.replace(
                        systems[-1],
                        name=f"{name}-selected",
                        label=f"{label}, keys selected",
                        templates=dataclasses.replace(protection, selection=_selection(scheme, budget)),
                    )
                )
    systems.append(
        System(
            name="constant",
            label="Constant",
            role="control",
            recogniser=recogniser.name,
            templates=TemplateProtection(
                scheme=constant, draw_keys=lambda num, rng: [constant.new_key()] * num, is_keyed=False
            ),
            baseline="unprotected",
        )
    )
    return systems


def plain_system(recogniser: EvaluationRecogniser) -> System:
    """The baseline: unprotected embeddings."""
    plain = UnprotectedTemplates(dim=recogniser.embedder.dim)
    return System(
        name="unprotected",
        label="Unprotected",
        role="baseline",
        recogniser=recogniser.name,
        templates=TemplateProtection(
            scheme=plain,
            draw_keys=lambda num, rng: [plain.new_key()] * num,
            is_keyed=False,
            matcher=lambda rows_MD, _, values: ExactMatcher(rows_MD, values=values),
        ),
    )


def _slug(words: str) -> str:
    return words.replace("(", "-").replace(")", "")


def keyed_system(scheme: IdentityMapping, name: str, label: str, *, recogniser: str, baseline: str) -> System:
    """A template scheme with keys that are derived from the seed of the run.

    Args:
        scheme: the scheme.
        name: name of the system.
        label: its label.
        recogniser: name of the evaluation recogniser, or of the trained system, whose embeddings are protected.
        baseline: name of the system that it is compared with.
    """

    def matcher(
        references_MD: np.ndarray, keys: Sequence[SubjectKey], values: Literal["float32", "int8"]
    ) -> KeyedMatcher:
        packed = scheme.packed(keys)
        gallery = KeyedGallery.in_memory(
            scheme.shape,
            scheme.values_of(references_MD, packed),
            packed,
            values=values,
        )
        return KeyedMatcher(gallery)

    return System(
        name=name,
        label=label,
        role="protected",
        recogniser=recogniser,
        templates=TemplateProtection(
            scheme=scheme, draw_keys=lambda num, rng: simulated_keys(scheme, num, rng), matcher=matcher
        ),
        baseline=baseline,
    )


def simulated_keys(scheme: IdentityMapping, num: int, rng: np.random.Generator) -> list[SubjectKey]:
    """Keys of a simulated deployment from `rng`, with the distribution of the keys that the scheme draws."""
    config = scheme.public_config()
    num_terms, bound = int(config["num_terms"]), int(config["coefficient_bound"])
    index_Mm = np.argsort(rng.random((num, 2 * bound)), axis=1)[:, :num_terms]
    keys = PolynomialKeys(
        coefficients_Mm=np.where(index_Mm < bound, index_Mm - bound, index_Mm - bound + 1).astype(np.int8),
        exponents_Mm=(np.argsort(rng.random((num, num_terms)), axis=1) + 1).astype(np.uint8),
    )
    return scheme.key_of_packed(keys)


def _selection(scheme: IdentityMapping, budget: TemplateBudget) -> KeySelection:
    solver = MappingInversion(knows_keys=True, num_starts=1, max_iterations=100)

    def choose(embedding_D: np.ndarray, threshold: float, rng: np.random.Generator) -> tuple[SubjectKey, int, bool]:
        chosen = select_key(
            scheme,
            embedding_D,
            invert=lambda template_1K, mapping: solver.invert(template_1K, mapping, seed=int(rng.integers(2**31))),
            threshold=threshold,
            max_keys=budget.max_keys,
            new_key=lambda: simulated_keys(scheme, 1, rng)[0],
        )
        return chosen.key, chosen.num_tried, chosen.is_below

    return KeySelection(
        choose=choose,
        in_words=(
            f"up to {budget.max_keys} keys are tried at enrolment, each against the cosine solver (1 start of 100 "
            "iterations), until what it recovers lies below the recogniser's threshold at FMR 20 %"
        ),
    )


_SOLVERS: Mapping[str, tuple[str, float | None]] = MappingProxyType(
    {"cosine": ("Cosine solver", None), "compressed": ("Compressed cosine solver", 0.1)}
)


def _attacks(system: System, budget: TemplateBudget) -> list[TemplateAttackPlan]:
    """Both solvers with the keys known, on one template and on several templates of each subject together.

    Keyed schemes are also attacked by the solver of the authors with the keys unknown. If keys are selected, there is
    no joint inversion: the other enrolments would have keys that were not selected.
    """
    roles: Mapping[str, AttackRole] = {"baseline": "positive control", "control": "negative control"}
    protection = system.templates
    assert protection is not None
    cases = [(name, True, 1) for name in _SOLVERS]
    if not protection.selection:
        cases += [("cosine", False, 1)] if protection.is_keyed else []
        cases += [(name, True, budget.num_templates) for name in _SOLVERS]
    plans: list[TemplateAttackPlan] = []
    for name, knows_keys, num_templates in cases:
        label, compression = _SOLVERS[name]
        several = "" if num_templates == 1 else f"-{num_templates}-templates"
        plans.append(
            TemplateAttackPlan(
                name=f"{name}{several}-{'known' if knows_keys else 'unknown'}-{system.name}",
                label=label if num_templates == 1 else f"{label}, {num_templates} templates",
                system=system.name,
                make=functools.partial(_solver, budget, knows_keys, compression, num_templates),
                granted=templates_threat(knows_keys=knows_keys),
                recogniser=system.recogniser,
                rule=InversionRule(fmr=budget.fmrs[0]),
                role=roles.get(system.role, "attack"),
            )
        )
    return plans


def _solver(
    budget: TemplateBudget, knows_keys: bool, compression: float | None, num_templates: int, options: RunOptions
) -> MappingInversion:
    """The solver. It is not trained, so it does not use `options`."""
    return MappingInversion(
        knows_keys=knows_keys,
        num_templates=num_templates,
        num_starts=budget.num_starts,
        max_iterations=budget.max_iterations,
        compression=compression,
    )
