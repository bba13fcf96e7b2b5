"""The three training strategies of a masked recogniser: from scratch, distillation and fine-tuning.

A strategy is a frozen dataclass, so that experiments and records can name its complete configuration.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ppfr.core import ImageMasker, ImageSet, InvalidInputError, RunOptions, derive_seed
from ppfr.models import (
    PRETRAINED,
    AdaFace,
    ArcFace,
    Backbone,
    CosFace,
    MarginHead,
    MobileFaceNet,
    ModelCard,
    StemAdapter,
    card_for,
    conv_stem,
    ir18,
    ir50,
    ir_se50,
    load_pretrained,
)
from ppfr.systems._catalogue import make_masker
from ppfr.systems._mixing import Mixing, check_mixing_batch, fixed_mixer, with_adaptive_mixing
from ppfr.systems._system import MaskedSystem, training_set_of
from ppfr.systems._training_sets import TrainingSet
from ppfr.training import (
    AdaptiveMixingTask,
    DistillationTask,
    FineTuningTask,
    FitRecord,
    MarginTask,
    OptimizerSettings,
    Plan,
    TrainingTask,
    class_centres,
    fit,
)


def _small(**options: Any) -> MobileFaceNet:
    return MobileFaceNet(variant="small", **options)


NETWORKS: Mapping[str, Callable[..., Backbone]] = MappingProxyType(
    {"mobilefacenet-small": _small, "mobilefacenet": MobileFaceNet, "ir18": ir18, "ir50": ir50, "ir_se50": ir_se50}
)
HEADS: Mapping[str, Callable[..., MarginHead]] = MappingProxyType(
    {"arcface": ArcFace, "cosface": CosFace, "adaface": AdaFace}
)
_OWN_LICENCE = "as the training data and the pretrained parts allow: see training_data"


class TrainingStrategy(ABC):
    """Trains a recogniser of masked images. Subclasses are frozen dataclasses whose fields are the configuration.

    Attributes:
        plan: epochs, schedule and precision.
        mixing: how images are mixed with each other, or None.
    """

    plan: Plan
    mixing: Mixing | None

    @property
    @abstractmethod
    def description(self) -> str:
        """How the recogniser was trained, for the name in its model card."""

    @abstractmethod
    def cards(self) -> tuple[ModelCard, ...]:
        """Cards of the pretrained networks that the strategy uses, available before training."""

    @abstractmethod
    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[TrainingTask, Backbone]:
        """The training task and its recognition network. Deterministic in the arguments."""

    def prepare(self, task: TrainingTask, images: ImageSet) -> None:  # noqa: B027 (an optional hook)
        """Set initial weights of the task from the training images. Does nothing by default."""

    def train(
        self,
        masker: ImageMasker,
        images: ImageSet,
        *,
        seed: int,
        options: RunOptions,
        secret: bytes | None = None,
        with_tensorboard: bool = False,
    ) -> tuple[MaskedSystem, FitRecord]:
        """Train a recogniser on masked images.

        Args:
            masker: masks the training images; it becomes part of the system.
            images: plain aligned crops.
            seed: seeds every random draw.
            options: run directory, devices, resuming and progress.
            secret: secret of the masker. It is needed only by a keyed masker on several devices, where each process
                builds the masker again.
            with_tensorboard: write scalars to `tensorboard/` in the run directory.

        Returns:
            The system and the record of the run.
        """
        check_mixing_batch(self.mixing, self.plan.batch_size // max(1, options.num_devices))
        num_classes = len(set(images.subject_ids))
        task, network = self.build(masker, num_classes=num_classes, seed=seed)
        rebuild = None
        if options.num_devices > 1 and masker.spec.is_keyed:
            # A keyed masker cannot be pickled, so each process builds its own. Only the pipe carries the secret.
            rebuild = functools.partial(
                _rebuild,
                self,
                name=masker.name,
                config=dict(masker.public_config()),
                arrays=dict(masker.public_arrays()),
                secret=secret,
                num_classes=num_classes,
                seed=seed,
            )
        record = fit(
            task,
            images,
            plan=self.plan,
            seed=derive_seed(seed, "fit"),
            options=options,
            with_tensorboard=with_tensorboard,
            rebuild=rebuild,
            prepare=functools.partial(self.prepare, task, images),
        )
        return _system(masker, network, images, description=self.description, pretrained=self.cards()), record


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromScratch(TrainingStrategy):
    """Train a new network with a margin head on labels.

    Attributes:
        plan: epochs, schedule and precision.
        network: a key of `NETWORKS`.
        dim: embedding length.
        head: a key of `HEADS`.
        scale: scale s of the head; use a smaller one for few classes.
        margin: margin m of the head; None for its default.
        optimizer: optimizer of network and head.
        mixing: how the masked batch and its labels are mixed, or None.

    Raises:
        InvalidInputError: a name is unknown; lists the available names.
    """

    plan: Plan
    network: str = "mobilefacenet"
    dim: int = 128
    head: str = "arcface"
    scale: float = 64.0
    margin: float | None = None
    optimizer: OptimizerSettings = OptimizerSettings(optimizer="sgd", lr=0.1, weight_decay=5e-4)  # noqa: RUF009
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        _check_name(NETWORKS, self.network, "network")
        _check_name(HEADS, self.head, "head")

    @property
    def description(self) -> str:
        """See `TrainingStrategy`."""
        return "trained from scratch"

    def cards(self) -> tuple[ModelCard, ...]:
        """Empty: the network is not pretrained."""
        return ()

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[TrainingTask, Backbone]:
        """See `TrainingStrategy`."""
        network = _new_network(self.network, masker, dim=self.dim, seed=derive_seed(seed, "network"))
        head = _new_head(self.head, num_classes, self.dim, scale=self.scale, margin=self.margin, seed=seed)
        task = MarginTask(masker, network, head, mixer=fixed_mixer(self.mixing), optimizer=self.optimizer)
        return with_adaptive_mixing(task, self.mixing, masker, seed=seed), network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(TrainingStrategy):
    """Train a new network on the embeddings, and optionally features, of a frozen pretrained recogniser.

    Attributes:
        plan: epochs, schedule and precision.
        teacher: name of a pretrained network.
        weights: directory of the pretrained networks; None for PPFR_WEIGHTS.
        network: a key of `NETWORKS`.
        taps: student tap -> teacher tap, whose feature maps are compared.
        optimizer: optimizer of the student.
        mixing: how the masked batch and the targets of the teacher are mixed, or None.

    Raises:
        InvalidInputError: a name is unknown; lists the available names.
    """

    plan: Plan
    teacher: str = "mobilefacenet-y1"
    weights: Path | None = None
    network: str = "mobilefacenet"
    taps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optimizer: OptimizerSettings = OptimizerSettings(optimizer="adamw", lr=2e-3, weight_decay=1e-2)  # noqa: RUF009
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        _check_name(PRETRAINED, self.teacher, "pretrained network")
        _check_name(NETWORKS, self.network, "network")

    @property
    def description(self) -> str:
        """See `TrainingStrategy`."""
        return f"distilled from {self.teacher}"

    def cards(self) -> tuple[ModelCard, ...]:
        """The card of the teacher."""
        return (PRETRAINED[self.teacher].card,)

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[TrainingTask, Backbone]:
        """See `TrainingStrategy`."""
        teacher, card = load_pretrained(self.teacher, weights_dir=self.weights)
        network = _new_network(self.network, masker, dim=teacher.dim, seed=derive_seed(seed, "network"))
        task = DistillationTask(
            masker,
            network,
            teacher,
            teacher_card=card,
            taps=self.taps,
            mixer=fixed_mixer(self.mixing),
            optimizer=self.optimizer,
            seed=derive_seed(seed, "projections"),
        )
        return with_adaptive_mixing(task, self.mixing, masker, seed=seed), network


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning(TrainingStrategy):
    """Give a pretrained recogniser a new stem for masked images, then train stem and body.

    This strategy suits small training sets.

    Attributes:
        plan: epochs, schedule and precision.
        teacher: name of the pretrained network. It provides the body, and is the teacher on plain crops.
        weights: directory of the pretrained networks; None for PPFR_WEIGHTS.
        tap: feature map that the new stem produces.
        stem_width: channels of the residual units of the stem.
        stem_depth: number of residual units of the stem.
        body_unfrozen_from: share of the run after which the body is trained too.
        body_lr_scale: learning rate of the body as a share of that of the stem.
        embedding_from: share of the run after which the embedding is part of the loss, in addition to the feature map.
        feature_weight: weight of the feature map at `tap`.
        embedding_weight: weight of the embedding.
        head: a key of `HEADS`, to learn from labels too. Its class centres are initialised with the mean embedding of
            each subject by the teacher. None learns only from the teacher.
        head_weight: weight of the loss of the head.
        scale: scale s of the head.
        margin: margin m of the head; None for its default.
        optimizer: optimizer of stem and body.
        mixing: how the masked batch, its labels and the targets of the teacher are mixed, or None.

    Raises:
        InvalidInputError: a name is unknown; lists the available names.
    """

    plan: Plan
    teacher: str = "mobilefacenet-y1"
    weights: Path | None = None
    tap: str = "down28"
    stem_width: int = 96
    stem_depth: int = 2
    body_unfrozen_from: float = 0.34
    body_lr_scale: float = 0.15
    embedding_from: float = 0.34
    feature_weight: float = 0.2
    embedding_weight: float = 2.0
    head: str | None = None
    head_weight: float = 0.1
    scale: float = 64.0
    margin: float | None = None
    optimizer: OptimizerSettings = OptimizerSettings(optimizer="adamw", lr=2e-3, weight_decay=1e-4)  # noqa: RUF009
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        _check_name(PRETRAINED, self.teacher, "pretrained network")
        if self.head is not None:
            _check_name(HEADS, self.head, "head")

    @property
    def description(self) -> str:
        """See `TrainingStrategy`."""
        return f"fine-tuned from {self.teacher}"

    def cards(self) -> tuple[ModelCard, ...]:
        """The card of the teacher."""
        return (PRETRAINED[self.teacher].card,)

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[TrainingTask, Backbone]:
        """See `TrainingStrategy`."""
        teacher, card = load_pretrained(self.teacher, weights_dir=self.weights)
        stem = conv_stem(
            masker.spec.out_shape,
            teacher.tap_shapes[self.tap],
            width=self.stem_width,
            depth=self.stem_depth,
            seed=derive_seed(seed, "stem"),
        )
        network = StemAdapter(stem, teacher, self.tap)
        head = None
        if self.head is not None:
            head = _new_head(self.head, num_classes, network.dim, scale=self.scale, margin=self.margin, seed=seed)
        task = FineTuningTask(
            masker,
            network,
            teacher,
            teacher_card=card,
            body_unfrozen_from=self.body_unfrozen_from,
            body_lr_scale=self.body_lr_scale,
            embedding_from=self.embedding_from,
            feature_weight=self.feature_weight,
            embedding_weight=self.embedding_weight,
            head=head,
            head_weight=self.head_weight,
            mixer=fixed_mixer(self.mixing),
            optimizer=self.optimizer,
        )
        return with_adaptive_mixing(task, self.mixing, masker, seed=seed), network

    def prepare(self, task: TrainingTask, images: ImageSet) -> None:
        """Initialise the class centres of the head, if any, with the mean embeddings of the teacher."""
        inner = task.recogniser if isinstance(task, AdaptiveMixingTask) else task
        assert isinstance(inner, FineTuningTask)
        if inner.head is not None:
            inner.head.weight_CD.data.copy_(class_centres(inner.teacher, images))


def _check_name(catalogue: Mapping[str, Any], name: str, what: str) -> None:
    if name not in catalogue:
        raise InvalidInputError(f"unknown {what} {name!r}; available: {', '.join(catalogue)}")


def _new_network(name: str, masker: ImageMasker, *, dim: int, seed: int) -> Backbone:
    network: Backbone = NETWORKS[name](in_shape=masker.spec.out_shape, dim=dim, seed=seed)
    return network


def _new_head(name: str, num_classes: int, dim: int, *, scale: float, margin: float | None, seed: int) -> MarginHead:
    options = {} if margin is None else {"margin": margin}
    head: MarginHead = HEADS[name](num_classes, dim, scale=scale, seed=derive_seed(seed, "head"), **options)
    return head


def _rebuild(
    strategy: TrainingStrategy,
    *,
    name: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    secret: bytes | None,
    num_classes: int,
    seed: int,
) -> TrainingTask:
    """Build the task again, in another process."""
    masker = make_masker(name, secret=secret, config=config, arrays=arrays)
    return strategy.build(masker, num_classes=num_classes, seed=seed)[0]


def _system(
    masker: ImageMasker, network: Backbone, images: ImageSet, *, description: str, pretrained: tuple[ModelCard, ...]
) -> MaskedSystem:
    sources = [images.name, *(f"{card.name}: {card.training_data}" for card in pretrained)]
    seen = tuple(dict.fromkeys(entry for card in pretrained for entry in card.may_have_seen))
    card = card_for(
        network,
        name=f"{masker.name} {description}",
        training_data="; ".join(sources),
        licence="; ".join(dict.fromkeys(card.licence for card in pretrained)) or _OWN_LICENCE,
        source="trained with ppfr",
        may_have_seen=seen,
    )
    deployed = masker.frozen()
    trained_on = (TrainingSet.of(images), *map(training_set_of, pretrained))
    return MaskedSystem(masker=deployed, network=network.eval(), card=card, trained_on=trained_on)
