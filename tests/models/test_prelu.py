from __future__ import annotations

import pytest
import torch
from torch import nn

from ppfr.models._prelu import PReLU


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prelu_equals_torch_prelu_with_gradients(dtype, layout):
    rng = torch.Generator().manual_seed(0)
    ours, theirs = PReLU(6), nn.PReLU(6)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(6, generator=rng))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, 5, 4, generator=rng).to(dtype).contiguous(memory_format=layout)
    x[0, :, 0, 0] = 0.0
    gradient = torch.randn(3, 6, 5, 4, generator=rng).to(dtype)
    results = []
    for layer in (ours, theirs.to(dtype) if dtype is torch.bfloat16 else theirs):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = layer(leaf)
        out.backward(gradient)
        results.append((out.detach(), leaf.grad, layer.weight.grad.float()))
    tolerance = {"rtol": 2e-2, "atol": 4e-2} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, **tolerance)
    assert ours.weight.grad.dtype is torch.float32


def test_first_and_second_derivatives_pass_gradcheck():
    rng = torch.Generator().manual_seed(1)
    layer = PReLU(3).double()
    x = torch.randn(2, 3, 2, 2, generator=rng, dtype=torch.float64).requires_grad_()

    def run(values, slopes):
        return torch.func.functional_call(layer, {"weight": slopes}, (values,))

    slopes = torch.randn(3, generator=rng, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, slopes))
    assert torch.autograd.gradgradcheck(run, (x, slopes))
