"""What a protection costs: images a second and bytes a face."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppfr.core import Embedder, ImageMasker, ImageSet
from ppfr.evaluation._embedding import Embedding, read_images

_LEAST_S = 1.0
_LEAST_TIMES = 3


def measure_cost(
    masker: ImageMasker, embedder: Embedder | None, images: ImageSet, *, embedding: Embedding, batch_size: int
) -> dict[str, Any]:
    """Median images a second of masking, and of embedding what was masked, over batches of real crops.

    Timed after one warm-up call, for at least a second and three calls, reading and decoding left out, on the device
    and with the threads of the run.
    """
    indices = [index % len(images) for index in range(batch_size)]
    image_BCHW = read_images(images, indices, device=embedding.device)
    masked_BKPQ = embedding.mask(masker, image_BCHW, purpose="cost")
    mask_rate = _images_per_s(lambda: embedding.mask(masker, image_BCHW, purpose="cost"), batch_size, embedding.device)
    embed_rate = None
    if embedder is not None:
        network = embedder
        embed_rate = _images_per_s(lambda: network.embed(masked_BKPQ), batch_size, embedding.device)
    return {
        "batch_size": batch_size,
        "mask_images_per_s": mask_rate,
        "embed_images_per_s": embed_rate,
        "bytes_per_face": masker.spec.bytes_per_face,
        "bytes_relative_to_image": masker.spec.bytes_per_face / float(np.prod(masker.spec.in_shape)),
    }


def _images_per_s(call: Callable[[], Tensor], batch_size: int, device: torch.device) -> float:
    def timed() -> float:
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    timed()
    walls: list[float] = []
    while len(walls) < _LEAST_TIMES or sum(walls) < _LEAST_S:
        walls.append(timed())
    return batch_size / float(np.median(walls))
