"""The tables of the AdaMixUp paper: masking with fixed and adaptive mixing, and the baselines of the paper."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ppfr.core import ImageMasker, InvalidInputError, PublishedFigure, derive_seed
from ppfr.evaluation import RENDERINGS, Experiment, System
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
from ppfr.experiments._testbeds import (
    Testbed,
    cfp_testbed,
    fast_testbed,
    lfw_testbed,
    package_testbed,
    small_strategy,
)
from ppfr.experiments._training import StrategyTraining
from ppfr.experiments.adamixup._rows import ADAPTIVE, BASELINE, FIXED, OTHERS, PAPER, SUPERVISION, TABLE1, Row
from ppfr.experiments.spine._experiments import TEACHER
from ppfr.masking import Constant, Eigenfaces, FrequencyChannels, Peep, PpfrFd, Unprotected
from ppfr.systems import AdaptiveMixing, FineTuning, FixedMixing, FromScratch, Mixing, TrainingStrategy
from ppfr.training import OptimizerSettings, StrategySettings

_PAPER_DATA = "faces_webface_112x112"
_NUM_EIGENFACES, _MOST_FITTED = 128, 2000
# A laptop run has about a hundred steps of the strategy network. With the learning rate that the paper probably used,
# and without a reward baseline, the network would not learn in so few steps.
_FEW_STEPS = StrategySettings(
    every_steps=4,
    baseline_decay=0.9,
    entropy_weight=0.01,
    optimizer=OptimizerSettings(optimizer="adam", lr=1e-3, weight_decay=0.0),
)


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "fast-test": FAST_BUDGET,
        "laptop": dataclasses.replace(LAPTOP_BUDGET, epochs=6),
        "paper": Budget(
            epochs=50,
            attack_preset="paper",
            num_targets=1000,
            batch_size=512,
            precision="16-mixed",
        ),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Setting:
    """Data and settings of a preset.

    Attributes:
        testbed: faces and evaluation recogniser.
        trained: (mixing, what to learn from) -> training strategy of a recogniser.
        strategy_network: width of the strategy network and its settings.
        front_end: front end of the frequency maskers.
    """

    testbed: Testbed
    trained: Callable[[Mixing | None, str], TrainingStrategy]
    strategy_network: tuple[int, StrategySettings]
    front_end: str


def table1(context: ExperimentContext) -> Experiment:
    """Table 1: accuracy with MixUp and InstaHide of two images, on pixels and on frequency channels."""
    return _experiment(
        context,
        "table1",
        TABLE1,
        title="AdaMixUp, table 1: MixUp and InstaHide on pixels and on frequencies",
        attacks=False,
    )


def table2(context: ExperimentContext) -> Experiment:
    """Table 2: AdaMixUp and the other maskings and mixings: accuracy, three attacks, and the scores of the paper."""
    return _experiment(
        context,
        "table2",
        (*ADAPTIVE, *FIXED, *OTHERS),
        title="AdaMixUp, table 2: masking with fixed and with adaptive mixing",
        attacks=True,
    )


def table3(context: ExperimentContext) -> Experiment:
    """Table 3: how often the strategy network mixes two to six images, for each candidate set."""
    return _experiment(context, "table3", ADAPTIVE, title="AdaMixUp, table 3: what the strategy chooses", attacks=False)


def cfp(context: ExperimentContext) -> Experiment:
    """Accuracy of the rows of table 2 on CFP frontal-frontal and frontal-profile, trained without the people of CFP.

    The laptop preset of table 2 trains on people of CFP, so its own rows cannot be measured there.

    Raises:
        InvalidInputError: the preset is "paper", whose table 2 has CFP-FP among its protocols.
    """
    if context.preset == "paper":
        raise InvalidInputError(
            "adamixup:cfp trains on LFW without the people of CFP, but the preset 'paper' trains on CASIA-WebFace and "
            "measures CFP-FP in table 2; run adamixup:table2, or use the preset 'laptop'"
        )
    return _experiment(
        context,
        "cfp",
        (*ADAPTIVE, *FIXED, *OTHERS),
        title="AdaMixUp, table 2 on CFP",
        attacks=False,
        laptop_testbed=cfp_testbed,
    )


def supervision(context: ExperimentContext) -> Experiment:
    """AdaMixUp 2-5, fine-tuned from mixed labels, from mixed embeddings, and from both.

    Raises:
        InvalidInputError: the preset is "paper", which trains from scratch, from labels.
    """
    if context.preset == "paper":
        raise InvalidInputError(
            "adamixup:supervision compares ways to fine-tune a pretrained network, but the preset 'paper' trains from "
            "scratch; use the preset 'laptop'"
        )
    both = next(row for row in ADAPTIVE if row.name == "adamixup-2-5")
    # What a recogniser learns from does not change the images that training exposes, so there are no attacks.
    return _experiment(
        context,
        "supervision",
        (both, *SUPERVISION),
        title="AdaMixUp, what an adapted recogniser learns from",
        attacks=False,
    )


def _experiment(
    context: ExperimentContext,
    name: str,
    rows: Sequence[Row],
    *,
    title: str,
    attacks: bool,
    laptop_testbed: Callable[[ExperimentContext], Testbed] = lfw_testbed,
) -> Experiment:
    budget = budget_of(BUDGETS, context.preset)
    settings: Mapping[str, Callable[[ExperimentContext, Budget], _Setting]] = {
        "fast-test": _synthetic,
        "laptop": functools.partial(_laptop, make_testbed=laptop_testbed),
        "paper": _paper,
    }
    setting = settings[context.preset](context, budget)
    secret = simulated_secret(context)
    maskers = _maskers(setting, secret, seed=derive_seed(context.seed, "eigenfaces"), rows=rows)
    systems = [_system(row, setting, maskers, secret, table=name.removeprefix("table")) for row in (BASELINE, *rows)]
    if attacks:
        systems.append(System(name="constant", label="Constant", role="control", masker=Constant()))
    testbed = setting.testbed
    network, card = testbed.recogniser
    plans = []
    if attacks:
        # The attacker of the paper trains on pairs of plain and masked faces, that is, with the deployment's secret.
        plans = attack_matrix(
            systems,
            budget,
            teacher=network,
            teacher_card=card,
            includes_unknown_secret=False,
            without_signs=[row.name for row in rows if row.flips_signs],
        )
    return Experiment(
        name=f"adamixup:{name}",
        title=title,
        summary=_summary(context, budget, setting, attacks=attacks),
        preset=context.preset,
        command=context.command,
        seed=context.seed,
        systems=systems,
        measures=image_measures(
            testbed.protocols,
            plans=plans,
            gallery_plans=gallery_attacks(systems, budget, recogniser=card.name) if attacks else (),
            public=testbed.public,
            num_targets=budget.num_targets,
            num_pictured=5,  # the page has fourteen rows of pictures
            lpips=testbed.lpips,
            renderings=RENDERINGS[1:],
        ),
        recognisers=[recogniser_of(context, network, card)],
        people=testbed.people,
        training_images=testbed.images,
        num_resamples=budget.num_resamples,
    )


def _summary(context: ExperimentContext, budget: Budget, setting: _Setting, *, attacks: bool) -> str:
    start = {
        "laptop": (
            f"{TEACHER}, fine-tuned on the output of each row: first on its feature map, then on its embeddings and "
            "ArcFace on the labels (on one of them where a row says so), mixed like the images"
        ),
        "fast-test": "Small networks trained from scratch on synthetic people (figures mean nothing)",
        "paper": "IR-SE-50 trained from scratch",
    }[context.preset]
    text = (
        f"{start}, {budget.epochs} epochs over {len(setting.testbed.images)} images, the same for every row. Images "
        "that are sent for recognition are masked, not mixed: only training sets are mixed."
    )
    if attacks:
        text += (
            " Where a row mixes, its trained adversaries see a mixed training set that contains the target subjects. "
            "Attacks without training see the images that are sent for recognition, in every row."
        )
    return text


def _system(row: Row, setting: _Setting, maskers: Mapping[str, ImageMasker], secret: bytes, *, table: str) -> System:
    strategy = setting.trained(_mixing(row, setting), row.learns_from)
    return System(
        name=row.name,
        label=row.label,
        role="baseline" if row is BASELINE else "protected",
        masker=maskers[row.masks],
        training=StrategyTraining(strategy, secret=secret),
        baseline=None if row is BASELINE else BASELINE.name,
        published=[
            PublishedFigure(measure=measure, value=value, source=f"{PAPER} {_printed_in(measure, row, table)}")
            for measure, value in row.published.items()
            if table in ("1", "2")
            or (table == "3" and "share" in measure)
            or (table == "cfp" and measure == "accuracy on cfp-fp")
        ],
    )


def _printed_in(measure: str, row: Row, table: str) -> str:
    """Number of the table in the paper. Results of the unmasked baseline are only in table 2."""
    return "3" if "share" in measure else "2" if row is BASELINE or table == "cfp" else table


def _mixing(row: Row, setting: _Setting) -> Mixing | None:
    if row.mixing is None:
        return None
    if isinstance(row.mixing[0], str):
        return FixedMixing(method=row.mixing[0], num_images=int(row.mixing[1]))
    width, settings = setting.strategy_network
    return AdaptiveMixing(candidates=tuple(int(k) for k in row.mixing), strategy_width=width, settings=settings)


def _maskers(setting: _Setting, secret: bytes, *, seed: int, rows: Sequence[Row]) -> dict[str, ImageMasker]:
    front_end: Any = setting.front_end
    found: dict[str, ImageMasker] = {
        "none": Unprotected(),
        "ppfr-fd": PpfrFd(secret=secret, front_end=front_end),
        "frequency": FrequencyChannels(front_end=front_end, num_channels=64),
    }
    if any(row.masks == "peep" for row in rows):
        num = min(_NUM_EIGENFACES, len(setting.testbed.images) // 2)
        eigenfaces = Eigenfaces.fit(setting.testbed.images, num_components=num, max_images=_MOST_FITTED, seed=seed)
        found["peep"] = Peep(eps=3.0, eigenfaces=eigenfaces)
    return found


def _laptop(
    context: ExperimentContext, budget: Budget, *, make_testbed: Callable[[ExperimentContext], Testbed]
) -> _Setting:
    def trained(mixing: Mixing | None, learns_from: str) -> TrainingStrategy:
        return FineTuning(
            plan=budget.plan(budget.epochs, warmup_steps=50, clip_norm=5.0, log_every_steps=1),
            teacher=TEACHER,
            weights=context.weights,
            head=None if learns_from == "teacher" else "arcface",
            head_weight=0.05,
            embedding_weight=0.0 if learns_from == "labels" else 2.0,
            mixing=mixing,
        )

    return _Setting(
        testbed=make_testbed(context), trained=trained, strategy_network=(16, _FEW_STEPS), front_end="block"
    )


def _synthetic(context: ExperimentContext, budget: Budget) -> _Setting:
    def trained(mixing: Mixing | None, learns_from: str) -> TrainingStrategy:
        return dataclasses.replace(small_strategy(budget), mixing=mixing)

    return _Setting(
        testbed=fast_testbed(context, trained(None, "labels")),
        trained=trained,
        strategy_network=(4, StrategySettings(every_steps=2)),
        front_end="block",
    )


def _paper(context: ExperimentContext, budget: Budget) -> _Setting:
    """CASIA-WebFace and the pair sets of its InsightFace package, which the user must provide."""

    def trained(mixing: Mixing | None, learns_from: str) -> TrainingStrategy:
        return FromScratch(
            plan=budget.plan(budget.epochs, schedule="step", milestones=(20, 35, 45), clip_norm=5.0, log_every_steps=1),
            network="ir_se50",
            dim=512,
            head="arcface",
            optimizer=OptimizerSettings(optimizer="sgd", lr=0.1, weight_decay=1e-4),
            mixing=mixing,
        )

    return _Setting(
        testbed=package_testbed(context, _PAPER_DATA, title="CASIA-WebFace"),
        trained=trained,
        strategy_network=(64, StrategySettings(every_steps=1)),
        front_end="upsampled",
    )
