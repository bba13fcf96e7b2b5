"""Distillation: a new network on masked images learns the embeddings and features of a frozen teacher on plain ones.

Shapes: `B` batch, `D` embedding, `C P Q` feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import BatchMixer, ImageMasker, InvalidInputError, MixedBatch
from ppfr.models import Backbone, MarginHead, ModelCard
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
from ppfr.training._objective import Batch, OptimiserSettings, Player, as_json
from ppfr.training._recogniser import RecogniserObjective, describe_mixer, mixed_embeddings, mixed_rows


class DistillationObjective(RecogniserObjective):
    """The student sees the masked image, the teacher the plain one (mirrored alike), and the student imitates it.

    loss = embedding_weight * mean(1 - cos) + feature_weight * mean over taps of the normalised squared error
    (1 = the teacher's channel means) + head_weight * the head's loss.

    On mixtures the teacher's side is mixed alike: the weighted sum of its feature maps, and of its unit embeddings.

    Args:
        masker: its output is all that the student sees; drawn afresh for every image and pass.
        student: takes `masker.spec.out_shape`.
        teacher: takes plain crops; frozen, in evaluation mode, not stored in checkpoints.
        teacher_card: what the teacher learned from; named in every result.
        taps: student tap -> teacher tap. A 1x1 convolution, trained along and thrown away, translates where channels
            differ; where grids differ the teacher's map is averaged or stretched to the student's grid.
        embedding_weight: a linear map translates the student's embedding where lengths differ.
        feature_weight: of the taps together; unused without taps.
        head: also learn from the labels; as many classes as the training set has subjects.
        head_weight: its weight.
        mixer: mixes the masked batch and its labels; None trains on the images one by one.
        optimiser: AdamW at 1e-3 by default.
        knowledge: cards of whatever pretrained weights the student starts from.
        seed: of the translating layers' first weights.

    Raises:
        ShapeError: masker, networks and head do not fit together.
        InvalidInputError: unknown taps, weights that are negative or all zero.
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
        optimiser: OptimiserSettings | None = None,
        knowledge: Sequence[ModelCard] = (),
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
        self.teacher_card, self.knowledge, self.mixer = teacher_card, tuple(knowledge), mixer
        self.optimiser = optimiser or OptimiserSettings(optimiser="adamw", lr=1e-3)
        self.frozen = ("teacher", *frozen_masker(masker))
        self.remember_secret()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.projections = nn.ModuleDict(
                {
                    name: nn.Conv2d(student.tap_shapes[name][0], teacher.tap_shapes[other][0], 1)
                    for name, other in self.taps.items()
                    if student.tap_shapes[name][0] != teacher.tap_shapes[other][0]
                }
            )
            is_same = student.dim == teacher.dim
            self.projection: nn.Module = nn.Identity() if is_same else nn.Linear(student.dim, teacher.dim)

    def players(self) -> tuple[Player, ...]:
        """One: the student with its translating layers."""
        parts = [self.student, self.projections, self.projection, *([] if self.head is None else [self.head])]
        parameters = [p for part in parts for p in part.parameters()] + masker_parameters(self.masker)
        return (Player(name="student", parameters=parameters, **self.optimiser.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """A head must have as many classes as the set has subjects."""
        check_head(self.head, self.student, num_classes=num_classes)

    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The weighted sum, and its terms under their names."""
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
        """JSON-ready."""
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
            "optimiser": as_json(self.optimiser.settings()),
            "knowledge": describe_knowledge({"teacher": [self.teacher_card], "initial weights": self.knowledge}),
        }


def _check_taps(taps: Mapping[str, str], student: Backbone, teacher: Backbone) -> None:
    problems = [f"student has no {name}" for name in taps if name not in student.tap_shapes]
    problems += [f"teacher has no {name}" for name in taps.values() if name not in teacher.tap_shapes]
    if problems:
        raise InvalidInputError(
            f"taps={dict(taps)}: {', '.join(problems)}; the student has {', '.join(student.tap_shapes)}, "
            f"the teacher {', '.join(teacher.tap_shapes)}"
        )


def _on_grid(wanted_BCPQ: Tensor, grid: tuple[int, int]) -> Tensor:
    """The teacher's map on the student's grid: averaged where it is finer, stretched where it is coarser."""
    if tuple(wanted_BCPQ.shape[2:]) == grid:
        return wanted_BCPQ
    if wanted_BCPQ.shape[2] >= grid[0] and wanted_BCPQ.shape[3] >= grid[1]:
        return functional.adaptive_avg_pool2d(wanted_BCPQ, grid)
    return functional.interpolate(wanted_BCPQ, size=grid, mode="bilinear", align_corners=False)
