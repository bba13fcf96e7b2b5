"""Fresh memory for large results."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_NUMPY_TYPES = {torch.float32: np.float32, torch.float64: np.float64}
_LARGE_BYTES = 1 << 22


def empty_large(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An uninitialised tensor of `like`'s type and device.

    Writing to fresh memory for the first time costs a page fault every 4 KiB, which at 10 MB an image takes longer than
    the arithmetic. NumPy asks the kernel for huge pages where it may (Linux), torch does not.
    """
    size = like.element_size()
    for side in shape:
        size *= side
    if like.device.type != "cpu" or like.dtype not in _NUMPY_TYPES or size < _LARGE_BYTES:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=_NUMPY_TYPES[like.dtype]))
