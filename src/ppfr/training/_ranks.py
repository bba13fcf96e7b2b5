"""Data-parallel training: gradients and running statistics are averaged over ranks.

torch's DistributedDataParallel fixes the set of trained parameters at the start. It supports neither unfreezing a body
during the run nor several optimizer groups, so the loop averages by itself, in a few flat buffers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_BUCKET_ELEMENTS = 16 * 2**20


def average_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks."""
    if fabric.world_size > 1:
        _average(fabric, [p.grad for p in parameters if p.grad is not None])


def average_buffers(fabric: Fabric, module: nn.Module) -> None:
    """Replace each floating-point buffer (running statistics) of the parts in training mode by its mean over ranks."""
    if fabric.world_size > 1:
        # Frozen parts are equal on all ranks, and the floating-point mean of equal numbers may differ from them.
        learning = [part for part in module.modules() if part.training]
        _average(fabric, [b for part in learning for b in part.buffers(recurse=False) if b.is_floating_point()])


def num_ranks() -> int:
    """Number of processes that train together; 1 outside such a run. For tasks, which do not have the fabric."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over ranks, without gradient; every rank must call it."""
    found = value.detach().clone()
    if num_ranks() > 1:
        distributed.all_reduce(found)
        found /= num_ranks()
    return found


def of_first_rank(value: int, *, device: torch.device) -> int:
    """The value of rank 0 on every rank; every rank must call it."""
    if num_ranks() == 1:
        return value
    sent = torch.tensor(value, device=device)
    distributed.broadcast(sent, src=0)
    return int(sent)


def _average(fabric: Fabric, tensors: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for bucket in _buckets(tensors):
            mean = fabric.all_reduce(torch.cat([t.reshape(-1) for t in bucket]), reduce_op="mean")
            assert isinstance(mean, Tensor)
            for tensor, part in zip(bucket, mean.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one dtype, up to a maximum size."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        is_full = sum(t.numel() for t in bucket) >= _BUCKET_ELEMENTS
        if bucket and (is_full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
