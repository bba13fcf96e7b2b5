"""MobileFaceNet computed straight from a public checkpoint's tensors, layer by layer as its table says."""

from __future__ import annotations

import torch
from torch.nn import functional

PLAN = ((3, 4), (4, 6), (5, 2))  # (number of the stage, residual bottlenecks)


class Names:
    """What a source calls the tensors of layer `layer` of our plan."""

    def __init__(self, source, tensors):
        self.source, self.tensors = source, tensors

    def block(self, stage, index, layer):
        """`index` -1 is the down-sampling bottleneck; `layer` 0, 1, 2 is expand, depthwise, project."""
        if self.source == "y1":
            block = f"dconv_{stage - 1}{stage}" if index < 0 else f"res_{stage}_block{index}"
            return self.y1(f"{block}_conv_{('sep', 'dw', 'proj')[layer]}")
        if self.source == "casia":
            block = f"conv_{stage - 1}{stage}" if index < 0 else f"conv_{stage}.model.{index}"
            return self.torch(f"{block}.{('conv', 'conv_dw', 'project')[layer]}")
        number = sum(count + 1 for s, count in PLAN if s < stage) + index + 1
        prefix = f"blocks.{number}.conv."
        return self.get(f"{prefix}{3 * layer}.weight", f"{prefix}{3 * layer + 1}.", f"{prefix}{3 * layer + 2}.weight")

    def named(self, y1, casia, narrow):
        if self.source == "y1":
            return self.y1(y1)
        return self.torch(casia if self.source == "casia" else narrow)

    def y1(self, prefix):
        return self.get(f"{prefix}_conv2d_weight", f"{prefix}_batchnorm_", f"{prefix}_relu_gamma")

    def torch(self, prefix):
        return self.get(f"{prefix}.conv.weight", f"{prefix}.bn.", f"{prefix}.prelu.weight")

    def get(self, weight, norm, slope):
        mxnet = self.source == "y1"
        last = ("gamma", "beta", "moving_mean", "moving_var") if mxnet else None
        last = last or ("weight", "bias", "running_mean", "running_var")
        return self.tensors[weight], [self.tensors[norm + name] for name in last], self.tensors.get(slope)


def unit(x, layer, *, eps, stride=1, padding=0, groups=1, is_linear=False):
    weight, (gain, shift, mean, variance), slope = layer
    x = functional.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    view = (1, -1, 1, 1)
    x = (x - mean.view(view)) / torch.sqrt(variance.view(view) + eps) * gain.view(view) + shift.view(view)
    return x if is_linear else torch.where(x > 0, x, slope.view(view) * x)


def embed(source, tensors, image_BCHW):
    """RGB in [0, 1], (B, 3, 112, 112) -> (B, 128), not normalised."""
    names = Names(source, tensors)
    eps = 1e-3 if source == "y1" else 1e-5
    x = (255 * image_BCHW - 127.5) / (127.5 if source == "casia" else 128)
    if source == "casia_112x96":
        x = x[:, :, :, 8:104]
    x = unit(x, names.named("conv_1", "conv1", "conv1"), eps=eps, stride=2, padding=1)
    x = unit(x, names.named("conv_2_dw", "conv2_dw", "dw_conv1"), eps=eps, padding=1, groups=64)
    for stage, num_residual in PLAN:
        for index in range(-1, num_residual):
            y = unit(x, names.block(stage, index, 0), eps=eps)
            stride = 2 if index < 0 else 1
            y = unit(y, names.block(stage, index, 1), eps=eps, stride=stride, padding=1, groups=y.shape[1])
            y = unit(y, names.block(stage, index, 2), eps=eps, is_linear=True)
            x = y if index < 0 else x + y
    if source == "casia":
        x = unit(x, names.get("sep.weight", "sep_bn.", "prelu.weight"), eps=eps)
        x = unit(x, names.get("GDC_dw.weight", "GDC_bn.", "none"), eps=eps, groups=512, is_linear=True)
        return last(x, tensors["features.weight"], None, names.get("features.weight", "last_bn.", "none")[1], eps)
    if source == "y1":
        x = unit(x, names.y1("conv_6sep"), eps=eps)
        x = unit(x, names.y1("conv_6dw7_7"), eps=eps, groups=512, is_linear=True)
        norm = [tensors[f"fc1_{name}"] for name in ("gamma", "beta", "moving_mean", "moving_var")]
        return last(x, tensors["fc1_weight"], tensors["pre_fc1_bias"], norm, 2e-5)
    x = unit(x, names.torch("conv2"), eps=eps)
    x = unit(x, names.torch("linear7"), eps=eps, groups=512, is_linear=True)
    return last(x, tensors["linear1.conv.weight"], None, names.torch("linear1")[1], eps)


def last(x, weight, bias, norm, eps):
    x = functional.linear(x.flatten(1), weight.flatten(1), bias)
    gain, shift, mean, variance = norm
    return (x - mean) / torch.sqrt(variance + eps) * gain + shift
