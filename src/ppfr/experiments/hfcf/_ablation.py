"""Ablation of HFCF: effects of fusion, colour channels and noise on accuracy and leakage, compared with DCTDP."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ppfr.core import ImageMasker, ImageSet
from ppfr.evaluation import Comparison, Experiment, System
from ppfr.experiments._attack_plans import attack_matrix, gallery_attacks
from ppfr.experiments._context import (
    FAST_BUDGET,
    LAPTOP_BUDGET,
    Budget,
    ExperimentContext,
    budget_of,
    recogniser_of,
    simulated_secret,
)
from ppfr.experiments._measures import image_measures
from ppfr.experiments._testbeds import Testbed, fast_testbed, lfw_testbed, package_testbed, small_strategy
from ppfr.experiments._training import StrategyTraining
from ppfr.experiments.spine._experiments import TEACHER
from ppfr.masking import Constant, Dctdp, Hfcf, NoisyFrontEnd, PpfrFd, Sensitivities, Unprotected
from ppfr.systems import FineTuning, FromScratch, TrainingStrategy
from ppfr.training import OptimizerSettings

_PAPER_DATA = "faces_emore"
_INF = float("inf")
# A hundred steps suffice to learn one share per channel, at twenty times the learning rate of the recogniser
# (docs/methods/dctdp.md).
_FEW_STEPS: Mapping[str, Any] = MappingProxyType({"shares": "channel", "lr_scale": 20.0})
_AUTHORS_SHARES: Mapping[str, Any] = MappingProxyType({"shares": "coefficient", "lr_scale": 1.0})

BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": FAST_BUDGET,
        "laptop": LAPTOP_BUDGET,
        "paper": Budget(
            epochs=24,
            attack_preset="paper",
            num_targets=1000,
            batch_size=512,
            precision="16-mixed",
        ),
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """One row of the table.

    Attributes:
        name: name of the system.
        label: for tables.
        settings: arguments of the masker that differ from its defaults.
        is_attacked: whether attacks are run; False if only accuracy is of interest.
    """

    name: str
    label: str
    settings: Mapping[str, Any]
    is_attacked: bool = True


def _eps(eps: float) -> str:
    return "no noise" if eps == _INF else f"eps {eps:g}"


HFCF_VARIANTS: tuple[_Variant, ...] = (
    *(
        _Variant(name=f"hfcf-{eps:g}", label=f"HFCF, {_eps(eps)}", settings={"eps_mean": eps})
        for eps in (0.5, 1.0, 2.0, 4.0, _INF)
    ),
    *(
        _Variant(
            name=f"hfcf-{eps:g}-no-{part}",
            label=f"HFCF, {_eps(eps)}, no {part}",
            settings={"eps_mean": eps, **settings},
        )
        for eps in (1.0, _INF)
        for part, settings in (("colour", {"colour": "none"}), ("fusion", {"fuses": False}))
    ),
    _Variant(
        name="hfcf-3",
        label="HFCF, eps 3: in all as much as eps 1 without fusion",
        settings={"eps_mean": 3.0},
        is_attacked=False,
    ),
    _Variant(
        name="hfcf-1-even",
        label="HFCF, eps 1, shared out evenly, not learned",
        settings={"eps_mean": 1.0, "learns": False},
    ),
    _Variant(
        name="hfcf-1-even-no-colour",
        label="HFCF, eps 1, no colour, shared out evenly, not learned",
        settings={"eps_mean": 1.0, "colour": "none", "learns": False},
    ),
    _Variant(
        name="hfcf-1-noisy-colour",
        label="HFCF, eps 1, colour under randomised response at 1",
        settings={"eps_mean": 1.0, "colour_eps": 1.0},
    ),
    *(
        _Variant(
            name=f"hfcf-1-{colour}",
            label=f"HFCF, eps 1, colour as {colour}",
            settings={"eps_mean": 1.0, "colour": colour},
            is_attacked=False,
        )
        for colour in ("lbp-ycbcr", "lbp-difference", "lbp-bits")
    ),
)
DCTDP_VARIANTS: tuple[_Variant, ...] = (
    _Variant(name="dctdp-0.5", label="DCTDP, corrected, eps 0.5", settings={"settings": "corrected"}),
    _Variant(name="dctdp-published", label="DCTDP, as published, eps 4", settings={"settings": "published"}),
)
COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        name="fusion",
        text="Does fusion cost accuracy, without noise?",
        system="hfcf-inf",
        against="hfcf-inf-no-fusion",
    ),
    Comparison(
        name="fusion-under-noise",
        text="And under noise, at eps 1 a coefficient, a third as much in all?",
        system="hfcf-1",
        against="hfcf-1-no-fusion",
    ),
    Comparison(
        name="fusion-at-equal-total",
        text="And under noise, at the same eps in all?",
        system="hfcf-3",
        against="hfcf-1-no-fusion",
    ),
    Comparison(
        name="learning",
        text="What does learning the budget gain over sharing it out evenly, at eps 1?",
        system="hfcf-1-no-colour",
        against="hfcf-1-even-no-colour",
    ),
    Comparison(
        name="colour-beside-even-noise",
        text="What do the colour channels add where the budget is even?",
        system="hfcf-1-even",
        against="hfcf-1-even-no-colour",
    ),
    Comparison(
        name="noise", text="What does the noise take from the frequencies alone, at eps 1?",
        system="hfcf-1-no-colour", against="hfcf-inf-no-colour",
    ),
    Comparison(
        name="colour", text="Do the colour channels repay it?", system="hfcf-1", against="hfcf-1-no-colour"
    ),
    Comparison(
        name="repaid", text="How far is that from no noise and no colour?",
        system="hfcf-1", against="hfcf-inf-no-colour",
    ),
    Comparison(
        name="colour-without-noise",
        text="Do the colour channels add anything where there is no noise?",
        system="hfcf-inf",
        against="hfcf-inf-no-colour",
    ),
    Comparison(
        name="noisy-colour",
        text="Do they still help once they have a guarantee themselves?",
        system="hfcf-1-noisy-colour",
        against="hfcf-1-no-colour",
    ),
    *(
        Comparison(
            name=f"colour-as-{colour}", text=f"Is {colour} a better colour channel than lbp?",
            system=f"hfcf-1-{colour}", against="hfcf-1",
        )
        for colour in ("lbp-ycbcr", "lbp-difference", "lbp-bits")
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationSetting:
    """Data and settings of a preset.

    Attributes:
        testbed: faces and evaluation recogniser.
        strategy: training strategy of every recogniser.
        front_end: front end of all frequency maskers.
        learning: how the privacy budget is divided and learned.
    """

    testbed: Testbed
    strategy: TrainingStrategy
    front_end: str
    learning: Mapping[str, Any]


def ablation(context: ExperimentContext) -> Experiment:
    """HFCF with and without fusion, colour and noise, and DCTDP: accuracy, three attacks, privacy guarantees."""
    budget = budget_of(BUDGETS, context.preset)
    setting = ablation_setting(context, budget)
    testbed = setting.testbed
    systems = ablation_systems(setting, simulated_secret(context))
    network, card = testbed.recogniser
    not_attacked = {variant.name for variant in (*HFCF_VARIANTS, *DCTDP_VARIANTS) if not variant.is_attacked}
    attacked = [system for system in systems if system.name not in not_attacked]
    return Experiment(
        name="hfcf:ablation",
        title="HFCF: fusion, colour and noise",
        summary=(
            f"{training_in_words(context, budget, testbed.images)} Attacks are on maskers with the learned privacy "
            "budget."
        ),
        preset=context.preset,
        command=context.command,
        seed=context.seed,
        systems=systems,
        measures=image_measures(
            testbed.protocols,
            plans=attack_matrix(
                attacked,
                budget,
                teacher=network,
                teacher_card=card,
                includes_unknown_secret=False,
            ),
            gallery_plans=gallery_attacks(attacked, budget, recogniser=card.name),
            public=testbed.public,
            num_targets=budget.num_targets,
            num_pictured=5,
            lpips=testbed.lpips,
        ),
        recognisers=[recogniser_of(context, network, card)],
        comparisons=COMPARISONS,
        people=testbed.people,
        training_images=testbed.images,
        num_resamples=budget.num_resamples,
    )


def training_in_words(context: ExperimentContext, budget: Budget, images: ImageSet) -> str:
    """How the recognisers are trained, for the head of the report."""
    start = {
        "laptop": f"{TEACHER}, fine-tuned on the output of each row",
        "fast-test": "Small networks trained from scratch on synthetic people (figures mean nothing)",
        "paper": "IR-50 trained from scratch",
    }[context.preset]
    return (
        f"{start}, {budget.epochs} epochs over {len(images)} images, the same for every row. Ranges are measured on "
        "these images. Noise is drawn for every image."
    )


def ablation_setting(context: ExperimentContext, budget: Budget) -> AblationSetting:
    """Data and settings of the preset of a context."""
    return {"fast-test": _synthetic, "laptop": _laptop, "paper": _paper}[context.preset](context, budget)


def ablation_systems(setting: AblationSetting, secret: bytes) -> list[System]:
    """All rows of the table."""
    sensitivities = _measured_once(setting.testbed.images)
    front_end: Any = setting.front_end

    def noisy(kind: Callable[..., Hfcf | Dctdp], variant: _Variant) -> ImageMasker:
        options = {"front_end": front_end, **setting.learning, **variant.settings}
        if options.get("settings") != "published":
            fuses = kind is Hfcf and options.get("fuses", True)
            options["sensitivities"] = sensitivities(NoisyFrontEnd(front_end=front_end, fuses=fuses))
        return kind(**options)

    def protected(name: str, label: str, masker: ImageMasker, training: StrategyTraining) -> System:
        return System(
            name=name, label=label, role="protected", masker=masker, training=training, baseline="unprotected"
        )

    training = StrategyTraining(setting.strategy)
    rows: list[tuple[Callable[..., Any], _Variant]] = [(Hfcf, each) for each in HFCF_VARIANTS]
    rows += [(Dctdp, each) for each in DCTDP_VARIANTS]
    return [
        System(name="unprotected", label="Unprotected", role="baseline", masker=Unprotected(), training=training),
        *(protected(each.name, each.label, noisy(kind, each), training) for kind, each in rows),
        protected(
            "ppfr-fd",
            "PPFR-FD",
            PpfrFd(secret=secret, front_end=front_end),
            StrategyTraining(setting.strategy, secret=secret),
        ),
        System(name="constant", label="Constant", role="control", masker=Constant()),
    ]


def _measured_once(images: ImageSet) -> Callable[[NoisyFrontEnd], Sensitivities]:
    """Sensitivities by front end, measured once per front end."""

    @functools.cache
    def of(front_end: NoisyFrontEnd) -> Sensitivities:
        return Sensitivities.measure(images, front_end)

    return of


def _laptop(context: ExperimentContext, budget: Budget) -> AblationSetting:
    return AblationSetting(
        testbed=lfw_testbed(context),
        strategy=FineTuning(
            plan=budget.plan(budget.epochs, warmup_steps=50, clip_norm=5.0), teacher=TEACHER, weights=context.weights
        ),
        front_end="block",
        learning=_FEW_STEPS,
    )


def _synthetic(context: ExperimentContext, budget: Budget) -> AblationSetting:
    strategy = small_strategy(budget)
    return AblationSetting(
        testbed=fast_testbed(context, strategy), strategy=strategy, front_end="block", learning=_FEW_STEPS
    )


def _paper(context: ExperimentContext, budget: Budget) -> AblationSetting:
    """MS1MV2 and the pair sets of its InsightFace package, which the user must provide."""
    strategy = FromScratch(
        plan=budget.plan(budget.epochs, schedule="step", milestones=(10, 18, 22), clip_norm=5.0),
        network="ir50",
        dim=512,
        head="arcface",
        optimizer=OptimizerSettings(optimizer="sgd", lr=0.1, weight_decay=5e-4),
    )
    testbed = package_testbed(context, _PAPER_DATA, title="MS1MV2")
    return AblationSetting(testbed=testbed, strategy=strategy, front_end="upsampled", learning=_AUTHORS_SHARES)
