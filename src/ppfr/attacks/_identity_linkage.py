"""Identity linkage: a student estimates from masked images the embeddings that a public recogniser computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, final

from torch import nn
from torch.nn import functional

from ppfr.attacks._presets import presets
from ppfr.attacks._trained import AttackTask, TrainedAttack
from ppfr.core import AttackResult, ImageMasker, InvalidInputError, ShapeError, derive_seed
from ppfr.models import Backbone, MobileFaceNet, ModelCard, StemAdapter, conv_stem
from ppfr.training import Batch, DistillationTask, FineTuningTask, OptimizerGroup, OptimizerSettings, TrainingTask

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STUDENTS = ("restemmed", "scratch")
FINEST_TAP_GRID = 28


@final
class IdentityLinkage(TrainedAttack):
    """Train a student to map masked images to a public recogniser's embeddings of the plain ones (FaceLinkGen).

    The embeddings of the target subjects' masked images are then compared with embeddings of plain faces by the same
    teacher, in a gallery (re-identification) or pair by pair (1:1). The attack recovers no image, so SSIM and PSNR
    do not measure it.

    Args:
        teacher: a public recogniser of plain faces, other than the one that the deployment started from.
        teacher_card: model card of the teacher, with its training data; named in every result.
        student: "restemmed" puts a stem adapter for the masked channels in front of the teacher's body (the strong
            setting, in which little data suffices). "scratch" trains a new MobileFaceNet.
        tap: where the stem enters the teacher's body; the student also learns the feature map at this tap. Default: the
            first tap whose grid is at most 28x28 and not finer than that of the masked image.
        stem_width: channels of the stem.
        stem_depth: residual units of the stem.
        feature_weight: weight of the feature map's error ("restemmed" only).
        embedding_from: share of the training after which the embedding is learned in addition to the feature map. Until
            then the bodies are not evaluated, and a step costs a fraction ("restemmed" only). Default:
            `body_unfrozen_from`.
        body_unfrozen_from: share of the training after which the body is trained too ("restemmed" only).
        lr: learning rate of AdamW.
        options: `plan`, `knows_secret`, `aligns_channels`, `run_dir`, `device`, `chunk_size`, `progress`: see
            `TrainedAttack`.

    Threat model:
        Sees masked images; knows the method; has a public recogniser and faces of other people; with or without the
        secret.

    References:
        FaceLinkGen: loss 1 - cos(student(mask), teacher(face)). Deviations are listed in
        docs/methods/identity-linkage.md.
    """

    slug, title = "linkage", "Identity linkage"
    sizes = presets(
        small={"stem_width": 16, "stem_depth": 1, "num_deployments": 1},
        demo={"stem_width": 48, "stem_depth": 1},
        laptop={"stem_depth": 2},
        wide={"stem_width": 128, "stem_depth": 6},
        epochs={"fast-test": 1, "demo": 5, "laptop": 2, "paper": 10, "paper-long": 24, "paper-synthetic": 40},
    )
    estimates_embeddings = True

    @classmethod
    def with_teacher(cls, teacher: Backbone, card: ModelCard, **options: Any) -> Self:
        """The attack with this recogniser as teacher."""
        return cls(teacher, teacher_card=card, **options)

    def __init__(
        self,
        teacher: Backbone,
        *,
        teacher_card: ModelCard,
        student: str = "restemmed",
        tap: str | None = None,
        stem_width: int = 96,
        stem_depth: int = 4,
        feature_weight: float = 1.0,
        embedding_from: float | None = None,
        body_unfrozen_from: float = 0.5,
        lr: float = 1e-3,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if student not in STUDENTS:
            raise InvalidInputError(f"student={student!r} is unknown; use one of {', '.join(STUDENTS)}")
        if tap is not None and tap not in teacher.tap_shapes:
            raise InvalidInputError(f"tap={tap!r} is not in the teacher; it has {', '.join(teacher.tap_shapes)}")
        self.teacher, self.teacher_card, self.student, self.tap = teacher, teacher_card, student, tap
        self.stem_width, self.stem_depth = stem_width, stem_depth
        self.feature_weight, self.lr = feature_weight, lr
        self.body_unfrozen_from = body_unfrozen_from
        start = body_unfrozen_from if embedding_from is None else embedding_from
        # Without a feature map, there is nothing else to learn before the embedding.
        self.embedding_from = start if feature_weight else 0.0

    @property
    def name(self) -> str:
        """Name for tables and records."""
        return "identity-linkage"

    def public_config(self) -> Mapping[str, Any]:
        """Teacher, student, losses, optimizer, plan and threat model."""
        restemmed = {
            "tap": self.tap or "auto",
            "stem": {"width": self.stem_width, "depth": self.stem_depth},
            "feature_weight": self.feature_weight,
            "embedding_from": self.embedding_from,
            "body_unfrozen_from": self.body_unfrozen_from,
        }
        return {
            **self._shared_config(),
            "teacher": self.teacher_card.name,
            "teacher_training_data": self.teacher_card.training_data,
            "student": self.student,
            **(restemmed if self.student == "restemmed" else {}),
            "loss": "1 - cos" + (" + feature map" if self.student == "restemmed" and self.feature_weight else ""),
            "optimizer": "adamw",
            "lr": self.lr,
        }

    def _make_task(self, masker: ImageMasker, sample: tuple[Tensor, Tensor], *, seed: int) -> AttackTask:
        optimizer = OptimizerSettings(optimizer="adamw", lr=self.lr)
        seed = derive_seed(seed, self.name, "weights")
        shape = masker.spec.out_shape
        inner: TrainingTask
        network: Backbone
        if self.student == "scratch":
            network = MobileFaceNet(shape, self.teacher.dim, takes_image=False, seed=seed)
            inner = DistillationTask(
                masker, network, self.teacher, teacher_card=self.teacher_card, optimizer=optimizer, seed=seed
            )
        else:
            tap = self.tap or _entry_tap(self.teacher, shape)
            out_shape = self.teacher.tap_shapes[tap]
            stem = conv_stem(shape, out_shape, width=self.stem_width, depth=self.stem_depth, seed=seed)
            network = StemAdapter(stem, self.teacher, tap)
            inner = FineTuningTask(
                masker,
                network,
                self.teacher,
                teacher_card=self.teacher_card,
                feature_weight=self.feature_weight,
                embedding_from=self.embedding_from,
                body_unfrozen_from=self.body_unfrozen_from,
                optimizer=optimizer,
            )
        return LinkageTask(masker, inner, network)

    def _act(self, trained: AttackTask, masked_BKPQ: Tensor, *, rng: torch.Generator) -> Tensor:
        assert isinstance(trained, LinkageTask)
        return functional.normalize(trained.student(masked_BKPQ).float(), dim=1)

    def _result(self, rows: Tensor) -> AttackResult:
        return AttackResult(embeddings_ND=rows.numpy(), notes=dict(self._facts))


class LinkageTask(AttackTask):
    """A training task of `ppfr.training` that an adversary runs."""

    frozen = ("inner.teacher",)

    def __init__(self, masker: ImageMasker, inner: TrainingTask, student: Backbone) -> None:
        super().__init__(masker)
        self.inner = inner
        self._student = (student,)  # in a tuple, so that it is registered only once, in `inner`

    @property
    def student(self) -> nn.Module:
        """The network from masked image to embedding."""
        return self._student[0]

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """Those of the inner task."""
        return self.inner.optimizer_groups()

    def begin_step(self, step: int, progress: float) -> None:
        """Forward to the inner task."""
        self.inner.begin_step(step, progress)

    def end_step(self, step: int, progress: float) -> None:
        """Forward to the inner task."""
        self.inner.end_step(step, progress)

    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """Those of the inner task."""
        return self.inner.loss(group, batch, rng=rng, progress=progress)

    def describe(self) -> dict[str, Any]:
        """Description of the inner task, under the attack's name."""
        return {"task": "identity-linkage", **self.inner.describe()}


def _entry_tap(teacher: Backbone, shape: tuple[int, int, int]) -> str:
    """The first tap of the teacher whose grid is at most 28x28 and not finer than the masked grid.

    Raises:
        ShapeError: the teacher has no such tap.
    """
    side = min(FINEST_TAP_GRID, max(shape[1:]))
    for name, (_, rows, columns) in teacher.tap_shapes.items():
        if max(rows, columns) <= side:
            return name
    raise ShapeError(
        f"the teacher has no feature map of {side}x{side} or less for masked images of {shape[1]}x{shape[2]}; "
        "set `tap`, or use student='scratch'"
    )
