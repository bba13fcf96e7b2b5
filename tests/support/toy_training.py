"""Small tasks, networks and image sets for the training tests, and for the processes that they start."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ppfr.core import ImageMasker, MaskSpec, RunOptions
from ppfr.models import Backbone
from ppfr.training import FitRecord, OptimizerGroup, OptimizerSettings, ParameterGroup, Plan, TrainingTask, fit

SIZE = 16


class ToyImages:
    """Each subject has a colour pattern, and each image adds its own noise."""

    def __init__(self, num_subjects: int = 4, num_each: int = 8, size: int = SIZE, name: str = "toy") -> None:
        rng = np.random.default_rng(5)
        patterns = rng.integers(40, 216, size=(num_subjects, size // 4, size // 4, 3))
        patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)
        noise = rng.integers(-30, 30, size=(num_subjects, num_each, size, size, 3))
        self.pixels = np.clip(patterns[:, None] + noise, 0, 255).astype(np.uint8).reshape(-1, size, size, 3)
        self.name = name
        self.subject_ids = [f"s{i}" for i in range(num_subjects) for _ in range(num_each)]

    def __len__(self) -> int:
        return len(self.subject_ids)

    def read(self, indices) -> np.ndarray:
        return self.pixels[list(indices)]


class ToyMasker(ImageMasker):
    """Mixes the colours with a secret matrix and adds noise from `rng`."""

    def __init__(self, *, secret: int = 1, noise: float = 0.1) -> None:
        generator = torch.Generator().manual_seed(secret)
        self._matrix_KC = torch.randn(5, 3, generator=generator)
        self._noise = noise

    name = "toy"

    @property
    def spec(self) -> MaskSpec:
        infinity = float("inf")
        return MaskSpec(
            in_shape=(3, SIZE, SIZE),
            out_shape=(5, SIZE, SIZE),
            value_range=(-infinity, infinity),
            is_stochastic=True,
            is_keyed=True,
            is_trainable=False,
            is_differentiable=True,
            bytes_per_face=2 * 5 * SIZE * SIZE,
        )

    def mask(self, image_BCHW, *, rng):
        masked = torch.einsum("kc,bchw->bkhw", self._matrix_KC.to(image_BCHW.device), image_BCHW)
        return masked + self._noise * torch.randn(masked.shape, generator=rng).to(masked.device)

    def public_config(self):
        return {"noise": self._noise}


class ToyBackbone(Backbone):
    """Two parts of one convolution each."""

    def __init__(self, in_shape=(3, SIZE, SIZE), *, dim: int = 16, width: int = 8, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parts = {
                "low": nn.Sequential(nn.Conv2d(in_shape[0], width, 3, 2, 1), nn.BatchNorm2d(width), nn.PReLU(width)),
                "high": nn.Sequential(nn.Conv2d(width, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.PReLU(16)),
            }
            head = nn.Sequential(nn.Flatten(), nn.Linear(16 * (in_shape[1] // 4) ** 2, dim))
            super().__init__(
                in_shape=in_shape, dim=dim, takes_image=in_shape[0] == 3, entry=nn.Identity(), parts=parts, head=head
            )
        self._config = {"width": width}

    def config(self):
        return dict(self._config)


class ToyTask(TrainingTask):
    """Classifies images, by default with every kind of random draw: dropout, BatchNorm and noise from `rng`.

    It can fail at a step, by an exception or by SIGKILL.
    """

    def __init__(
        self, *, optimizer="sgd", has_draws=True, raises_at=-1, killed_at=-1, lr=None, raised=KeyboardInterrupt
    ):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.network = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8) if has_draws else nn.Identity(),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(0.3 if has_draws else 0.0),
                nn.Linear(8 * (SIZE // 2) ** 2, 4),
            )
        self.settings = OptimizerSettings(optimizer=optimizer, lr=lr or (0.05 if optimizer == "sgd" else 1e-3))
        self.has_draws, self.raises_at, self.killed_at, self.raised = has_draws, raises_at, killed_at, raised
        self._step = -1

    def optimizer_groups(self):
        return (OptimizerGroup(name="net", parameters=list(self.network.parameters()), **self.settings.settings()),)

    def begin_step(self, step, progress):
        self._step = step

    def loss(self, group, batch, *, rng, progress):
        noise = torch.randn(batch.images_BCHW.shape, generator=rng) if self.has_draws else 0.0
        logits = self.network(batch.images_BCHW + 0.05 * noise)
        if self._step == self.raises_at:
            raise self.raised("requested by the test")
        if self._step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": functional.cross_entropy(logits, batch.labels_B)}

    def describe(self):
        return {"kind": "toy", "settings": self.settings.settings()}


class KeyedTask(ToyTask):
    """Cannot be pickled, like a task with a secret."""

    def __reduce__(self):
        raise TypeError("holds a secret")


def build_keyed() -> KeyedTask:
    return KeyedTask(has_draws=False)


class ToyGan(TrainingTask):
    """A generator that repaints images and a discriminator for real images. Records the gradients that it saw."""

    def __init__(self, *, killed_at: tuple[int, str] | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.painter = nn.Conv2d(3, 3, 3, padding=1)
            self.critic = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 1))
        self.killed_at, self._step = killed_at, -1
        self.grads_seen: list[tuple[str, bool, bool]] = []

    def optimizer_groups(self):
        painter = list(self.painter.parameters())
        return (
            OptimizerGroup(name="critic", parameters=list(self.critic.parameters()), optimizer="adam", lr=1e-3),
            OptimizerGroup(name="painter", parameters=[ParameterGroup(parameters=painter)], lr=0.01),
        )

    def begin_step(self, step, progress):
        self._step = step

    def loss(self, group, batch, *, rng, progress):
        if self.killed_at == (self._step, group):
            raise KeyboardInterrupt
        self.grads_seen.append(
            (group, _has_grads(self.painter), any(p.requires_grad for p in self.painter.parameters()))
        )
        painted = self.painter(batch.images_BCHW)
        verdict = self.critic(painted)
        ones = torch.ones_like(verdict)
        if group == "painter":
            fooled = functional.binary_cross_entropy_with_logits(verdict, ones)
            return {"loss": fooled, "likeness": (painted - batch.images_BCHW).abs().mean()}
        real = functional.binary_cross_entropy_with_logits(self.critic(batch.images_BCHW), ones)
        return {"loss": real + functional.binary_cross_entropy_with_logits(verdict, 0 * ones)}

    def describe(self):
        return {"kind": "toy gan"}


def _has_grads(module: nn.Module) -> bool:
    return any(p.grad is not None for p in module.parameters())


def run_fit(
    task: TrainingTask,
    run_dir: Path | None = None,
    *,
    plan: Plan,
    images: ToyImages | None = None,
    seed: int = 1,
    device: str = "cpu",
    num_devices: int = 1,
    resumes: bool = False,
    shows_progress: bool = False,
    **options: Any,
) -> FitRecord:
    """`fit` on toy images with short names for its options."""
    return fit(
        task,
        ToyImages() if images is None else images,
        plan=plan,
        seed=seed,
        options=RunOptions(
            run_dir=run_dir, device=device, num_devices=num_devices, resumes=resumes, shows_progress=shows_progress
        ),
        **options,
    )


def weights(module: nn.Module) -> torch.Tensor:
    """All parameters and buffers as one vector of float64, in which every float32 is exact."""
    return torch.cat([value.double().reshape(-1) for value in module.state_dict().values()])
