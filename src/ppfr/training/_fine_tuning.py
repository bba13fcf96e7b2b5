"""Fine-tuning: a pretrained recogniser keeps its body and gets a new stem for masked images.

Shapes: `B` batch, `D` embedding, `C P Q` feature map.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from ppfr.core import BatchMixer, ImageMasker, InvalidInputError, MixedBatch, ShapeError, as_json
from ppfr.models import Backbone, MarginHead, ModelCard, StemAdapter
from ppfr.training._masked_input import (
    check_head,
    check_input,
    check_teacher,
    check_weights,
    describe_masker,
    describe_module,
    describe_provenance,
    embedding_error,
    feature_error,
    frozen_masker,
    masker_parameters,
)
from ppfr.training._recogniser import (
    RECOGNISER,
    RecogniserTask,
    describe_mixer,
    mixed_embeddings,
    mixed_rows,
)
from ppfr.training._task import Batch, OptimizerGroup, OptimizerSettings, ParameterGroup


class FineTuningTask(RecogniserTask):
    """The new stem learns the feature map at the tap and the embedding of a frozen teacher.

    At first only the stem is trained, and the body is frozen in evaluation mode, running statistics included. From
    `body_unfrozen_from` on, the body is trained too, at a lower learning rate. This strategy suits small training sets:
    the pretrained body is kept, and only the layers from the masked image to its first feature map are new.

    loss = feature_weight * normalised squared error at the tap (see `feature_error`; 1 is the error of the channel
    means) + embedding_weight * mean(1 - cos) + head_weight * loss of the head.

    On mixtures, the targets are the same weighted sums of the feature maps and unit embeddings of the teacher.

    Args:
        masker: masks the images; the network sees only its output. Randomness is drawn anew for every image and epoch.
        network: new stem and pretrained body. It takes inputs of shape `masker.spec.out_shape`.
        teacher: the complete pretrained recogniser. It takes plain crops, is frozen and is not stored in checkpoints.
        teacher_card: training data of the teacher and thus of the body; part of every result.
        body_unfrozen_from: share of the run after which the body is trained too; 1 keeps it frozen.
        body_lr_scale: learning rate of the body as a share of that of the stem.
        embedding_from: share of the run after which the embedding and the head are part of the loss. Until then the
            bodies are not evaluated, and a step is much cheaper. While the body is frozen, the feature map gives the
            stem most of its supervision.
        updates_body_statistics: train the body in training mode: BatchNorm uses and updates batch statistics, and
            dropout is on. By default the running statistics remain those of the pretrained network.
        feature_weight: weight of the feature map at `network.tap`.
        embedding_weight: weight of the embedding.
        head: optional margin head, to learn from labels too. It has one class per subject of the training set.
        head_weight: weight of the head.
        mixer: mixes the masked batch and its labels; None trains on single images.
        optimizer: by default AdamW with lr=1e-3.

    Raises:
        ShapeError: the shapes of masker, network, teacher and head do not match.
        InvalidInputError: the teacher lacks the tap of the network, or weights or shares are out of range.
    """

    def __init__(
        self,
        masker: ImageMasker,
        network: StemAdapter,
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
        optimizer: OptimizerSettings | None = None,
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
        self.optimizer = optimizer or OptimizerSettings(optimizer="adamw", lr=1e-3)
        self.frozen = ("teacher", *frozen_masker(masker))
        self.remember_secret()
        self._is_body_trained: bool | None = None

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """One optimizer group, with the body as a parameter group of its own."""
        new = [*self.network.stem.parameters(), *masker_parameters(self.masker)]
        if self.head is not None:
            new += self.head.parameters()
        groups = [
            ParameterGroup(parameters=new),
            ParameterGroup(parameters=self.network.body_parameters(), lr_scale=self.body_lr_scale),
        ]
        return (OptimizerGroup(name=RECOGNISER, parameters=groups, **self.optimizer.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """Check that the head, if any, has one class per subject."""
        check_head(self.head, self.network, num_classes=num_classes)

    def train(self, mode: bool = True) -> Self:
        """Set training mode for the parts that are trained in the current phase."""
        super().train(mode)
        self._is_body_trained = None
        return self

    def begin_step(self, step: int, progress: float) -> None:
        """Unfreeze the body once `body_unfrozen_from` is reached."""
        is_trained = progress >= self.body_unfrozen_from
        if is_trained == self._is_body_trained:
            return
        for part in self._body():
            part.train(is_trained and self.updates_body_statistics)
        for parameter in self.network.body_parameters():
            parameter.requires_grad_(is_trained)
        self._is_body_trained = is_trained

    def _body(self) -> list[nn.Module]:
        return [*(part for name, part in self.network.parts.items() if name != self.network.tap), self.network.head]

    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The weighted sum as "loss", and its terms."""
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
        """See `TrainingTask.describe`."""
        return {
            "kind": "fine-tuning",
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
            "optimizer": as_json(self.optimizer.settings()),
            "provenance": describe_provenance({"teacher and body": [self.teacher_card]}),
        }


def _check_shares(
    body_unfrozen_from: float, body_lr_scale: float, embedding_from: float, feature_weight: float
) -> None:
    if not 0 <= body_unfrozen_from <= 1 or not 0 < body_lr_scale <= 1:
        raise InvalidInputError(
            f"body_unfrozen_from={body_unfrozen_from}, body_lr_scale={body_lr_scale}; body_unfrozen_from must be "
            "from 0 to 1, and body_lr_scale above 0 and at most 1"
        )
    if not 0 <= embedding_from <= body_unfrozen_from:
        raise InvalidInputError(
            f"embedding_from={embedding_from}; must be from 0 to body_unfrozen_from={body_unfrozen_from}, since "
            "the body is trained on the embedding"
        )
    if embedding_from > 0 and feature_weight <= 0:
        raise InvalidInputError(
            f"feature_weight={feature_weight} with embedding_from={embedding_from}; feature_weight must be above "
            "0, since the feature map is the only target at first"
        )


def _check_body(network: StemAdapter, teacher: Backbone) -> None:
    tap = network.tap
    if tap not in teacher.tap_shapes:
        raise InvalidInputError(
            f"the teacher has no tap {tap!r}, where the new stem ends; it has {', '.join(teacher.tap_shapes)}. "
            "Use the network that the body was taken from"
        )
    given, wanted = (network.dim, *network.tap_shapes[tap]), (teacher.dim, *teacher.tap_shapes[tap])
    if given != wanted:
        raise ShapeError(
            f"embedding length and feature map at {tap!r} are {given} in the network, but {wanted} in the teacher. "
            "Use the network that the body was taken from"
        )
