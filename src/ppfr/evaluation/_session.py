"""State of a run in one process: the experiment, its folder, and cached systems and embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from ppfr.core import ImageSet, RunOptions, derive_seed
from ppfr.evaluation._embedding import Embedding
from ppfr.evaluation._experiment import EvaluationRecogniser, Experiment, System, TrainedSystem
from ppfr.evaluation._workspace import Workspace

if TYPE_CHECKING:
    from ppfr.data import OpenSetProtocol, PairProtocol

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
        self._masked: dict[tuple[str, str], np.ndarray] = {}
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

    def embeddings(self, system: System, protocol: PairProtocol | OpenSetProtocol) -> np.ndarray:
        """(N, D) embeddings of `protocol.used()` that a system compares, or protects by templates.

        Every image is masked once. A system and the template protections of its embeddings get the same rows.
        """
        source, used = self.experiment.embedded_by(system), protocol.used().tolist()
        if isinstance(source, EvaluationRecogniser):
            return self.plain_embeddings(source, protocol.images, used, name=f"protocol/{protocol.name}")
        key = (source.name, protocol.name)
        if key in self._masked:
            return self._masked[key]
        assert source.masker is not None  # checked
        embedder = self.trained(source).embedder  # first, since training may change the masker
        rows_ND = self.embedding.masked(
            source.masker, embedder, protocol.images, used, purpose=f"evaluate/{protocol.name}"
        )
        if any(each.recogniser == source.name for each in self.experiment.systems):  # others will need them
            self._masked[key] = rows_ND
        return rows_ND
