"""Layers by themselves: exact gradients of the recurrence, initial values, resets of the convolution."""

from __future__ import annotations

import math

import pytest
import torch

from trecvit_dense.models.layers import RGLRU, Attention, CausalConv, PatchEmbed, RecurrentBlock, linear_recurrence
from trecvit_dense.models.layers.rg_lru import bounded_sqrt


def random_double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('with_h0', [False, True])
@pytest.mark.parametrize('frames', [1, 4])
def test_linear_recurrence_gradients(frames: int, with_h0: bool, reverse: bool) -> None:
    torch.manual_seed(0)
    x, a = random_double(2, frames, 3, 2), random_double(2, frames, 3, 2)
    h0 = random_double(2, 3, 2) if with_h0 else None
    h, last = linear_recurrence(x, a, h0, reverse=reverse)
    previous = torch.zeros(2, 3, 2, dtype=torch.float64) if h0 is None else h0
    for t in reversed(range(frames)) if reverse else range(frames):
        previous = a[:, t] * previous + x[:, t]
        torch.testing.assert_close(h[:, t], previous)
    torch.testing.assert_close(last, previous)
    inputs = (x, a) if h0 is None else (x, a, h0)
    assert torch.autograd.gradcheck(lambda *args: linear_recurrence(*args, reverse=reverse), inputs)


def test_linear_recurrence_keeps_only_decays_and_states() -> None:
    """What autograd holds for T frames: two tensors of the input's size."""
    kept: list[int] = []
    x, a = torch.randn(2, 50, 4, requires_grad=True), torch.rand(2, 50, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        linear_recurrence(x, a)[0].sum()
    assert sum(kept) <= 2 * x.numel()


def test_linear_recurrence_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match='both must be'):
        linear_recurrence(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match='h0 has shape'):
        linear_recurrence(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(1, 4))


def test_gradient_of_rg_lru_stays_bounded_at_a_decay_of_one() -> None:
    layer = RGLRU(4, 2)
    with torch.no_grad():
        layer.a_param.fill_(-40.0)
    x = torch.randn(1, 3, 4, requires_grad=True)
    layer(x)[0].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


def test_conv_sees_nothing_behind_a_reset_whatever_the_chunks() -> None:
    torch.manual_seed(0)
    layer = CausalConv(3, 4)
    x, reset = torch.randn(2, 9, 5, 3), torch.rand(2, 9, 5) > 0.6
    whole, final = layer(x, reset=reset)
    for row in range(5):  # every stretch from a reset to the next, by itself
        starts = [0] + [t for t in range(1, 9) if reset[1, t, row]] + [9]
        for first, end in zip(starts, starts[1:], strict=False):
            alone, _ = layer(x[1:, first:end, row : row + 1])
            torch.testing.assert_close(whole[1:, first:end, row : row + 1], alone)
    for chunks in ([1] * 9, [2, 1, 6], [5, 4]):
        state, parts = None, []
        for part, flags in zip(x.split(chunks, dim=1), reset.split(chunks, dim=1), strict=True):
            y, state = layer(part, state, reset=flags)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)
        torch.testing.assert_close(state, final)


def test_initial_values() -> None:
    torch.manual_seed(0)
    width, depth = 256, 8
    block = RecurrentBlock(width, 2 * width, num_heads=4, depth=depth, min_rad=0.5, mlp_dim=512)
    stds = {
        'linear_x.weight': width**-0.5,
        'linear_y.weight': width**-0.5,
        'linear_out.weight': math.sqrt(2 / depth / (2 * width)),
        'conv.weight': 0.05,
        'rg_lru.input_gate.weight': (2 * width) ** -0.5,
        'rg_lru.a_gate.weight': (2 * width) ** -0.5,
        'mlp.up.weight': (2 * width) ** -0.5,
        'mlp.down.weight': math.sqrt(2 / depth / 512),
    }
    for name, parameter in block.named_parameters():
        if name in stds:
            assert parameter.std().item() == pytest.approx(stds[name], rel=0.05), name
        elif name != 'rg_lru.a_param':
            assert not parameter.any(), name
    squared = torch.exp(-2 * torch.nn.functional.softplus(block.rg_lru.a_param))
    assert 0.25 <= squared.min() and squared.max() <= 0.999**2
    assert squared.mean().item() == pytest.approx((0.25 + 0.998) / 2, abs=0.05)
    attention = Attention(width, 4)
    bound = math.sqrt(6 / (2 * width))  # of each D x D matrix, not of the fused one
    assert attention.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    patch = PatchEmbed(width, (8, 8)).proj.weight
    assert patch.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.05)


def test_traceable_forms_equal_the_fast_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile and torch.export follow: same values, same gradients, slope bounded at zero."""
    torch.manual_seed(0)
    x, a = torch.randn(2, 4, 3, requires_grad=True), torch.rand(2, 4, 3, requires_grad=True)
    squares = torch.tensor([0.0, 1e-9, 0.3, 1.0], requires_grad=True)
    found = []
    for tracing in (False, True):
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda tracing=tracing: tracing)
        h = [linear_recurrence(x, a, x[:, 0], reverse=reverse)[0] for reverse in (False, True)]
        root = bounded_sqrt(squares)
        gradients = torch.autograd.grad(h[0].square().sum() + h[1].sum() + root.sum(), (x, a, squares))
        found.append([*h, root, *gradients])
    torch.testing.assert_close(found[1], found[0])
    assert found[0][-1][0].item() == pytest.approx(1000.0)
