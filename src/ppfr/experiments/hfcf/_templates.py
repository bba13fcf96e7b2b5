"""HFCF's output side: what the identity-specific mapping costs and hides, 1:1 and 1:N, at every overlap."""

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
from ppfr.core import PolynomialKeys, SubjectKey, choose_device, derive_seed
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
    Judge,
    KeySelection,
    Knowledge,
    TemplateArm,
    TemplateAttackPlan,
    TemplateExperiment,
    Transfer,
)
from ppfr.experiments._context import RecipeContext, budget_of
from ppfr.matching import ExactMatcher, KeyedGallery, KeyedMatcher
from ppfr.models import NetworkEmbedder, for_inference, load_pretrained
from ppfr.synthetic import SyntheticFaces
from ppfr.systems._catalogue import SYNTHETIC_SEED, synthetic_protocol
from ppfr.systems._strategies import NETWORKS
from ppfr.templates import ConstantTemplates, IdentityMapping, UnprotectedTemplates, select_key

RECOGNISER, OTHER = "mobilefacenet-y1", "mobilefacenet-casia"
_TERMS = 5
_SELECTED_OVERLAPS = (0, 2, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateBudget:
    """How much a preset spends on templates; the same for every arm.

    Attributes:
        num_victims: people attacked.
        num_starts: of the solver.
        max_iterations: of each start.
        num_issues: how often everybody is enrolled anew.
        most_public: faces that the map to another recogniser is fitted on; 0 leaves it out.
        max_keys: candidates of key selection; 0 leaves it out.
        most_probes_each: probes of an enrolled identity in 1:N, at most.
        overlaps: of neighbouring windows.
        num_resamples: behind each interval.
        fmrs: the recogniser's false match rates at which inversion is judged.
    """

    num_victims: int
    num_starts: int = 5
    max_iterations: int = 500
    num_issues: int = 5
    most_public: int = 0
    max_keys: int = 0
    most_probes_each: int = 1
    overlaps: Sequence[int] = tuple(range(_TERMS))
    num_resamples: int = 1000
    fmrs: Sequence[float] = (1e-3, 1e-4)


TEMPLATE_BUDGETS: Mapping[str, TemplateBudget] = MappingProxyType(
    {
        "fast-test": TemplateBudget(
            num_victims=10,
            num_starts=1,
            max_iterations=60,
            num_issues=2,
            max_keys=2,
            overlaps=(0, 4),
            num_resamples=100,
            fmrs=(1e-1, 1e-2),
        ),
        "laptop": TemplateBudget(num_victims=100, num_starts=3, max_keys=5),
        "paper": TemplateBudget(
            num_victims=1000, max_iterations=2000, num_issues=20, most_public=6000, max_keys=10, most_probes_each=50
        ),
    }
)


def mapping(context: RecipeContext) -> TemplateExperiment:
    """Identity-specific mapping, every overlap: 1:1 with keys kept and stolen, inversion, linkage, re-issues."""
    budget = budget_of(TEMPLATE_BUDGETS, context.preset)
    recogniser, people = recogniser_of(context, RECOGNISER), "real"
    transfer = None
    if context.preset == "fast-test":
        pairs: PairProtocol = synthetic_protocol(num_pairs=120)
        people = "synthetic"
    else:
        pairs = read_lfw(data_root(context.data))
        transfer = None if budget.most_public == 0 else _transfer(context, budget.most_public)
    arms = _arms(recogniser.embedder.dim, budget, scales=("sqrt(n)", "1"), selects=budget.max_keys > 0)
    return TemplateExperiment(
        name="hfcf:mapping",
        title="Identity-specific mapping of embeddings",
        summary=(
            "PolyProtect's mapping as HFCF uses it on its output side: every person has polynomials of their own. How "
            "much recognition it costs with the key kept and with the key stolen, how often an embedding recovered "
            "from a stolen template passes, and whether two templates of one person can be linked."
        ),
        people=people,
        recogniser=recogniser,
        arms=arms,
        pairs=pairs,
        attacks=[plan for arm in arms for plan in _attacks(arm, budget)],
        num_victims=budget.num_victims,
        transfer=transfer,
        num_issues=budget.num_issues,
        fmrs=budget.fmrs,
        **_common(context, budget),
    )


def one_to_n(context: RecipeContext) -> TemplateExperiment:
    """Identity-specific mapping in 1:N with distractors: does a key for every identity raise or lower the hit rate?"""
    budget = budget_of(TEMPLATE_BUDGETS, context.preset)
    recogniser = recogniser_of(context, RECOGNISER)
    if context.preset == "fast-test":
        open_set, people = _synthetic_open_set(), "synthetic"
    else:
        images = read_lfw_images(data_root(context.data))
        open_set = one_reference_each(images, name="lfw-open-set", most_probes_each=budget.most_probes_each)
        people = "real"
    arms = _arms(recogniser.embedder.dim, budget, scales=("sqrt(n)", "1"), selects=False)
    return TemplateExperiment(
        name="hfcf:one_to_n",
        title="Identification under identity-specific keys",
        summary=(
            "One reference an identity and distractors without one. A probe is mapped under every identity's own key "
            "by the matcher that holds all keys; or it comes mapped under one key, its person's own or a stolen one. "
            "HFCF claims that the mapping raises 1:N rates; here that is tested against the same embeddings without it."
        ),
        people=people,
        recogniser=recogniser,
        arms=arms,
        open_set=open_set,
        **_common(context, budget),
    )


def _common(context: RecipeContext, budget: TemplateBudget) -> dict[str, Any]:
    return {
        "preset": context.preset,
        "command": context.command,
        "seed": context.seed,
        "num_resamples": budget.num_resamples,
        "adds_mirrored": context.preset != "fast-test",
    }


def recogniser_of(context: RecipeContext, name: str) -> Judge:
    """A public network; in fast-test a random one, whose figures mean nothing."""
    device = choose_device(context.device)
    if context.preset == "fast-test":
        network = NETWORKS["mobilefacenet-small"](
            in_shape=(3, 112, 112), seed=derive_seed(context.seed, "random network")
        )
        embedder = NetworkEmbedder(for_inference(network.eval()).to(device))
        return Judge(name="random-network", label="a random network", embedder=embedder)
    network, card = load_pretrained(name, weights_dir=context.weights)
    return Judge(
        name=card.name,
        label=card.name,
        embedder=NetworkEmbedder(for_inference(network).to(device)),
        knowledge=[Knowledge.of_card(card, used_as="the recogniser" if name == RECOGNISER else "the other recogniser")],
    )


def _transfer(context: RecipeContext, most_public: int) -> Transfer:
    public = training_split_for_lfw(data_root(context.data))
    some = np.unique(np.linspace(0, len(public) - 1, min(most_public, len(public))).astype(int)).tolist()
    return Transfer(
        judge=recogniser_of(context, OTHER), public_images=public.subset(some, name=f"{public.name}-{len(some)}")
    )


def _synthetic_open_set() -> OpenSetProtocol:
    people = SyntheticFaces(40, 2, seed=SYNTHETIC_SEED, first_subject=2_000_000)
    images: StoredImageSet = people.subset([*range(50), *range(50, 80, 2)], name="synthetic-open-set").cached()
    return one_reference_each(images, name="synthetic-open-set")


def _arms(dim: int, budget: TemplateBudget, *, scales: Sequence[str], selects: bool) -> list[TemplateArm]:
    constant = ConstantTemplates(dim=dim, out_dim=16)
    arms = [plain_arm(dim)]
    factors = {"sqrt(n)": math.sqrt(dim), "1": 1.0}
    for words in scales:
        for overlap in budget.overlaps:
            scheme = IdentityMapping(dim=dim, num_terms=_TERMS, overlap=overlap, scale=factors[words])
            arms.append(
                keyed_arm(scheme, f"mapping-o{overlap}-scale-{_slug(words)}", f"Mapping, o = {overlap}, scale {words}")
            )
            if selects and words == "sqrt(n)" and overlap in _SELECTED_OVERLAPS:
                arm = arms[-1]
                arms.append(
                    dataclasses.replace(
                        arm,
                        name=f"{arm.name}-selected",
                        label=f"{arm.label}, keys selected",
                        selection=_selection(scheme, budget),
                    )
                )
    arms.append(
        TemplateArm(
            name="constant",
            label="Constant",
            role="control",
            scheme=constant,
            draw_keys=lambda num, rng: [constant.new_key()] * num,
            is_keyed=False,
            baseline="unprotected",
        )
    )
    return arms


def plain_arm(dim: int) -> TemplateArm:
    """Embeddings as they are."""
    plain = UnprotectedTemplates(dim=dim)
    return TemplateArm(
        name="unprotected",
        label="Unprotected",
        role="baseline",
        scheme=plain,
        draw_keys=lambda num, rng: [plain.new_key()] * num,
        is_keyed=False,
        matcher=lambda rows_MD, _, values: ExactMatcher(rows_MD, values=values),
    )


def _slug(words: str) -> str:
    return words.replace("(", "-").replace(")", "")


def keyed_arm(scheme: IdentityMapping, name: str, label: str) -> TemplateArm:
    """Templates under keys that come from the run's seed."""

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

    return TemplateArm(
        name=name,
        label=label,
        role="protected",
        scheme=scheme,
        draw_keys=lambda num, rng: simulated_keys(scheme, num, rng),
        matcher=matcher,
        baseline="unprotected",
    )


def simulated_keys(scheme: IdentityMapping, num: int, rng: np.random.Generator) -> list[SubjectKey]:
    """Keys of a simulated deployment, drawn from the run's seed as the scheme draws them from the operating system."""
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


def _attacks(arm: TemplateArm, budget: TemplateBudget) -> list[TemplateAttackPlan]:
    """Both objectives with the keys known; the authors' with the keys unknown too, where there are keys."""
    role = {"baseline": "positive control", "control": "negative control"}.get(arm.role, "attack")
    cases = [(name, True) for name in _SOLVERS] + ([("cosine", False)] if arm.is_keyed and not arm.selection else [])
    plans: list[TemplateAttackPlan] = []
    for name, knows_keys in cases:
        label, compression = _SOLVERS[name]
        plans.append(
            TemplateAttackPlan(
                name=f"{name}-{'known' if knows_keys else 'unknown'}-{arm.name}",
                label=label,
                arm=arm.name,
                make=functools.partial(
                    MappingInversion,
                    knows_keys=knows_keys,
                    num_starts=budget.num_starts,
                    max_iterations=budget.max_iterations,
                    compression=compression,
                ),
                granted=templates_threat(knows_keys=knows_keys),
                role=role,
            )
        )
    return plans
