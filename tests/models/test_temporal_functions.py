"""The temporal convolution and the output gate, compiled and with operators of torch, against plain expressions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models import recurrence_reference as reference
from tests.models.test_linear_recurrence import usable
from trecvit_dense import native
from trecvit_dense.models.layers import CausalConv, causal_conv, use_backend
from trecvit_dense.models.layers.gated_states import gate_states

BACKENDS = pytest.mark.parametrize('backend', ['sequential', 'native'])


def convolve(layer: CausalConv, x: Tensor, state: Tensor | None, reset: Tensor | None) -> Tensor:
    """By its definition: every output a sum over the frames since the last reset."""
    past = len(layer.weight) - 1
    before = x.new_zeros(len(x), past, *x.shape[2:]) if state is None else state
    frames, outputs = list(torch.cat([before, x], dim=1).unbind(1)), []
    for t in range(x.shape[1]):
        y = layer.bias + layer.weight[past] * frames[past + t]
        closed = torch.zeros(x[:, 0, ..., :1].shape, dtype=torch.bool)
        for distance in range(1, past + 1):
            if reset is not None and t - distance + 1 >= 0:
                closed = closed | reset[:, t - distance + 1, ..., None]
            y = y + torch.where(closed, 0.0, layer.weight[past - distance] * frames[past + t - distance])
        outputs.append(y)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize('masks', [False, True], ids=['always', 'reset'])
@pytest.mark.parametrize('with_state', [False, True], ids=['empty', 'state'])
@pytest.mark.parametrize(('frames', 'taps'), [(9, 4), (2, 4), (1, 4), (5, 1), (6, 2)])
@BACKENDS
def test_convolution(backend: str, frames: int, taps: int, with_state: bool, masks: bool, monkeypatch) -> None:
    usable(backend)
    monkeypatch.setattr(native, '_LEAST', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    torch.manual_seed(0)
    layer = CausalConv(40, taps)
    torch.nn.init.normal_(layer.bias)
    exact = CausalConv(40, taps).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(2, frames, 3, 40, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, taps - 1, 3, 40, dtype=torch.float64, requires_grad=True) if with_state else None
    reset = torch.rand(2, frames, 3) > 0.5 if masks else None
    wanted_y = convolve(exact, x, state, reset)
    wanted = gradients(wanted_y, [x, exact.weight, exact.bias, state])
    lower = [None if tensor is None else tensor.detach().float().requires_grad_() for tensor in (x, state)]
    with use_backend(backend):
        y, _ = layer(*lower, reset=reset)
        found = gradients(y, [lower[0], layer.weight, layer.bias, lower[1]])
    assert reference.error(y, wanted_y) < 1e-6
    for mine, its in zip(found, wanted, strict=True):
        assert reference.error(mine, its) < 5e-6
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    torch.testing.assert_close(layer(*lower, reset=reset)[0], y)


def gradients(y: Tensor, inputs: list[Tensor | None]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    present = [tensor for tensor in inputs if tensor is not None and tensor.numel()]
    found = torch.autograd.grad((y * weights).sum(), present, allow_unused=True)
    return [torch.zeros_like(i) if grad is None else grad for i, grad in zip(present, found, strict=True)]


def test_convolution_keeps_its_input_alone() -> None:
    layer, kept = CausalConv(40), []
    x, state = torch.randn(2, 50, 3, 40, requires_grad=True), torch.randn(2, 3, 3, 40)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        layer(x, state, reset=torch.rand(2, 50, 3) > 0.5)
    assert {t.data_ptr() for t in kept if t.nbytes >= x.nbytes} == {x.data_ptr()}


def test_reach() -> None:
    reset = torch.tensor([0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.bool)[None]
    assert causal_conv._reach(reset, 3).tolist() == [[3, 3, 0, 1, 2, 3, 3, 0]]


@BACKENDS
def test_output_gate(backend: str) -> None:
    usable(backend)
    torch.manual_seed(0)
    y = (20 * torch.randn(3, 5, 7, dtype=torch.float64)).requires_grad_()
    h = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    wanted = F.gelu(y, approximate='tanh') * h
    grads, kept = torch.autograd.grad(wanted.square().sum(), (y, h)), []
    lower = [tensor.detach().float().requires_grad_() for tensor in (y, h)]
    with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        found = gate_states(*lower)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in lower}
    with use_backend(backend):
        mine = torch.autograd.grad(found.square().sum(), lower)
    for one, other in zip((found, *mine), (wanted, *grads), strict=True):
        assert reference.error(one, other) < 1e-6


def test_output_gate_in_bf16() -> None:
    y, h = torch.randn(4, 8).bfloat16().requires_grad_(), torch.randn(4, 8, requires_grad=True)
    out = gate_states(y, h)
    out.float().sum().backward()
    assert out.dtype == y.grad.dtype == torch.bfloat16 and h.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), F.gelu(y.float(), approximate='tanh') * h, rtol=2e-2, atol=2e-2)
