"""Adaptation: a pretrained recogniser keeps its body and gets a new stem for masked images.

Shapes: `B` batch, `D` embedding, `C P Q` feature map.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from ppfr.core import BatchMixer, ImageMasker, InvalidInputError, MixedBatch, ShapeError
from ppfr.models import Backbone, MarginHead, ModelCard, Restemmed
from ppfr.training._masked_input import (
    check_head,
    check_input,
    check_teacher,
    check_weights,
    describe_knowledge,
    describe_masker,
    describe_module,
    embedding_error,
    feature_error,
    frozen_masker,
    masker_parameters,
)
from ppfr.training._objective import Batch, OptimiserSettings, ParameterGroup, Player, as_json
from ppfr.training._recogniser import (
    RECOGNISER,
    RecogniserObjective,
    describe_mixer,
    mixed_embeddings,
    mixed_rows,
)


class AdaptationObjective(RecogniserObjective):
    """The new stem learns the feature map that the body was trained on, and the embedding that comes of it.

    First only the stem learns, through a body at rest (evaluation mode: its running statistics stay too); from
    `body_unfrozen_from` on the body learns along at a lower rate. The way for little data: the body's knowledge of
    faces is kept, only the way from the masked image to its first feature map is new.

    loss = feature_weight * squared error at the tap, over the teacher's variance (1 = the teacher's channel means)
    + embedding_weight * mean(1 - cos) + head_weight * the head's loss.

    On mixtures the teacher's side is mixed alike: the weighted sum of its feature maps, and of its unit embeddings.

    Args:
        masker: its output is all that the network sees; drawn afresh for every image and pass.
        network: the new stem in front of the body; takes `masker.spec.out_shape`.
        teacher: the pretrained recogniser whole, on plain crops; frozen, not stored in checkpoints.
        teacher_card: what the teacher, and with it the body, learned from; named in every result.
        body_unfrozen_from: share of the run after which the body learns too; 1 keeps it at rest throughout.
        body_lr_scale: the body's rate as a share of the stem's.
        embedding_from: share of the run after which the embedding's error and the head's loss join; until then neither
            body runs, and a step costs a fraction. With a body at rest the feature map is most of what the stem can
            learn from.
        updates_body_statistics: from then on the body's BatchNorm uses and updates batch statistics (and dropout is
            on); by default its running statistics stay those of the pretrained network.
        feature_weight: of the feature map at `network.tap`.
        embedding_weight: of the embedding.
        head: also learn from the labels; as many classes as the training set has subjects.
        head_weight: its weight.
        mixer: mixes the masked batch and its labels; None trains on the images one by one.
        optimiser: AdamW at 1e-3 by default.

    Raises:
        ShapeError: masker, network, teacher and head do not fit together.
        InvalidInputError: the teacher lacks the network's tap; weights or shares out of range.
    """

    def __init__(
        self,
        masker: ImageMasker,
        network: Restemmed,
        teacher: Backbone,
        *,
        teacher_card: ModelCard,
        body_unfrozen_from: float = 0.3,
        body_lr_scale: float = 0.1,
        embedding_from: float = 0.0,
        updates_body_statistics: bool = False,
        feature_weight: float = 1.0,
        embedding_weight: float = 1.0,
        head: MarginHead | None = None,
        head_weight: float = 0.1,
        mixer: BatchMixer | None = None,
        optimiser: OptimiserSettings | None = None,
    ) -> None:
        super().__init__()
        check_input(masker, network)
        check_teacher(masker, teacher)
        check_head(head, network)
        check_weights(
            feature_weight=feature_weight,
            embedding_weight=embedding_weight,
            head_weight=head_weight if head is not None else 0.0,
        )
        _check_body(network, teacher)
        _check_shares(body_unfrozen_from, body_lr_scale, embedding_from, feature_weight)
        self.masker, self.network, self.teacher, self.head = masker, network, teacher, head
        self.teacher_card, self.mixer = teacher_card, mixer
        self.body_unfrozen_from, self.body_lr_scale = body_unfrozen_from, body_lr_scale
        self.embedding_from = embedding_from
        self.updates_body_statistics = updates_body_statistics
        self.feature_weight, self.embedding_weight, self.head_weight = feature_weight, embedding_weight, head_weight
        self.optimiser = optimiser or OptimiserSettings(optimiser="adamw", lr=1e-3)
        self.frozen = ("teacher", *frozen_masker(masker))
        self.remember_secret()
        self._is_body_learning: bool | None = None

    def players(self) -> tuple[Player, ...]:
        """One, with the body as a group of its own."""
        new = [*self.network.stem.parameters(), *masker_parameters(self.masker)]
        if self.head is not None:
            new += self.head.parameters()
        groups = [
            ParameterGroup(parameters=new),
            ParameterGroup(parameters=self.network.body_parameters(), lr_scale=self.body_lr_scale),
        ]
        return (Player(name=RECOGNISER, parameters=groups, **self.optimiser.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """A head must have as many classes as the set has subjects."""
        check_head(self.head, self.network, num_classes=num_classes)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what learns in the present phase."""
        super().train(mode)
        self._is_body_learning = None
        return self

    def begin_step(self, step: int, progress: float) -> None:
        """Wake the body when its time has come."""
        is_learning = progress >= self.body_unfrozen_from
        if is_learning == self._is_body_learning:
            return
        for part in self._body():
            part.train(is_learning and self.updates_body_statistics)
        for parameter in self.network.body_parameters():
            parameter.requires_grad_(is_learning)
        self._is_body_learning = is_learning

    def _body(self) -> list[nn.Module]:
        return [*(part for name, part in self.network.parts.items() if name != self.network.tap), self.network.head]

    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The weighted sum, and its terms under their names."""
        tap, values_BKPQ = self.network.tap, mixed.values_BKPQ
        if progress < self.embedding_from:
            with torch.no_grad():
                wanted_BCPQ = mixed_rows(self.teacher.forward_until(batch.images_BCHW, tap), mixed)
            error = feature_error(self.network.forward_until(values_BKPQ, tap), wanted_BCPQ)
            return {"loss": self.feature_weight * error, "features": error}
        with torch.no_grad():
            wanted_BD, wanted = self.teacher.forward_taps(batch.images_BCHW, (tap,))
        embedding_BD, features = self.network.forward_taps(values_BKPQ, (tap,))
        terms = {
            "features": feature_error(features[tap], mixed_rows(wanted[tap], mixed)),
            "embedding": embedding_error(embedding_BD, mixed_embeddings(wanted_BD, mixed)),
        }
        total = self.feature_weight * terms["features"] + self.embedding_weight * terms["embedding"]
        if self.head is not None:
            terms["head"] = self.head.loss(embedding_BD, mixed.labels_Bk, mixed.weights_Bk)
            total = total + self.head_weight * terms["head"]
        return {"loss": total, **terms}

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": "adaptation",
            "masker": describe_masker(self.masker),
            "network": describe_module(self.network),
            "teacher": describe_module(self.teacher),
            "tap": self.network.tap,
            "body_unfrozen_from": self.body_unfrozen_from,
            "body_lr_scale": self.body_lr_scale,
            "embedding_from": self.embedding_from,
            "updates_body_statistics": self.updates_body_statistics,
            "feature_weight": self.feature_weight,
            "embedding_weight": self.embedding_weight,
            "head": None if self.head is None else describe_module(self.head),
            "head_weight": 0.0 if self.head is None else self.head_weight,
            "mixer": describe_mixer(self.mixer),
            "optimiser": as_json(self.optimiser.settings()),
            "knowledge": describe_knowledge({"teacher and body": [self.teacher_card]}),
        }


def _check_shares(
    body_unfrozen_from: float, body_lr_scale: float, embedding_from: float, feature_weight: float
) -> None:
    if not 0 <= body_unfrozen_from <= 1 or not 0 < body_lr_scale <= 1:
        raise InvalidInputError(
            f"body_unfrozen_from={body_unfrozen_from}, body_lr_scale={body_lr_scale}; allowed are a share of the "
            "run, 0 to 1, and a share of the rate, above 0 to 1"
        )
    if not 0 <= embedding_from <= body_unfrozen_from:
        raise InvalidInputError(
            f"embedding_from={embedding_from}; allowed is a share of the run from 0 to body_unfrozen_from="
            f"{body_unfrozen_from}: a body that learns needs the embedding's error"
        )
    if embedding_from > 0 and feature_weight <= 0:
        raise InvalidInputError(
            f"embedding_from={embedding_from} leaves the feature map alone to learn from: it needs a feature_weight "
            "above 0"
        )


def _check_body(network: Restemmed, teacher: Backbone) -> None:
    tap = network.tap
    if tap not in teacher.tap_shapes:
        raise InvalidInputError(
            f"the teacher has no tap {tap!r}, where the new stem ends; it has {', '.join(teacher.tap_shapes)}: "
            "use the network that the body came from"
        )
    given, wanted = (network.dim, *network.tap_shapes[tap]), (teacher.dim, *teacher.tap_shapes[tap])
    if given != wanted:
        raise ShapeError(
            f"embedding length and map at {tap!r} are {given} in the network and {wanted} in the teacher; "
            "use the network that the body came from"
        )
