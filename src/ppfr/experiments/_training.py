"""Adapter from a training strategy to the training of a system under evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

from ppfr.core import ImageMasker, ImageSet, Provenance, RunOptions, choose_device
from ppfr.evaluation import TrainedSystem, provenance_of
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.systems import TrainingStrategy, save_system, training_set_masker


@final
class StrategyTraining:
    """A `SystemTraining` that trains by a `TrainingStrategy` and saves the trained system in the run directory.

    Args:
        strategy: how the recogniser is trained.
        secret: secret of the masker, with which several processes create it again; None for a masker without secret.
    """

    def __init__(self, strategy: TrainingStrategy, *, secret: bytes | None = None) -> None:
        self._strategy, self._secret = strategy, secret

    @property
    def provenance(self) -> Sequence[Provenance]:
        """Provenance of the pretrained networks that the strategy uses."""
        return [provenance_of(card, used_as="body and teacher") for card in self._strategy.cards()]

    @property
    def mixes(self) -> bool:
        """Whether the strategy mixes images with each other."""
        return self._strategy.mixing is not None

    def public_config(self) -> Mapping[str, Any]:
        """Name and arguments of the strategy, without directories."""
        assert dataclasses.is_dataclass(self._strategy) and not isinstance(self._strategy, type)
        fields = {key: value for key, value in dataclasses.asdict(self._strategy).items() if key != "weights"}
        return {"strategy": type(self._strategy).__name__, **fields}

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        """See `SystemTraining.train`."""
        assert options.run_dir is not None  # the runner sets it
        system, record = self._strategy.train(
            masker,
            images,
            seed=seed,
            options=dataclasses.replace(options, run_dir=options.run_dir / "training"),
            secret=self._secret,
        )
        save_system(options.run_dir / "system", system)
        network = for_inference(system.network).to(choose_device(options.device))
        return TrainedSystem(
            embedder=NetworkEmbedder(network),
            fits=[record.as_dict()],
            exposed=training_set_masker(masker, self._strategy.mixing, record.outcome),
        )
