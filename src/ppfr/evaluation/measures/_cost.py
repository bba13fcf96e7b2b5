"""Cost of a protection: images per second and bytes per face."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ppfr.core import Embedder, ImageMasker, ImageSet, result_row
from ppfr.evaluation._embedding import Embedding, read_images
from ppfr.evaluation._experiment import System
from ppfr.evaluation._measure import Measure, Stage
from ppfr.evaluation._session import Session
from ppfr.evaluation.measures._training import training_stage_name

_MIN_S = 1.0
_MIN_TIMES = 3


@result_row("cost")
class CostRow:
    """Cost of one system.

    Attributes:
        system: name of the system.
        batch_size: images per call.
        mask_images_per_s: median rate of masking.
        embed_images_per_s: median rate of embedding masked images; None without a recogniser.
        bytes_per_face: size of a masked image as it is sent.
        bytes_relative_to_image: `bytes_per_face` divided by the size of the 8-bit crop.
    """

    system: str
    batch_size: int
    mask_images_per_s: float
    embed_images_per_s: float | None
    bytes_per_face: int
    bytes_relative_to_image: float


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost(Measure):
    """Times masking and embedding of training images, on the device and with the number of threads of the run."""

    results = (CostRow,)

    def config(self) -> Mapping[str, Any]:
        """Empty: the batch size is part of the configuration of the experiment."""
        return {}

    def stages(self, session: Session) -> Iterable[Stage]:
        """One per system with a masker."""
        return [
            Stage(
                name=f"cost/{system.name}",
                title=f"Time {system.label}",
                weight=0.2,
                after=(training_stage_name(system),) if system.training is not None else (),
                measure=functools.partial(_cost, session, system),
            )
            for system in session.experiment.systems
            if system.masker is not None
        ]


def _cost(session: Session, system: System) -> list[CostRow]:
    embedder = session.trained(system).embedder if system.training is not None else None
    images = session.experiment.training_images
    assert system.masker is not None and images is not None
    return [
        measure_cost(
            system.name,
            system.masker,
            embedder,
            images,
            embedding=session.embedding,
            batch_size=session.experiment.batch_size,
        )
    ]


def measure_cost(
    name: str,
    masker: ImageMasker,
    embedder: Embedder | None,
    images: ImageSet,
    *,
    embedding: Embedding,
    batch_size: int,
) -> CostRow:
    """Median images per second of masking and of embedding masked images.

    Each is timed after one warm-up call, for at least one second and three calls. Reading and decoding of image files
    is not included.
    """
    indices = [index % len(images) for index in range(batch_size)]
    image_BCHW = read_images(images, indices, device=embedding.device)
    masked_BKPQ = embedding.mask(masker, image_BCHW, purpose="cost")
    mask_rate = _images_per_s(lambda: embedding.mask(masker, image_BCHW, purpose="cost"), batch_size, embedding.device)
    embed_rate = None
    if embedder is not None:
        network = embedder
        embed_rate = _images_per_s(lambda: network.embed(masked_BKPQ), batch_size, embedding.device)
    return CostRow(
        system=name,
        batch_size=batch_size,
        mask_images_per_s=mask_rate,
        embed_images_per_s=embed_rate,
        bytes_per_face=masker.spec.bytes_per_face,
        bytes_relative_to_image=masker.spec.bytes_per_face / float(np.prod(masker.spec.in_shape)),
    )


def _images_per_s(call: Callable[[], Tensor], batch_size: int, device: torch.device) -> float:
    def timed() -> float:
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    timed()
    walls: list[float] = []
    while len(walls) < _MIN_TIMES or sum(walls) < _MIN_S:
        walls.append(timed())
    return batch_size / float(np.median(walls))
