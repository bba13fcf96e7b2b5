"""Networks for inference: BatchNorm folded into the preceding layer, and channels-last memory format."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ppfr.models._mobilefacenet import ConvUnit, EmbeddingHead

Network = TypeVar("Network", bound=nn.Module)


def for_inference(network: Network, *, channels_last: bool = True) -> Network:
    """A copy of `network` in evaluation mode, without gradients and with BatchNorm folded where possible.

    A BatchNorm is folded if a convolution or fully connected layer feeds only it. A BatchNorm before a padded
    convolution cannot be folded and remains. Embeddings equal those of the original up to rounding. The copy cannot be
    trained or saved, since its architecture no longer matches its card.

    Args:
        network: any backbone. It is not changed.
        channels_last: use the channels-last memory format, which is faster on CPUs and on GPUs in half precision.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, ConvUnit):
            _fold(module, "conv", "norm")
        elif isinstance(module, EmbeddingHead):
            _fold(module, "linear", "norm")
        elif isinstance(module, nn.Sequential):
            for first in range(len(module) - 1):
                _fold(module, str(first), str(first + 1))
    return folded.to(memory_format=torch.channels_last) if channels_last else folded  # type: ignore[call-overload]


def _fold(parent: nn.Module, layer_name: str, norm_name: str) -> None:
    """Replace a layer and its BatchNorm by one layer, if they can be fused."""
    layer, norm = getattr(parent, layer_name), getattr(parent, norm_name)
    if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        fused: nn.Module = fuse_conv_bn_eval(layer, norm)
    elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d) and norm.affine:
        fused = fuse_linear_bn_eval(layer, norm)
    else:
        return
    setattr(parent, layer_name, fused)
    setattr(parent, norm_name, nn.Identity())
