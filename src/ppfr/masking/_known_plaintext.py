"""Known-plaintext attack on PPFR-FD: both shuffles from a photo and its masked image.

Shape suffixes: B known photos, C H W image, M output channels, P Q grid, S positions of the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppfr.core import ImageMasker, InvalidInputError, ShapeError, UnsupportableError
from ppfr.masking._ppfr_fd import PpfrFd, normalised_channels

_MIN_COSINE = 0.99
_MIN_CHANNELS = 3


def recover_shuffles(image_BCHW: Tensor, masked_BMPQ: Tensor, method: ImageMasker) -> PpfrFd:
    """Reproduce a deployment of PPFR-FD from known photos and their masked images; one photo is enough.

    An output channel is the normalised sum of two channels of the photo, and the adversary can compute all M of them.
    There are M (M - 1) / 2 pairs (630 for M = 36) instead of M! permutations, because each output channel can be
    searched separately. All cosines follow from two products of M x M values. The pairs that are found form a cycle,
    which is shuffle 1. Its starting point and direction cannot be determined, but they do not change the output.

    Args:
        image_BCHW: the photos, RGB in [0, 1], (B, 3, H, W), B >= 1.
        masked_BMPQ: what the deployment made of them, in the same order.
        method: a `PpfrFd` with the deployment's public parameters and any secret, as an adversary can create it.

    Returns:
        A masker with the deployment's output for every image; `unmix` accepts it. The 32 bytes of the secret remain
        unknown.

    Raises:
        UnsupportableError: `method` is not a `PpfrFd` with fixed shuffles of at least 3 channels.
        ShapeError: not one masked image per photo, or not of the method's shape.
        InvalidInputError: some output channels are not a sum of two channels of the photo, or the pairs do not form one
            cycle. The message states how many were identified. Channels without information in all photos, as in the
            upsampled front end, cannot be told apart.

    Threat model:
        The adversary knows the method and has one photo together with its masked image: for example, a photo of
        themselves and the traffic of their own device.
    """
    if not isinstance(method, PpfrFd) or not method.spec.is_keyed or method.spec.out_shape[0] < _MIN_CHANNELS:
        raise UnsupportableError(
            f"shuffles cannot be recovered for {method.name!r}: give a PpfrFd(permutation='fixed') with at least "
            f"{_MIN_CHANNELS} channels"
        )
    num = method.spec.out_shape[0]
    if len(image_BCHW) == 0 or tuple(masked_BMPQ.shape) != (len(image_BCHW), *method.spec.out_shape):
        raise ShapeError(
            f"masked has shape {tuple(masked_BMPQ.shape)} for {len(image_BCHW)} photos; give one masked image of shape "
            f"{method.spec.out_shape} for each of one or more photos"
        )
    z_BMS = normalised_channels(method, image_BCHW).flatten(2).double()
    seen_BMS = masked_BMPQ.flatten(2).double().to(z_BMS.device)
    seen_BMS = seen_BMS / seen_BMS.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    products_BMM = seen_BMS @ z_BMS.mT  # output channel, photo's channel
    gram_BMM = z_BMS @ z_BMS.mT
    power_BM = gram_BMM.diagonal(dim1=1, dim2=2)
    lengths_BMM = (power_BM[:, :, None] + power_BM[:, None, :] + 2 * gram_BMM).clamp_min(1e-12).sqrt()
    first_E, second_E = torch.triu_indices(num, num, 1, device=z_BMS.device)
    cosine_ME = (
        (products_BMM[:, :, first_E] + products_BMM[:, :, second_E]) / lengths_BMM[:, None, first_E, second_E]
    ).mean(0)
    best_M = cosine_ME.max(dim=1)
    is_found_M = best_M.values > _MIN_COSINE
    edges = [(int(first_E[e]), int(second_E[e])) for e in best_M.indices.tolist()]
    cycle = _cycle(edges) if bool(is_found_M.all()) else None
    if cycle is None:
        raise InvalidInputError(
            f"{int(is_found_M.sum())} of {num} output channels are the sum of two channels of the photo, or their "
            "pairs do not form a cycle. Give a photo together with its own masked image, the deployment's public "
            "parameters, and more photos if channels are empty."
        )
    return method.with_shuffles(*cycle)


def _cycle(edges: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shuffle 1 and shuffle 2, if output channel j is the edge j of one cycle through all channels."""
    beside: list[list[tuple[int, int]]] = [[] for _ in edges]
    for output, (a, b) in enumerate(edges):
        beside[a].append((b, output))
        beside[b].append((a, output))
    if any(len(neighbours) != 2 for neighbours in beside):
        return None
    order, second = [0], [0] * len(edges)
    current, output = beside[0][0]
    second[output] = 0
    while current != 0:
        second[output] = len(order) - 1
        order.append(current)
        current, output = next(step for step in beside[current] if step[1] != output)
    second[output] = len(order) - 1
    return (tuple(order), tuple(second)) if len(order) == len(edges) else None
