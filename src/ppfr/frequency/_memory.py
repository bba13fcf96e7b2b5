"""Memory allocation for large results."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_NUMPY_TYPES = {torch.float32: np.float32, torch.float64: np.float64}
_LARGE_BYTES = 1 << 22


def empty_large(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An uninitialised tensor of `like`'s type and device.

    The first write to new memory causes a page fault every 4 KiB. With 10 MB per image, this takes longer than the
    arithmetic. NumPy requests huge pages from the kernel where possible (Linux), torch does not.
    """
    size = like.element_size()
    for side in shape:
        size *= side
    if like.device.type != "cpu" or like.dtype not in _NUMPY_TYPES or size < _LARGE_BYTES:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=_NUMPY_TYPES[like.dtype]))
