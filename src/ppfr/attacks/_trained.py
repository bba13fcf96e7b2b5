"""Base of attacks that train a network on masked faces: checks, training, resuming, running in chunks.

Shape suffixes: B batch, N observed faces, C colour, H W pixels, K masked channels, P Q masked grid.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from ppfr.attacks._alignment import AlignedDeployments, ChannelAlignment, apply_matrix
from ppfr.attacks._fresh_secret import FreshSecret, FrozenMasker, MagnitudeMasker
from ppfr.attacks._networks import FACE_SHAPE, num_parameters
from ppfr.attacks._presets import AttackPreset
from ppfr.attacks._threats import check_masker, check_observation, masked_images_threat
from ppfr.core import (
    Attack,
    AttackResult,
    ImageMasker,
    ImageSet,
    InvalidInputError,
    MaskedImages,
    ObservedImages,
    PpfrError,
    RunOptions,
    ShapeError,
    ThreatModel,
    choose_device,
    derive_seed,
)
from ppfr.data import float_images
from ppfr.training import Batch, Plan, TrainingTask, check_probe, fit, masked_probe

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from ppfr.models import Backbone, ModelCard

NUM_SAMPLED_FACES = 512


class AttackTask(TrainingTask):
    """A training task that first masks each batch as the adversary sees it.

    Attributes:
        masker: the masker that the adversary trains against. It is not a module, so checkpoints do not contain it.
        probe_KPQ: a fixed noise image masked by `masker`. Checkpoints contain it, so that a training is never resumed
            with another secret, which would make the attack look weaker than it is.
    """

    probe_KPQ: Tensor

    def __init__(self, masker: ImageMasker) -> None:
        super().__init__()
        self.masker = masker
        self.register_buffer("probe_KPQ", masked_probe(masker))

    def masked(self, batch: Batch, *, rng: Generator) -> Tensor:
        """(B, K, P, Q): the batch as the adversary sees it, in full precision."""
        return mask_exactly(self.masker, batch.images_BCHW, rng=rng)

    def check_restored(self) -> None:
        """Refuse weights that were trained with another secret than that of `masker`, if it has one.

        Raises:
            CheckpointError: they were.
        """
        if self.masker.spec.is_keyed:
            check_probe(self.probe_KPQ, self.masker)


def mask_exactly(masker: ImageMasker, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
    """Mask without gradient and outside autocast, because devices mask in float32."""
    with torch.no_grad(), torch.autocast(image_BCHW.device.type, enabled=False):
        return masker.mask(image_BCHW, rng=rng)


class TrainedAttack(Attack):
    """An adversary that trains one network on masked public faces and applies it to masked images of target subjects.

    Args:
        plan: length, batch size and precision of the training. Together with the network's size it sets the attack's
            strength.
        sees: `MaskedImages`, or `MixedImages`: a mixed training set; see `masked_images_threat`.
        ignores_signs: use the magnitudes of observed values only. This is for protections that flip signs at random
            (InstaHide): the signs carry no information, and a network would have to learn that first.
        knows_secret: the adversary has the deployment's secret, and `fit` takes the deployed masker. Otherwise it takes
            a `FreshSecret`. Maskers without a secret are attacked directly in either case.
        aligns_channels: without the secret, train on one simulated deployment, and estimate from the observed masked
            faces how the channels of the real deployment correspond to it (`ChannelAlignment`). The alternative is to
            train one network on fresh secrets. No effect if there is no secret.
        num_deployments: with `aligns_channels`, the number of simulated deployments in addition to the surrogate.
        run_dir: directory of checkpoints, from which an interrupted or complete training is resumed.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        chunk_size: number of observed faces that are processed together.
        progress: print the training's progress.
    """

    slug: ClassVar[str]
    """One word for names of plans and the command line, as in "unet"."""
    title: ClassVar[str]
    """Name in tables, as in "U-Net recovery"."""
    sizes: ClassVar[Mapping[str, AttackPreset]]
    """Presets by name."""
    estimates_embeddings: ClassVar[bool] = False
    """Whether it estimates embeddings, not images, so that 1:1 accuracy on all pairs is cheap to measure."""

    @classmethod
    def preset(cls, name: str) -> AttackPreset:
        """One of the attack's sizes.

        Raises:
            InvalidInputError: unknown name.
        """
        if name not in cls.sizes:
            raise InvalidInputError(f"{cls.title} has no preset {name!r}. Use one of {', '.join(cls.sizes)}.")
        return cls.sizes[name]

    @classmethod
    def with_teacher(cls, teacher: Backbone, card: ModelCard, **options: Any) -> Self:
        """The attack of an adversary with a public recogniser; attacks that need none ignore it."""
        return cls(**options)

    @property
    def label(self) -> str:
        """Name in tables."""
        return self.title

    def __init__(
        self,
        *,
        plan: Plan,
        knows_secret: bool,
        sees: type[ObservedImages] = MaskedImages,
        ignores_signs: bool = False,
        aligns_channels: bool = False,
        num_deployments: int = 16,
        run_dir: Path | None = None,
        device: str = "auto",
        chunk_size: int = 64,
        progress: bool = True,
    ) -> None:
        if chunk_size < 1:
            raise InvalidInputError(f"chunk_size={chunk_size}; use 1 or more")
        if aligns_channels and knows_secret:
            raise InvalidInputError(
                "aligns_channels=True is for an adversary without the secret; leave it out, or use knows_secret=False"
            )
        self.plan, self.knows_secret, self.aligns_channels = plan, knows_secret, aligns_channels
        self.sees, self.ignores_signs = sees, ignores_signs
        self.num_deployments = num_deployments
        self.run_dir, self.device, self.chunk_size, self.progress = run_dir, device, chunk_size, progress
        self._trained: AttackTask | None = None
        self._alignment: ChannelAlignment | None = None
        self._facts: dict[str, float | int | str] = {}

    @property
    def needs(self) -> ThreatModel:
        """An adversary who sees masked images, with or without the secret. The deployed recogniser is not used."""
        return masked_images_threat(knows_secret=self.knows_secret, sees=self.sees, knows_recogniser=False)

    @abstractmethod
    def public_config(self) -> Mapping[str, Any]:
        """JSON-ready constructor arguments."""

    @abstractmethod
    def _make_task(self, masker: ImageMasker, sample: tuple[Tensor, Tensor], *, seed: int) -> AttackTask:
        """The training task, with untrained networks; `sample` is (masked_NKPQ, image_NCHW) of public faces."""

    @abstractmethod
    def _act(self, trained: AttackTask, masked_BKPQ: Tensor, *, rng: Generator) -> Tensor:
        """Apply the trained network to a chunk of observed images; one row per image."""

    @abstractmethod
    def _result(self, rows: Tensor) -> AttackResult:
        """The result of the attack, from all rows."""

    def fit(self, masker: ImageMasker, public: ImageSet, *, seed: int) -> Mapping[str, Any]:
        """Train on `public`, masked by `masker`; see `Attack.fit`.

        Raises:
            ThreatModelError: the masker does not match the threat model.
            ShapeError: the masker does not take 112x112 crops.
            CheckpointError: `run_dir` contains the training of another configuration, secret or data set.
        """
        check_masker(masker, self.needs, attack=self.name)
        if masker.spec.in_shape != FACE_SHAPE:
            raise ShapeError(f"{masker.name} takes {masker.spec.in_shape}; {self.name} works on {FACE_SHAPE} crops")
        if isinstance(masker, nn.Module):
            masker = FrozenMasker(masker)
        images_NCHW = _sample_images(public, seed=seed)
        self._trained, self._alignment = None, None
        if self.aligns_channels and isinstance(masker, FreshSecret):
            aligned = AlignedDeployments(
                masker, images_NCHW, num_deployments=self.num_deployments, rng=_generator(seed, "deployments")
            )
            masker, self._alignment = aligned, aligned.alignment
        if self.ignores_signs:
            masker = MagnitudeMasker(masker)
        masked_NKPQ = _masked_sample(masker, images_NCHW, rng=_generator(seed, "sample masks"))
        task = self._make_task(masker, (masked_NKPQ, images_NCHW), seed=seed)
        record = fit(
            task,
            public,
            plan=self.plan,
            seed=derive_seed(seed, self.name),
            options=RunOptions(
                run_dir=self.run_dir,
                device=self.device,
                resumes=self.run_dir is not None,
                shows_progress=self.progress,
            ),
        )
        self._trained = task
        self._facts = {
            "steps": record.steps,
            "images_seen": record.images_seen,
            "images_per_s": round(record.images_per_s, 2),
            "wall_s": round(record.wall_s, 2),
            "num_parameters": num_parameters(task),
            "batch_size": self.plan.batch_size,
            "precision": record.precision,
            "device": record.device,
            "knows_secret": "yes" if self.knows_secret else "no",
            "aligns_channels": "yes" if self._alignment is not None else "no",
            **{f"loss {name}": round(value, 6) for name, value in sorted(record.losses.items())},
        }
        return {**self._facts, "curve": record.curve}

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        """Attack every observed image; see `Attack.run`.

        Raises:
            PpfrError: before `fit`.
            ThreatModelError: another type of observation than the threat model grants.
            ShapeError: not the shape that the attack was trained on.
        """
        if self._trained is None:
            raise PpfrError(f"{self.name} has not been trained; call fit(masker, public, seed=...) first")
        check_observation(seen, self.needs, self._trained.masker.spec.out_shape, attack=self.name)
        device = choose_device(self.device)
        trained = self._trained.to(device).eval()
        align = self._alignment.matrix_for(seen.images_NKPQ) if self._alignment is not None else None
        rng, rows = _generator(seed, self.name, "run"), []
        with torch.no_grad():
            for chunk in seen.images_NKPQ.split(self.chunk_size):
                masked_BKPQ = chunk.float() if align is None else apply_matrix(align, chunk)
                if self.ignores_signs:
                    masked_BKPQ = masked_BKPQ.abs()
                rows.append(self._act(trained, masked_BKPQ.to(device), rng=rng).float().cpu())
        trained.to("cpu")
        return self._result(torch.cat(rows))

    def _shared_config(self) -> dict[str, Any]:
        return {
            "attack": self.name,
            "knows_secret": self.knows_secret,
            "ignores_signs": self.ignores_signs,
            "aligns_channels": self.aligns_channels,
            **({"num_deployments": self.num_deployments} if self.aligns_channels else {}),
            "plan": self.plan.as_dict(),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({json.dumps(self.public_config(), default=str)})"


def _sample_images(public: ImageSet, *, seed: int) -> Tensor:
    """A random sample of public faces, for statistics."""
    order: Sequence[int] = torch.randperm(len(public), generator=_generator(seed, "sample"))[
        :NUM_SAMPLED_FACES
    ].tolist()
    return float_images(public.read(order))


def _masked_sample(masker: ImageMasker, images_NCHW: Tensor, *, rng: Generator) -> Tensor:
    return torch.cat([mask_exactly(masker, part, rng=rng) for part in images_NCHW.split(32)])


def _generator(seed: int, *labels: str) -> Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "attack", *labels))
