"""State of a run in one process: the experiment, its folder, and cached systems and embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from ppfr.core import ImageSet, RunOptions, derive_seed
from ppfr.evaluation._embedding import Embedding
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment, System, TrainedSystem
from ppfr.evaluation._workspace import Workspace

T = TypeVar("T")


class Session:
    """State that stages share in one process. Measures cache their own values with `once`.

    Args:
        experiment: the experiment.
        workspace: the folder of the run.
        device: where maskers, recognisers and attacks run.
        options: options of the run.
    """

    def __init__(
        self,
        experiment: Experiment,
        workspace: Workspace,
        *,
        device: torch.device,
        options: RunOptions,
    ) -> None:
        self.experiment, self.workspace, self.device = experiment, workspace, device
        self._options = options
        self.embedding = Embedding(experiment, device=device)
        self._trained: dict[str, TrainedSystem] = {}
        self._plain: dict[tuple[str, str], np.ndarray] = {}
        self._made: dict[object, object] = {}

    def seed(self, *labels: str | int) -> int:
        """The seed of one purpose, derived from the seed of the experiment."""
        return derive_seed(self.experiment.seed, *labels)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """The result of `make`, computed once per process and `key`."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def options(self, kind: str, name: str, *, resumes: bool) -> RunOptions:
        """Run options for training a system or an attack."""
        several = self._options.num_devices > 1
        return dataclasses.replace(
            self._options,
            run_dir=self.workspace.training_dir(kind, name),
            # For several devices only the type is given; a single device is given with its index.
            device=self.device.type if several else str(self.device),
            num_devices=self._options.num_devices if kind == "system" else 1,
            resumes=resumes,
        )

    def trained(self, system: System, *, again: bool = True) -> TrainedSystem:
        """The trained system. With `again`, a finished training is loaded."""
        if system.name not in self._trained:
            images = self.experiment.training_images
            assert system.training is not None and system.masker is not None and images is not None  # checked
            options = self.options("system", system.name, resumes=again or self._options.resumes)
            self._trained[system.name] = system.training.train(
                system.masker, images, seed=self.seed("train"), options=options
            )
        return self._trained[system.name]

    def plain_embeddings(
        self, recogniser: EvaluationRecogniser, images: ImageSet, indices: Sequence[int], *, name: str = ""
    ) -> np.ndarray:
        """(N, D) embeddings of plain images by a recogniser, computed once per process and image set.

        `name` identifies the image set; by default the name of `images`.
        """
        key = (recogniser.name, name or images.name)
        if key not in self._plain:
            self._plain[key] = self.embedding.plain(recogniser.embedder, images, indices)
        return self._plain[key]
