"""The batches of a run. The batch of a step depends only on (seed, step, rank).

Shapes: `B` batch, `H W` pixels, `C` colour.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppfr.core import DatasetError, ImageSet, ShapeError, derive_seed
from ppfr.data import float_images
from ppfr.training._plan import Plan
from ppfr.training._task import Batch

_NUM_SAMPLED_IMAGES = 4


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DecodedBatch:
    """The part of a batch that belongs to one rank, on the CPU."""

    step: int
    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor


class BatchSource:
    """The batches of one rank.

    The order within epoch e is a permutation drawn from (seed, e). Every batch is divided into equal slices, one per
    rank. Any step can therefore be produced without the steps before it, so a run can resume at any step.
    """

    def __init__(self, images: ImageSet, *, plan: Plan, seed: int, rank: int = 0, num_ranks: int = 1) -> None:
        self._images, self._plan, self._seed = images, plan, seed
        self._rank, self._num_ranks = rank, num_ranks
        self._labels_N = class_labels(images)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))
        self.num_steps = plan.num_steps(len(images))
        self._steps_per_epoch = max(1, len(images) // plan.batch_size)

    def indices(self, step: int) -> Tensor:
        """The image indices of this rank at `step`, int64."""
        epoch, place = divmod(step, self._steps_per_epoch)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "pass", epoch))
            self._order = (epoch, torch.randperm(len(self._images), generator=generator))
        share = self._plan.batch_size // self._num_ranks
        start = place * self._plan.batch_size + self._rank * share
        return self._order[1][start : start + share]

    def decode(self, step: int) -> DecodedBatch:
        """Read the images of this rank at `step`.

        Raises:
            ShapeError: the image set does not return uint8 of shape (B, H, W, 3).
        """
        indices_B = self.indices(step)
        pixels = np.ascontiguousarray(self._images.read(indices_B.tolist()))
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != len(indices_B) or pixels.shape[3] != 3:
            raise ShapeError(
                f"the image set {self._images.name!r} returned {pixels.dtype} of shape {pixels.shape} for "
                f"{len(indices_B)} images; ImageSet.read must return uint8 of shape (B, H, W, 3)"
            )
        return DecodedBatch(step, torch.from_numpy(pixels), self._labels_N[indices_B], indices_B)

    def stream(self, first_step: int) -> Generator[DecodedBatch, None, None]:
        """Batches from `first_step` to the end, decoded ahead by one background thread.

        A single thread keeps the steps in order, and image sets need not be thread-safe. The thread only decodes; it
        draws no random numbers.
        """
        steps = range(first_step, self.num_steps)
        if self._plan.num_prefetch == 0:
            yield from map(self.decode, steps)
            return
        waiting: deque[Future[DecodedBatch]] = deque()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
        try:
            for step in steps:
                waiting.append(executor.submit(self.decode, step))
                if len(waiting) > self._plan.num_prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def to_device(decoded: DecodedBatch, *, device: torch.device, plan: Plan, rng: torch.Generator) -> Batch:
    """uint8 NHWC on the CPU -> float NCHW in [0, 1] on the device, each image mirrored with probability `plan.flip`."""
    pixels_BHWC, labels_B = decoded.images_BHWC, decoded.labels_B
    if plan.flip > 0:
        is_flipped_B = torch.rand(len(pixels_BHWC), generator=rng) < plan.flip
        pixels_BHWC = torch.where(is_flipped_B[:, None, None, None], pixels_BHWC.flip(2), pixels_BHWC)
    if device.type == "cuda":
        pixels_BHWC = pixels_BHWC.pin_memory()
    images_BCHW = float_images(pixels_BHWC, device=device)  # channels last
    if not plan.channels_last:
        images_BCHW = images_BCHW.contiguous()
    return Batch(images_BCHW=images_BCHW, labels_B=labels_B.to(device), indices_B=decoded.indices_B)


def class_labels(images: ImageSet) -> Tensor:
    """Class of each image, (N,) int64: the index of its subject among the sorted subjects."""
    _, labels_N = np.unique(np.asarray(images.subject_ids), return_inverse=True)
    return torch.from_numpy(labels_N.reshape(-1).astype(np.int64))


def describe_images(images: ImageSet) -> dict[str, Any]:
    """Name, counts and checksums of a training set.

    The checksums cover all subject ids and the pixels of a few images.

    Raises:
        DatasetError: the set is empty.
    """
    if len(images) == 0:
        raise DatasetError(f"the image set {images.name!r} is empty; training needs at least one batch")
    subjects = np.asarray(images.subject_ids)
    digest = hashlib.sha256("\n".join(map(str, subjects.tolist())).encode()).hexdigest()
    chosen = np.linspace(0, len(images) - 1, num=min(_NUM_SAMPLED_IMAGES, len(images))).astype(int).tolist()
    pixels = np.ascontiguousarray(images.read(chosen))
    return {
        "name": images.name,
        "num_images": len(images),
        "num_subjects": len(np.unique(subjects)),
        "size": [int(n) for n in pixels.shape[1:]],
        "subjects_sha256": digest,
        "sampled_pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }
