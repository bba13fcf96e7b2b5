"""Three ways to a recogniser of masked faces, each as a value that can be named in an experiment and a record."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from ppfr.core import ImageMasker, ImageSet, InvalidInputError, derive_seed
from ppfr.models import (
    PRETRAINED,
    AdaFace,
    ArcFace,
    Backbone,
    CosFace,
    MarginHead,
    MobileFaceNet,
    ModelCard,
    Restemmed,
    card_for,
    conv_stem,
    ir18,
    ir50,
    ir_se50,
    load_pretrained,
)
from ppfr.systems._catalogue import make_masker
from ppfr.systems._mixing import Mixing, check_batch, fixed_mixer, with_strategy
from ppfr.systems._system import MaskedSystem
from ppfr.training import (
    AdaptationObjective,
    AdaptiveMixingObjective,
    DistillationObjective,
    FitRecord,
    MarginObjective,
    Objective,
    OptimiserSettings,
    Plan,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Where and on what a training runs; no figure depends on these, on one device.

    Attributes:
        run_dir: checkpoints and logs; a run found there is an error unless `resumes`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        num_devices: processes side by side.
        resumes: go on from the last checkpoint in `run_dir`.
        shows_progress: a progress bar.
        with_tensorboard: scalars under `run_dir`/tensorboard.
        secret: the masker's, which several processes need to make it anew.
    """

    run_dir: Path | None
    device: str = "auto"
    num_devices: int = 1
    resumes: bool = False
    shows_progress: bool = True
    with_tensorboard: bool = False
    secret: bytes | None = dataclasses.field(default=None, repr=False)


class Way(Protocol):
    """A way of training: masker and images in, a masked recogniser out."""

    @property
    def plan(self) -> Plan:
        """Length and schedule."""
        ...

    @property
    def mixing(self) -> Mixing | None:
        """Whether and how images are mixed with each other."""
        ...

    def cards(self) -> tuple[ModelCard, ...]:
        """Cards of the pretrained networks that go in, known before anything is trained."""
        ...

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[Objective, Backbone]:
        """The objective, and the network in it that will recognise; the same for the same arguments."""
        ...

    def train(
        self, masker: ImageMasker, images: ImageSet, *, seed: int, options: FitOptions
    ) -> tuple[MaskedSystem, FitRecord]:
        """Train a recogniser that sees only what `masker` lets through."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromScratch:
    """A new network with a margin head, on labels alone.

    Attributes:
        plan: length and schedule.
        network: a key of `NETWORKS`.
        dim: embedding length.
        head: a key of `HEADS`.
        scale: the head's s; smaller for few classes.
        margin: the head's m; None for the usual one of the head.
        optimiser: of network and head.
        mixing: of the masked batch and its labels.
    """

    plan: Plan
    network: str = "mobilefacenet"
    dim: int = 128
    head: str = "arcface"
    scale: float = 64.0
    margin: float | None = None
    optimiser: OptimiserSettings = OptimiserSettings(optimiser="sgd", lr=0.1, weight_decay=5e-4)  # noqa: RUF009
    mixing: Mixing | None = None

    def cards(self) -> tuple[ModelCard, ...]:
        """None: nothing is known beforehand."""
        return ()

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[Objective, Backbone]:
        """See `Way`."""
        network = _new_network(self.network, masker, dim=self.dim, seed=derive_seed(seed, "network"))
        head = _new_head(self.head, num_classes, self.dim, scale=self.scale, margin=self.margin, seed=seed)
        objective = MarginObjective(masker, network, head, mixer=fixed_mixer(self.mixing), optimiser=self.optimiser)
        return with_strategy(objective, self.mixing, masker, seed=seed), network

    def train(
        self, masker: ImageMasker, images: ImageSet, *, seed: int, options: FitOptions
    ) -> tuple[MaskedSystem, FitRecord]:
        """See `Way`."""
        return _train(self, masker, images, seed=seed, options=options, words="trained from scratch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distil:
    """A new network that learns the embeddings (and features) of a frozen public recogniser.

    Attributes:
        plan: length and schedule.
        teacher: name of a public network.
        weights: directory of the public networks; None for PPFR_WEIGHTS.
        network: a key of `NETWORKS`.
        taps: student tap -> teacher tap whose feature maps are compared.
        optimiser: of the student.
        mixing: of the masked batch, and of the teacher's side alike.
    """

    plan: Plan
    teacher: str = "mobilefacenet-y1"
    weights: Path | None = None
    network: str = "mobilefacenet"
    taps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optimiser: OptimiserSettings = OptimiserSettings(optimiser="adamw", lr=2e-3, weight_decay=1e-2)  # noqa: RUF009
    mixing: Mixing | None = None

    def cards(self) -> tuple[ModelCard, ...]:
        """The teacher's."""
        return (PRETRAINED[self.teacher].card,) if self.teacher in PRETRAINED else ()

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[Objective, Backbone]:
        """See `Way`."""
        teacher, card = load_pretrained(self.teacher, weights_dir=self.weights)
        network = _new_network(self.network, masker, dim=teacher.dim, seed=derive_seed(seed, "network"))
        objective = DistillationObjective(
            masker,
            network,
            teacher,
            teacher_card=card,
            taps=self.taps,
            mixer=fixed_mixer(self.mixing),
            optimiser=self.optimiser,
            seed=derive_seed(seed, "projections"),
        )
        return with_strategy(objective, self.mixing, masker, seed=seed), network

    def train(
        self, masker: ImageMasker, images: ImageSet, *, seed: int, options: FitOptions
    ) -> tuple[MaskedSystem, FitRecord]:
        """See `Way`."""
        return _train(self, masker, images, seed=seed, options=options, words=f"distilled from {self.teacher}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapt:
    """A public recogniser keeps its body and gets a new stem for the masked input: the way for little data.

    Attributes:
        plan: length and schedule.
        teacher: name of the public network: both the body that is kept and the teacher on plain crops.
        weights: directory of the public networks; None for PPFR_WEIGHTS.
        tap: where the new stem ends.
        stem_width: channels of the stem's residual units.
        stem_depth: residual units of the stem.
        body_unfrozen_from: share of the run after which the body learns along.
        body_lr_scale: its rate as a share of the stem's.
        embedding_from: share of the run after which the embedding's error joins that of the feature map.
        feature_weight: of the feature map at `tap`.
        embedding_weight: of the embedding.
        head: a key of `HEADS`, to learn from labels too; its centres start at the teacher's mean embedding of each
            subject. None learns from the teacher alone.
        head_weight: of the head's loss.
        scale: the head's s.
        margin: the head's m; None for the usual one of the head.
        optimiser: of stem and body.
        mixing: of the masked batch, and of labels and the teacher's side alike.
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
    optimiser: OptimiserSettings = OptimiserSettings(optimiser="adamw", lr=2e-3, weight_decay=1e-4)  # noqa: RUF009
    mixing: Mixing | None = None

    def cards(self) -> tuple[ModelCard, ...]:
        """The teacher's."""
        return (PRETRAINED[self.teacher].card,) if self.teacher in PRETRAINED else ()

    def build(self, masker: ImageMasker, *, num_classes: int, seed: int) -> tuple[Objective, Backbone]:
        """See `Way`."""
        teacher, card = load_pretrained(self.teacher, weights_dir=self.weights)
        stem = conv_stem(
            masker.spec.out_shape,
            teacher.tap_shapes[self.tap],
            width=self.stem_width,
            depth=self.stem_depth,
            seed=derive_seed(seed, "stem"),
        )
        network = Restemmed(stem, teacher, self.tap)
        head = None
        if self.head is not None:
            head = _new_head(self.head, num_classes, network.dim, scale=self.scale, margin=self.margin, seed=seed)
        objective = AdaptationObjective(
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
            optimiser=self.optimiser,
        )
        return with_strategy(objective, self.mixing, masker, seed=seed), network

    def train(
        self, masker: ImageMasker, images: ImageSet, *, seed: int, options: FitOptions
    ) -> tuple[MaskedSystem, FitRecord]:
        """See `Way`."""

        def start_head(objective: Objective) -> None:
            inner = objective.recogniser if isinstance(objective, AdaptiveMixingObjective) else objective
            assert isinstance(inner, AdaptationObjective)
            if inner.head is not None:
                inner.head.weight_CD.data.copy_(class_centres(inner.teacher, images))

        words = f"adapted from {self.teacher}"
        return _train(self, masker, images, seed=seed, options=options, words=words, prepare=start_head)


def check_names(*, network: str, head: str, teacher: str) -> None:
    """Refuse words that name nothing, before anything is read or drawn.

    Raises:
        InvalidInputError: unknown network, head or teacher; lists those that there are.
    """
    _named(NETWORKS, network, "network")
    _named(HEADS, head, "head")
    _named(PRETRAINED, teacher, "pretrained network")


def _named(catalogue: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in catalogue:
        raise InvalidInputError(f"no {what} is named {name!r}; there are {', '.join(catalogue)}")
    return catalogue[name]


def _new_network(name: str, masker: ImageMasker, *, dim: int, seed: int) -> Backbone:
    network: Backbone = _named(NETWORKS, name, "network")(in_shape=masker.spec.out_shape, dim=dim, seed=seed)
    return network


def _new_head(name: str, num_classes: int, dim: int, *, scale: float, margin: float | None, seed: int) -> MarginHead:
    options = {} if margin is None else {"margin": margin}
    head: MarginHead = _named(HEADS, name, "head")(
        num_classes, dim, scale=scale, seed=derive_seed(seed, "head"), **options
    )
    return head


def _train(
    way: Way,
    masker: ImageMasker,
    images: ImageSet,
    *,
    seed: int,
    options: FitOptions,
    words: str,
    prepare: Callable[[Objective], None] | None = None,
) -> tuple[MaskedSystem, FitRecord]:
    check_batch(way.mixing, way.plan.batch_size // max(1, options.num_devices))
    num_classes = len(set(images.subject_ids))
    objective, network = way.build(masker, num_classes=num_classes, seed=seed)
    rebuild = None
    if options.num_devices > 1 and masker.spec.is_keyed:
        # A keyed masker refuses pickling, so each process makes its own; only the pipe to it carries the secret.
        rebuild = functools.partial(
            _rebuild,
            way,
            name=masker.name,
            config=dict(masker.public_config()),
            arrays=dict(masker.public_arrays()),
            secret=options.secret,
            num_classes=num_classes,
            seed=seed,
        )
    record = fit(
        objective,
        images,
        plan=way.plan,
        seed=derive_seed(seed, "fit"),
        run_dir=options.run_dir,
        device=options.device,
        num_devices=options.num_devices,
        resume=options.resumes,
        progress=options.shows_progress,
        tensorboard=options.with_tensorboard,
        rebuild=rebuild,
        prepare=None if prepare is None else functools.partial(prepare, objective),
    )
    return _system(masker, network, images, way=words, learnt_from=way.cards()), record


def _rebuild(
    way: Way,
    *,
    name: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    secret: bytes | None,
    num_classes: int,
    seed: int,
) -> Objective:
    """The objective again, in another process."""
    masker = make_masker(name, secret=secret, config=config, arrays=arrays)
    return way.build(masker, num_classes=num_classes, seed=seed)[0]


def _system(
    masker: ImageMasker, network: Backbone, images: ImageSet, *, way: str, learnt_from: tuple[ModelCard, ...]
) -> MaskedSystem:
    sources = [images.name, *(f"{card.name}: {card.training_data}" for card in learnt_from)]
    seen = tuple(dict.fromkeys(entry for card in learnt_from for entry in card.may_have_seen))
    card = card_for(
        network,
        name=f"{masker.name} {way}",
        training_data="; ".join(sources),
        licence="; ".join(dict.fromkeys(card.licence for card in learnt_from)) or _OWN_LICENCE,
        source="trained with ppfr",
        may_have_seen=seen,
    )
    deployed = masker.frozen()
    return MaskedSystem(masker=deployed, network=network.eval(), card=card)
