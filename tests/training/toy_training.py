"""Small objectives and image sets for the training tests; imported by tests and by the programs that they start."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ppfr.training import Objective, OptimiserSettings, Player

SIZE = 16


class ToyImages:
    """Each subject has a colour pattern; each image adds noise of its own."""

    def __init__(self, num_subjects: int = 4, num_each: int = 8, size: int = SIZE, name: str = "toy") -> None:
        rng = np.random.default_rng(5)
        patterns = rng.integers(40, 216, size=(num_subjects, size // 4, size // 4, 3))
        patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)
        noise = rng.integers(-30, 30, size=(num_subjects, num_each, size, size, 3))
        pixels = np.clip(patterns[:, None] + noise, 0, 255).astype(np.uint8)
        self.pixels = pixels.reshape(-1, size, size, 3)
        self.name = name
        self.subject_ids = [f"s{i}" for i in range(num_subjects) for _ in range(num_each)]

    def __len__(self) -> int:
        return len(self.subject_ids)

    def read(self, indices) -> np.ndarray:
        return self.pixels[list(indices)]


class ToyObjective(Objective):
    """Classifies images with dropout, noise from `rng`, and (unless told otherwise) BatchNorm: every kind of draw."""

    def __init__(self, *, num_classes: int = 4, optimiser: str = "sgd", has_draws: bool = True, fail_at: int = -1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.network = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8) if has_draws else nn.Identity(),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(0.3 if has_draws else 0.0),
                nn.Linear(8 * (SIZE // 2) ** 2, num_classes),
            )
        self.settings = OptimiserSettings(optimiser=optimiser, lr=0.05 if optimiser == "sgd" else 1e-3)
        self.has_draws, self.fail_at = has_draws, fail_at

    def players(self):
        return (Player(name="net", parameters=list(self.network.parameters()), **self.settings.settings()),)

    def begin_step(self, step, progress):
        if step == self.fail_at:
            raise KeyboardInterrupt

    def loss(self, player, batch, *, rng, progress):
        noise = torch.randn(batch.images_BCHW.shape, generator=rng) if self.has_draws else 0.0
        logits = self.network(batch.images_BCHW + 0.05 * noise)
        return {"loss": functional.cross_entropy(logits, batch.labels_B)}

    def describe(self):
        return {"kind": "toy", "optimiser": self.settings.optimiser}
