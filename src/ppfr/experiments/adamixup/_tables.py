"""AdaMixUp's tables: masking and mixing, fixed and adaptive, beside the baselines of its authors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ppfr.core import ImageMasker, InvalidInputError, PublishedFigure, derive_seed
from ppfr.evaluation import Experiment, System
from ppfr.experiments._attack_plans import attack_matrix
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
from ppfr.experiments._testbeds import Testbed, fast_testbed, lfw_testbed, package_testbed, small_way
from ppfr.experiments._training import StrategyTraining
from ppfr.experiments.adamixup._rows import ADAPTIVE, BASELINE, FIXED, OTHERS, PAPER, SUPERVISION, TABLE1, Row
from ppfr.experiments.spine._experiments import ADAPTED
from ppfr.masking import Constant, Eigenfaces, FrequencyChannels, Peep, PpfrFd, Unprotected
from ppfr.systems._mixing import AdaptiveMixing, FixedMixing, Mixing
from ppfr.systems._strategies import FineTuning, FromScratch, TrainingStrategy
from ppfr.training import OptimizerSettings, StrategySettings

_PAPER_DATA = "faces_webface_112x112"
_NUM_EIGENFACES, _MOST_FITTED = 128, 2000
# A laptop's run has a hundred or so of the strategy's steps: at the paper's likely rate and without a baseline it would
# end as undecided as it began.
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
    """What a preset trains, tests and attacks with.

    Attributes:
        testbed: faces and judge.
        way: mixing and what to learn from -> how a recogniser comes about.
        strategy: width of the strategy network and its settings.
        front_end: of the frequency maskers.
    """

    testbed: Testbed
    way: Callable[[Mixing | None, str], TrainingStrategy]
    strategy: tuple[int, StrategySettings]
    front_end: str


def table1(context: ExperimentContext) -> Experiment:
    """MixUp and InstaHide of two images, on pixels and on frequency channels: what survives where."""
    return _experiment(
        context,
        "table1",
        TABLE1,
        title="AdaMixUp, table 1: MixUp and InstaHide on pixels and on frequencies",
        attacks=False,
    )


def table2(context: ExperimentContext) -> Experiment:
    """AdaMixUp against twelve maskings and mixings: accuracy, three attacks, and the paper's scores."""
    return _experiment(
        context,
        "table2",
        (*ADAPTIVE, *FIXED, *OTHERS),
        title="AdaMixUp, table 2: masking with fixed and with adaptive mixing",
        attacks=True,
    )


def table3(context: ExperimentContext) -> Experiment:
    """How often the strategy mixes two to six images, for each candidate set."""
    return _experiment(context, "table3", ADAPTIVE, title="AdaMixUp, table 3: what the strategy chooses", attacks=False)


def supervision(context: ExperimentContext) -> Experiment:
    """AdaMixUp 2-5 adapted from mixed labels and mixed embeddings together, and from one of them alone.

    Raises:
        InvalidInputError: the preset "paper" trains from scratch, from labels.
    """
    if context.preset == "paper":
        raise InvalidInputError(
            "adamixup:supervision compares what a pretrained network is fine-tuned on; use the preset laptop"
        )
    both = next(row for row in ADAPTIVE if row.name == "adamixup-2-5")
    # What a recogniser learns from changes nothing of what training exposes, so nothing is attacked.
    return _experiment(
        context,
        "supervision",
        (both, *SUPERVISION),
        title="AdaMixUp, what an adapted recogniser learns from",
        attacks=False,
    )


def _experiment(context: ExperimentContext, name: str, rows: Sequence[Row], *, title: str, attacks: bool) -> Experiment:
    budget = budget_of(BUDGETS, context.preset)
    setting = {"fast-test": _synthetic, "laptop": _laptop, "paper": _paper}[context.preset](context, budget)
    secret = simulated_secret(context)
    maskers = _maskers(setting, secret, seed=derive_seed(context.seed, "eigenfaces"), rows=rows)
    systems = [_system(row, setting, maskers, secret, table=name.removeprefix("table")) for row in (BASELINE, *rows)]
    if attacks:
        systems.append(System(name="constant", label="Constant", role="control", masker=Constant()))
    testbed = setting.testbed
    network, card = testbed.recogniser
    plans = []
    if attacks:
        # Its authors' attacker trains on pairs of plain and masked faces, so the deployment's secret works for it.
        plans = attack_matrix(
            systems,
            budget,
            teacher=network,
            teacher_card=card,
            tries_without_secret=False,
            signless=[row.name for row in rows if row.flips_signs],
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
            public=testbed.public,
            num_targets=budget.num_targets,
            num_pictured=5,  # fourteen rows of them
            lpips=testbed.lpips,
        ),
        recognisers=[recogniser_of(context, network, card)],
        people=testbed.people,
        training_images=testbed.images,
        num_resamples=budget.num_resamples,
        adds_mirrored=True,  # the field's protocol
    )


def _summary(context: ExperimentContext, budget: Budget, setting: _Setting, *, attacks: bool) -> str:
    start = {
        "laptop": (
            f"{ADAPTED}, adapted to what each row lets through: its feature map first, then its embeddings and ArcFace "
            "on the labels together (one of them where a row says so), all mixed as the images are"
        ),
        "fast-test": "Small networks trained from scratch on synthetic people (figures mean nothing)",
        "paper": "IR-SE-50 trained from scratch",
    }[context.preset]
    text = (
        f"{start}, {budget.epochs} epochs over {len(setting.testbed.images)} images, the same for every row. An image "
        "to be recognised is masked, not mixed: mixing is for training sets."
    )
    if attacks:
        text += (
            " Where a row mixes, its adversaries see the mixed training set (as if the victims had been in it); what "
            "leaves a device when somebody is recognised leaks what the row PPFR-FD leaks."
        )
    return text


def _system(row: Row, setting: _Setting, maskers: Mapping[str, ImageMasker], secret: bytes, *, table: str) -> System:
    way = setting.way(_mixing(row, setting), row.learns_from)
    return System(
        name=row.name,
        label=row.label,
        role="baseline" if row is BASELINE else "protected",
        masker=maskers[row.masks],
        training=StrategyTraining(way, secret=secret),
        baseline=None if row is BASELINE else BASELINE.name,
        published=[
            PublishedFigure(measure=measure, value=value, source=f"{PAPER} {_printed_in(measure, row, table)}")
            for measure, value in row.published.items()
            if table in ("1", "2") or (table == "3" and "share" in measure)
        ],
    )


def _printed_in(measure: str, row: Row, table: str) -> str:
    """Number of the authors' table; they print the figures of the unmasked baseline in the second alone."""
    return "3" if "share" in measure else "2" if row is BASELINE else table


def _mixing(row: Row, setting: _Setting) -> Mixing | None:
    if row.mixing is None:
        return None
    if isinstance(row.mixing[0], str):
        return FixedMixing(method=row.mixing[0], num_images=int(row.mixing[1]))
    width, settings = setting.strategy
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


def _laptop(context: ExperimentContext, budget: Budget) -> _Setting:
    def way(mixing: Mixing | None, learns_from: str) -> TrainingStrategy:
        return FineTuning(
            plan=budget.plan(budget.epochs, warmup_steps=50, clip_norm=5.0, log_every_steps=1),
            teacher=ADAPTED,
            weights=context.weights,
            head=None if learns_from == "teacher" else "arcface",
            head_weight=0.05,
            embedding_weight=0.0 if learns_from == "labels" else 2.0,
            mixing=mixing,
        )

    return _Setting(testbed=lfw_testbed(context), way=way, strategy=(16, _FEW_STEPS), front_end="block")


def _synthetic(context: ExperimentContext, budget: Budget) -> _Setting:
    def way(mixing: Mixing | None, learns_from: str) -> TrainingStrategy:
        return dataclasses.replace(small_way(budget), mixing=mixing)

    return _Setting(
        testbed=fast_testbed(context, way(None, "labels")),
        way=way,
        strategy=(4, StrategySettings(every_steps=2)),
        front_end="block",
    )


def _paper(context: ExperimentContext, budget: Budget) -> _Setting:
    """CASIA-WebFace and the pair sets of its InsightFace package, as the user has them."""

    def way(mixing: Mixing | None, learns_from: str) -> TrainingStrategy:
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
        way=way,
        strategy=(64, StrategySettings(every_steps=1)),
        front_end="upsampled",
    )
