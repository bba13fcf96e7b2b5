"""Distillation: a new network on masked images learns the embeddings and features of a frozen teacher on plain images.

Shapes: `B` batch, `D` embedding, `C P Q` feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import BatchMixer, ImageMasker, InvalidInputError, MixedBatch, as_json
from ppfr.models import Backbone, MarginHead, ModelCard, weights_drawn_from
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
from ppfr.training._recogniser import RecogniserTask, describe_mixer, mixed_embeddings, mixed_rows
from ppfr.training._task import Batch, OptimizerGroup, OptimizerSettings


class DistillationTask(RecogniserTask):
    """The student sees the masked image, the teacher the plain image; both are mirrored alike.

    loss = embedding_weight * mean(1 - cos) + feature_weight * mean over taps of the normalised squared error
    (see `feature_error`; 1 is the error of the channel means) + head_weight * loss of the head.

    On mixtures, the targets are the same weighted sums of the feature maps and unit embeddings of the teacher.

    Args:
        masker: masks the images; the student sees only its output. Randomness is drawn anew for every image and epoch.
        student: takes inputs of shape `masker.spec.out_shape`.
        teacher: takes plain crops. It is frozen, in evaluation mode, and not stored in checkpoints.
        teacher_card: training data of the teacher; part of every result.
        taps: student tap -> teacher tap. If the channels differ, a 1x1 convolution maps between them; it is trained
            along and discarded. If the grids differ, the feature map of the teacher is averaged or interpolated to the
            grid of the student.
        embedding_weight: weight of the embedding. If the lengths differ, a linear layer maps the embedding of the
            student.
        feature_weight: weight of all taps together; unused without taps.
        head: optional margin head, to learn from labels too. It has one class per subject of the training set.
        head_weight: weight of the head.
        mixer: mixes the masked batch and its labels; None trains on single images.
        optimizer: by default AdamW with lr=1e-3.
        provenance: cards of the pretrained weights that the student starts from.
        seed: seeds the initial weights of the mapping layers.

    Raises:
        ShapeError: the shapes of masker, networks and head do not match.
        InvalidInputError: taps are unknown, or weights are negative or all zero.
    """

    def __init__(
        self,
        masker: ImageMasker,
        student: Backbone,
        teacher: Backbone,
        *,
        teacher_card: ModelCard,
        taps: Mapping[str, str] | None = None,
        embedding_weight: float = 1.0,
        feature_weight: float = 1.0,
        head: MarginHead | None = None,
        head_weight: float = 0.1,
        mixer: BatchMixer | None = None,
        optimizer: OptimizerSettings | None = None,
        provenance: Sequence[ModelCard] = (),
        seed: int,
    ) -> None:
        super().__init__()
        self.taps = dict(taps or {})
        check_input(masker, student)
        check_teacher(masker, teacher)
        check_head(head, student)
        check_weights(
            embedding_weight=embedding_weight,
            feature_weight=feature_weight if self.taps else 0.0,
            head_weight=head_weight if head is not None else 0.0,
        )
        _check_taps(self.taps, student, teacher)
        self.masker, self.student, self.teacher, self.head = masker, student, teacher, head
        self.embedding_weight, self.feature_weight, self.head_weight = embedding_weight, feature_weight, head_weight
        self.teacher_card, self.provenance, self.mixer = teacher_card, tuple(provenance), mixer
        self.optimizer = optimizer or OptimizerSettings(optimizer="adamw", lr=1e-3)
        self.frozen = ("teacher", *frozen_masker(masker))
        self.remember_secret()
        with weights_drawn_from(seed):
            self.projections = nn.ModuleDict(
                {
                    name: nn.Conv2d(student.tap_shapes[name][0], teacher.tap_shapes[other][0], 1)
                    for name, other in self.taps.items()
                    if student.tap_shapes[name][0] != teacher.tap_shapes[other][0]
                }
            )
            is_same = student.dim == teacher.dim
            self.projection: nn.Module = nn.Identity() if is_same else nn.Linear(student.dim, teacher.dim)

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """One group: student, mapping layers, head, and a masker that is trained."""
        parts = [self.student, self.projections, self.projection, *([] if self.head is None else [self.head])]
        parameters = [p for part in parts for p in part.parameters()] + masker_parameters(self.masker)
        return (OptimizerGroup(name="student", parameters=parameters, **self.optimizer.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """Check that the head, if any, has one class per subject."""
        check_head(self.head, self.student, num_classes=num_classes)

    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The weighted sum as "loss", and its terms."""
        with torch.no_grad():
            wanted_BD, wanted = self.teacher.forward_taps(batch.images_BCHW, tuple(self.taps.values()))
        embedding_BD, features = self.student.forward_taps(mixed.values_BKPQ, tuple(self.taps))
        error = embedding_error(self.projection(embedding_BD), mixed_embeddings(wanted_BD, mixed))
        terms = {"embedding": error}
        total = self.embedding_weight * error
        if self.taps:
            errors = [
                self._feature_error(name, features[name], mixed_rows(wanted[other], mixed))
                for name, other in self.taps.items()
            ]
            terms["features"] = torch.stack(errors).mean()
            total = total + self.feature_weight * terms["features"]
        if self.head is not None:
            terms["head"] = self.head.loss(embedding_BD, mixed.labels_Bk, mixed.weights_Bk)
            total = total + self.head_weight * terms["head"]
        return {"loss": total, **terms}

    def _feature_error(self, name: str, features_BCPQ: Tensor, wanted_BCPQ: Tensor) -> Tensor:
        if name in self.projections:
            features_BCPQ = self.projections[name](features_BCPQ)
        return feature_error(features_BCPQ, _on_grid(wanted_BCPQ, (features_BCPQ.shape[2], features_BCPQ.shape[3])))

    def describe(self) -> dict[str, Any]:
        """See `TrainingTask.describe`."""
        return {
            "kind": "distillation",
            "masker": describe_masker(self.masker),
            "network": describe_module(self.student),
            "teacher": describe_module(self.teacher),
            "taps": dict(self.taps),
            "embedding_weight": self.embedding_weight,
            "feature_weight": self.feature_weight if self.taps else 0.0,
            "head": None if self.head is None else describe_module(self.head),
            "head_weight": 0.0 if self.head is None else self.head_weight,
            "mixer": describe_mixer(self.mixer),
            "optimizer": as_json(self.optimizer.settings()),
            "provenance": describe_provenance({"teacher": [self.teacher_card], "initial weights": self.provenance}),
        }


def _check_taps(taps: Mapping[str, str], student: Backbone, teacher: Backbone) -> None:
    problems = [f"the student has no tap {name!r}" for name in taps if name not in student.tap_shapes]
    problems += [f"the teacher has no tap {name!r}" for name in taps.values() if name not in teacher.tap_shapes]
    if problems:
        raise InvalidInputError(
            f"taps={dict(taps)}: {', '.join(problems)}. Taps of the student: {', '.join(student.tap_shapes)}; "
            f"taps of the teacher: {', '.join(teacher.tap_shapes)}"
        )


def _on_grid(wanted_BCPQ: Tensor, grid: tuple[int, int]) -> Tensor:
    """The feature map of the teacher on the grid of the student: averaged if it is finer, interpolated if coarser."""
    if tuple(wanted_BCPQ.shape[2:]) == grid:
        return wanted_BCPQ
    if wanted_BCPQ.shape[2] >= grid[0] and wanted_BCPQ.shape[3] >= grid[1]:
        return functional.adaptive_avg_pool2d(wanted_BCPQ, grid)
    return functional.interpolate(wanted_BCPQ, size=grid, mode="bilinear", align_corners=False)
