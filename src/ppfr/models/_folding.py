"""Networks for inference alone: BatchNorm folded into the convolution before it, memory laid out channels last."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ppfr.models._mobilefacenet import ConvUnit, EmbeddingHead

Network = TypeVar("Network", bound=nn.Module)


def for_inference(network: Network, *, channels_last: bool = True) -> Network:
    """A copy of `network` in evaluation mode, without gradients and with every BatchNorm folded that can be.

    A BatchNorm is folded where a convolution or a fully connected layer feeds it alone; one that precedes a padded
    convolution cannot be and stays. Embeddings agree with the original's to rounding. The copy cannot be trained or
    saved: its architecture is no longer the card's.

    Args:
        network: any backbone; left as it was.
        channels_last: lay the parameters out channels last, the faster layout of CPUs and of GPUs in half precision.
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
    """Replace layer and norm by one layer, if that is what they are."""
    layer, norm = getattr(parent, layer_name), getattr(parent, norm_name)
    if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        fused: nn.Module = fuse_conv_bn_eval(layer, norm)
    elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d) and norm.affine:
        fused = fuse_linear_bn_eval(layer, norm)
    else:
        return
    setattr(parent, layer_name, fused)
    setattr(parent, norm_name, nn.Identity())
