import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from ppfr.core import result_row
from ppfr.data import PairProtocol
from ppfr.evaluation import DataUse, Experiment, Measure, Session, Stage, System, Training
from ppfr.metrics import Estimate, mean_with_interval


@result_row("repeatability")
class RepeatabilityRow:
    """Similarity of two embeddings of one image, masked twice.

    Attributes:
        system: its name.
        protocol: name of the pair protocol whose images are masked.
        cosine: mean cosine of the two embeddings of each image.
    """

    system: str
    protocol: str
    cosine: Estimate


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeatability(Measure):
    """Does masking the same image twice give the same embedding?

    Args:
        protocol: its images are masked.
    """

    protocol: PairProtocol
    results = (RepeatabilityRow,)

    def problems(self, experiment: Experiment) -> Iterable[str]:
        if not any(isinstance(measure, Training) for measure in experiment.measures):
            yield "repeatability is measured on trained systems; add `Training()` to the measures"

    def config(self) -> Mapping[str, Any]:
        return {"protocol": self.protocol.name}

    def data(self, experiment: Experiment) -> Iterable[DataUse]:
        yield DataUse(role="protocol", images=self.protocol.used_images(), name=self.protocol.name)

    def stages(self, session: Session) -> Iterable[Stage]:
        for system in session.experiment.systems:
            if system.training is not None:
                yield Stage(
                    name=f"repeatability/{system.name}",
                    title=f"Mask images twice with {system.label}",
                    weight=1,
                    after=(f"train/{system.name}",),  # left by the measure `Training`
                    measure=functools.partial(self._measure, session, system),
                )

    def _measure(self, session: Session, system: System) -> list[RepeatabilityRow]:
        assert system.masker is not None  # a trained system has one
        images = self.protocol.used_images()
        embedder = session.trained(system).embedder
        first_ND, second_ND = (
            session.embedding.masked(
                system.masker, embedder, images, range(len(images)), purpose=f"repeatability/{draw}"
            )
            for draw in ("first", "second")
        )
        cosine = mean_with_interval(
            np.einsum("nd,nd->n", first_ND, second_ND),
            images.subject_ids,
            seed=session.seed("bootstrap"),
            num_resamples=session.experiment.num_resamples,
        )
        return [RepeatabilityRow(system=system.name, protocol=self.protocol.name, cosine=cosine)]
