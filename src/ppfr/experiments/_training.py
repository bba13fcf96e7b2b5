"""A training strategy as the training of a system under evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

from ppfr.core import ImageMasker, ImageSet, Provenance, RunOptions, choose_device
from ppfr.evaluation import TrainedSystem, provenance_of
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.systems._mixing import exposed_by
from ppfr.systems._strategies import FitOptions, Way
from ppfr.systems._system import save_system


@final
class StrategyTraining:
    """A `SystemTraining` that trains by a `Way` and keeps the trained system in its run directory.

    Args:
        way: how the recogniser comes about.
        secret: the masker's, which several processes need to make it anew; None for a masker without.
    """

    def __init__(self, way: Way, *, secret: bytes | None = None) -> None:
        self._way, self._secret = way, secret

    @property
    def provenance(self) -> Sequence[Provenance]:
        """The pretrained networks that go in."""
        return [provenance_of(card, used_as="body and teacher") for card in self._way.cards()]

    @property
    def mixes(self) -> bool:
        """Whether the way mixes images with each other."""
        return self._way.mixing is not None

    def public_config(self) -> Mapping[str, Any]:
        """The way's name and arguments, less directories."""
        assert dataclasses.is_dataclass(self._way) and not isinstance(self._way, type)
        fields = {key: value for key, value in dataclasses.asdict(self._way).items() if key != "weights"}
        return {"way": type(self._way).__name__, **fields}

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        """See `SystemTraining.train`."""
        system, record = self._way.train(
            masker,
            images,
            seed=seed,
            options=FitOptions(
                run_dir=options.run_dir / "training",
                device=options.device,
                num_devices=options.num_devices,
                secret=self._secret,
                resumes=options.resumes,
                shows_progress=options.shows_progress,
            ),
        )
        save_system(options.run_dir / "system", system)
        network = for_inference(system.network).to(choose_device(options.device))
        return TrainedSystem(
            embedder=NetworkEmbedder(network),
            fits=[record.as_dict()],
            exposed=exposed_by(masker, self._way.mixing, record.outcome),
        )
