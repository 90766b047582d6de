"""The RG-LRU at once and by its equations: values, gradients, masks, precision, what it keeps and what is counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models import recurrence_reference as reference
from tests.models.test_linear_recurrence import CPU, usable
from trecvit_dense import native
from trecvit_dense.engine.costs import count_flops
from trecvit_dense.models.layers import RGLRU, gated_recurrence, use_backend
from trecvit_dense.models.layers.linear_recurrence import why_not

WIDTH, HEADS = 24, 3
CASES = {
    'fresh': (),
    'state': ('state',),
    'reset': ('reset',),
    'state_reset': ('state', 'reset'),
    'hold': ('reset', 'hold'),
    'all': ('state', 'reset', 'hold'),
}
TILES = {'whole': (1 << 16, 128), 'tokens': (40, 3), 'rows': (8, 1)}


def build(width: int = WIDTH, heads: int = HEADS) -> RGLRU:
    torch.manual_seed(0)
    layer = RGLRU(width, heads)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def draw(shape: tuple[int, ...], case: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Input and what goes with it, float64."""
    given = {}
    if 'state' in case:
        given['state'] = torch.randn(shape[0], *shape[2:], dtype=torch.float64).requires_grad_()
    given |= {name: torch.rand(shape[:-1]) > 0.6 for name in ('reset', 'hold') if name in case}
    return torch.randn(shape, dtype=torch.float64).requires_grad_(), given


def run(function, layer: RGLRU, x: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """States, last state and every gradient."""
    inputs = dict(layer.named_parameters(), x=x, **({'state': given['state']} if 'state' in given else {}))
    h, last = function(x, **given)
    weights = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view(h.shape)
    grads = torch.autograd.grad((h * weights).sum() + last.square().sum(), list(inputs.values()))
    return dict(h=h, last=last, **{f'grad {name}': grad for name, grad in zip(inputs, grads, strict=True)})


def lower(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().float().requires_grad_() if t.is_floating_point() else t for name, t in given.items()}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.parametrize('shape', [(2, 7, 5, WIDTH), (3, 6, WIDTH), (1, 4, 2, 3, WIDTH), (2, 1, 3, WIDTH)], ids=str)
@pytest.mark.parametrize('backend', ['sequential', 'native', 'chunked'])
def test_equations(backend: str, shape: tuple[int, ...], case: tuple[str, ...]) -> None:
    usable(backend)
    layer = build()
    x, given = draw(shape, case)
    exact = reference.double(layer)
    wanted = run(lambda x, **k: reference.rg_lru(exact, x, **k), exact, x, given)
    with use_backend(backend):
        found = run(layer, layer, x.detach().float().requires_grad_(), lower(given))
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float32
        assert reference.error(found[name], tensor) < 3e-6, name


@pytest.mark.parametrize('tile', TILES.values(), ids=TILES)
@pytest.mark.parametrize('shape', [(5, 6, WIDTH), (2, 5, 7, WIDTH)], ids=str)
@pytest.mark.parametrize('backend', ['sequential', 'native'])
def test_tiles_are_the_whole(
    backend: str, shape: tuple[int, ...], tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles that cut batch, time, rows or heads, and threads that share them."""
    usable(backend)
    goal, tokens = tile
    monkeypatch.setattr(gated_recurrence, '_TILE', goal)
    monkeypatch.setattr(gated_recurrence, '_MIN_TOKENS', tokens)
    monkeypatch.setattr(native, '_LEAST', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1 if goal == 8 else 2)
    layer = build(96, HEADS) if goal == 40 else build()
    x, given = draw((*shape[:-1], layer.a_param.numel()), CASES['all'])
    exact = reference.double(layer)
    for part in ({}, given):
        wanted = run(lambda x, **k: reference.rg_lru(exact, x, **k), exact, x, part)
        with use_backend(backend):
            found = run(layer, layer, x.detach().float().requires_grad_(), lower(part))
        for name, tensor in wanted.items():
            assert reference.error(found[name], tensor) < 3e-6, name


@pytest.mark.parametrize('backend', ['sequential', 'chunked'])
def test_gradcheck(backend: str) -> None:
    layer = build(4, 2).double()
    x, given = draw((2, 4, 2, 4), CASES['all'])
    parameters = list(layer.parameters())
    state = given.pop('state')

    def function(x: Tensor, state: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return layer(x, state, **given)

    with use_backend(backend):
        assert torch.autograd.gradcheck(function, (x, state, *parameters))


def test_traced_form_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = build()
    x, given = draw((2, 5, 3, WIDTH), CASES['all'])
    found = run(layer, layer, x.detach().float().requires_grad_(), lower(given))
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    traced = run(layer, layer, x.detach().float().requires_grad_(), lower(given))
    for name, tensor in found.items():
        torch.testing.assert_close(traced[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_export() -> None:
    layer = build().eval()
    x, state = torch.randn(1, 1, 3, WIDTH), torch.randn(1, 3, WIDTH)
    program = torch.export.export(layer, (x, state), strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(program(x, state), layer(x, state), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('backend', ['sequential', 'native', 'chunked'])
def test_slow_rows(backend: str) -> None:
    """At decays of 1 - 1e-5 the rounding of ``exp`` leaves three digits of the multiplier, and no fewer."""
    usable(backend)
    layer = build()
    with torch.no_grad():
        layer.a_param.fill_(-13.0)
    x, state = torch.randn(1, 30, 50, WIDTH), torch.zeros(1, 50, WIDTH)
    exact, _ = reference.rg_lru(reference.double(layer), x.double(), state.double())
    with use_backend(backend), torch.no_grad():
        assert reference.error(layer(x, state)[0], exact) < 2e-3


@pytest.mark.parametrize('backend', ['sequential', 'native', 'chunked'])
def test_slopes_at_a_decay_of_one_stay_bounded(backend: str) -> None:
    usable(backend)
    layer = build(4, 2)
    with torch.no_grad():
        layer.a_param.fill_(-40.0)
    x = torch.randn(1, 3, 4, requires_grad=True)
    with use_backend(backend):
        layer(x, torch.randn(1, 4))[0].sum().backward()
    grads = {name: parameter.grad for name, parameter in layer.named_parameters()}
    assert all(torch.isfinite(grad).all() for grad in (*grads.values(), x.grad))


@pytest.mark.parametrize('backend', ['sequential', 'native', 'chunked'])
def test_gates_far_out(backend: str) -> None:
    """Gates of plus and minus 200 are 1 and 0, and nothing overflows."""
    usable(backend)
    layer = build()
    with torch.no_grad():
        for gate in (layer.input_gate, layer.a_gate):
            gate.bias.copy_(torch.linspace(-200, 200, WIDTH).view_as(gate.bias))
    x, given = draw((1, 5, WIDTH), ('state',))
    exact = reference.double(layer)
    wanted = run(lambda x, **k: reference.rg_lru(exact, x, **k), exact, x, given)
    with use_backend(backend):
        found = run(layer, layer, x.detach().float().requires_grad_(), lower(given))
    for name, tensor in wanted.items():
        # the slope of a sigmoid near 1 has the digits of its distance to 1
        assert reference.error(found[name], tensor) < (1e-3 if name.startswith('grad') else 3e-6), name


@pytest.mark.parametrize('backend', ['sequential', 'native'])
def test_bf16_autocast(backend: str) -> None:
    """Gates in bfloat16, states in float32; input in either, gradients in the dtypes of what they belong to."""
    usable(backend)
    layer = build()
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 6, 3, WIDTH).to(dtype)
        found = {}
        for name in (backend, 'chunked'):
            given = x.clone().requires_grad_()
            with use_backend(name), torch.autocast('cpu', torch.bfloat16):
                h, _ = layer(given)
            found[name] = [h, *torch.autograd.grad(h.square().sum(), [given, *layer.parameters()])]
        assert found[backend][0].dtype == torch.float32
        for mine, its in zip(found[backend], found['chunked'], strict=True):
            assert mine.dtype == its.dtype
            assert reference.error(mine, its.double()) < 3e-2
    low = layer.bfloat16()
    h, state = low(torch.randn(1, 2, WIDTH).bfloat16())
    assert h.dtype == state.dtype == torch.float32


@pytest.mark.parametrize('backend', ['sequential', 'native'])
def test_input_and_states_are_all_it_keeps(backend: str) -> None:
    usable(backend)
    layer, kept = build(), []
    x = torch.randn(2, 50, 4, WIDTH, requires_grad=True)
    with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        h, _ = layer(x)
    large = {t.data_ptr() for t in kept if t.numel() >= x.numel()}
    assert len(large) == 2 and {x.data_ptr(), h.data_ptr()} == large


def test_frames_one_by_one_and_no_rows() -> None:
    layer = build().eval()
    x = torch.randn(2, 5, 3, WIDTH)
    with torch.no_grad():
        whole, last = layer(x)
        state, parts = None, []
        for frame in x.split(1, dim=1):
            h, state = layer(frame, state)
            parts.append(h)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)
    empty = x[:, :, :0].requires_grad_()
    h, state = layer(empty)
    assert h.shape == (2, 5, 0, WIDTH) and state.shape == (2, 0, WIDTH)
    h.sum().backward()
    assert not layer.a_param.grad.any()


def test_operations_are_counted() -> None:
    """The products of both gates, two operations each; on a CPU as without numbers."""
    layer, x = build(), torch.randn(2, 3, 5, WIDTH)
    products = 2 * 2 * x[..., 0].numel() * WIDTH * (WIDTH // HEADS)
    assert count_flops(lambda: layer(x)) == products
    assert count_flops(lambda: layer.to('meta')(x.to('meta'))) == products
    assert count_flops(lambda: layer(x.to('meta'))[0].sum().backward()) == 4 * products
    assert why_not('native', torch.device('meta')) and not why_not('sequential', CPU)
