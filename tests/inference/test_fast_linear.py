"""The fast way through linear layers: it agrees with the plain one, is chosen by measurement, and can be undone."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from tests.inference.tiny import drifting_clip, tiny_model
from trecvit_dense.inference import Predictor, Session, fast_kernels, fast_linear, restore, speed_up
from trecvit_dense.inference.fast_kernels import KERNELS, PLAIN, choose, why_not
from trecvit_dense.inference.runtime import to_model
from trecvit_dense.models.layers.attention import MLP
from trecvit_dense.models.layers.embedding import PatchEmbed
from trecvit_dense.models.layers.recurrent_block import GatedMLP, RecurrentBlock


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_linear, '_MEASURED', {})


def prefer(monkeypatch: pytest.MonkeyPatch, name: str, otherwise: str = 'plain') -> list[str]:
    """Pretend that one kernel is the fastest wherever it works; returns the kernels that ran for calls."""
    used = []

    def measure(calls: dict) -> dict[str, float]:
        best = name if name in calls else otherwise
        used.append(best)
        return {key: 1.0 if key == best else 2.0 for key in calls}

    monkeypatch.setattr(fast_kernels, 'measure', measure)
    return used


def need(name: str) -> None:
    if why := why_not(name):
        pytest.skip(f'kernel {name} does not run here: {why}')


@pytest.mark.parametrize('name', KERNELS)
@pytest.mark.parametrize('activation', ['none', 'tanh', 'erf'])
@pytest.mark.parametrize('bias', [True, False])
def test_every_kernel_agrees_with_the_plain_layer(name: str, activation: str, bias: bool) -> None:
    need(name)
    torch.manual_seed(0)
    linear, x, kernel = nn.Linear(96, 40, bias=bias), torch.randn(50, 96), KERNELS[name]
    with torch.no_grad():
        wanted = PLAIN.run(x, None, linear.weight, linear.bias, activation)
        prepared = kernel.prepare(linear.weight, linear.bias, 50) if kernel.prepare else None
        found = kernel.run(x, prepared, linear.weight, linear.bias, activation)
        fewer = kernel.run(x[:7], prepared, linear.weight, linear.bias, activation)
    assert kernel.agrees(found, wanted)
    assert kernel.agrees(fewer, wanted[:7]), 'weights that were packed for 50 rows'
    assert not kernel.agrees(found + 0.2 * wanted.abs().max(), wanted)
    assert not kernel.agrees(found * float('nan'), wanted)


def test_a_kernel_that_disagrees_or_fails_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, *_: object) -> Tensor:
        return torch.zeros(len(x), 8)

    def broken(x: Tensor, *_: object) -> Tensor:
        raise RuntimeError('no such instruction\nand more')

    kernels = dict(plain=PLAIN)
    kernels |= {name: fast_kernels.Kernel(name, 'fp32', run) for name, run in (('wrong', wrong), ('broken', broken))}
    monkeypatch.setattr(fast_kernels, 'KERNELS', kernels)
    linear = nn.Linear(8, 8)
    with torch.no_grad():
        choice = choose(torch.rand(4, 8), linear.weight, linear.bias, 'none')
    assert choice.kernel is PLAIN
    assert list(choice.seconds) == ['plain']
    assert choice.rejected['broken'] == 'no such instruction'
    assert 'differs' in choice.rejected['wrong']


@pytest.mark.parametrize(
    ('seconds', 'at_least', 'wanted'),
    [
        ({'plain': 1.0, 'oneDNN': 0.99}, 1.2, 'plain'),
        ({'plain': 1.0, 'oneDNN': 0.5, 'MKL, packed': 0.49}, 1.2, 'oneDNN'),
        ({'plain': 1.0, 'oneDNN': 0.5, 'MKL, packed': 0.4}, 1.2, 'MKL, packed'),
        ({'plain': 1.0, 'oneDNN': 0.5, 'bf16': 0.45}, 1.2, 'oneDNN'),
        ({'plain': 1.0, 'oneDNN': 0.5, 'bf16': 0.4}, 1.2, 'bf16'),
        ({'plain': 1.0, 'int8': 9.0}, 0, 'int8'),
    ],
)
def test_more_memory_or_fewer_digits_have_to_pay(seconds: dict, at_least: float, wanted: str) -> None:
    assert fast_kernels._fastest(seconds, at_least) == wanted


def outputs(model: nn.Module, sizes: list[int], head: str = 'points') -> tuple[Tensor, dict]:
    """Positions over a clip that is fed in steps of ``sizes`` frames, and the last state."""
    clip = drifting_clip(sum(sizes))
    query = torch.tensor([[[0.0, 20.0, 20.0], [0.0, 40.0, 30.0], [2.0, 10.0, 50.0]]])
    video = to_model(model, clip)[0]
    with torch.no_grad():
        state, found = model.start(1, points=dict(query_txy=query)), []
        for part in video.split(sizes, dim=1):
            out, state = model.step(part, state)
            found.append(out[head].xy_px)
    return torch.cat(found, 1), state


@pytest.mark.parametrize('head', ['volume', 'tokens'])
@pytest.mark.parametrize('kernel', ['oneDNN', 'oneDNN, packed', 'MKL, packed'])
def test_a_model_gives_the_same_in_steps_and_as_a_clip(head: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(kernel)
    model = tiny_model(head)
    wanted, last = outputs(model, [6])
    used = prefer(monkeypatch, kernel)
    tuning = speed_up(model)
    for sizes in ([6], [1] * 6, [3, 1, 2]):
        found, state = outputs(model, sizes)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)  # of 64 pixels
        assert state.keys() == last.keys()
        for key, value in state.items():
            assert value.dtype == last[key].dtype, key
            if value.is_floating_point():
                assert (value - last[key]).abs().max() <= 1e-4 * max(1.0, float(last[key].abs().max())), key
    assert kernel in used
    assert kernel in str(tuning)


def test_nothing_of_it_is_in_the_weights_and_it_is_taken_back() -> None:
    model = tiny_model('tokens')
    names, modules = list(model.state_dict()), [name for name, _ in model.named_modules()]
    parameters = dict(model.named_parameters())
    wanted, _ = outputs(model, [1, 1, 1])
    speed_up(model)
    outputs(model, [1, 1, 1])
    assert list(model.state_dict()) == names
    assert all(parameters[name] is value for name, value in model.named_parameters())
    other = copy.deepcopy(model)
    restore(model)
    assert [name for name, _ in model.named_modules()] == modules
    assert not any('forward' in module.__dict__ or 'attend' in module.__dict__ for module in model.modules())
    assert torch.equal(outputs(model, [1, 1, 1])[0], wanted)
    # the copy has its own weights
    assert isinstance(other.backbone.blocks[0].spatial.mlp.__dict__['forward'], fast_linear._FastMLP)
    with torch.no_grad():
        other.backbone.blocks[0].spatial.mlp.fc1.weight.mul_(3)
    assert torch.equal(outputs(model, [1, 1, 1])[0], wanted)


@pytest.mark.parametrize('kernel', ['oneDNN, packed', 'MKL, packed', 'int8'])
def test_packed_weights_follow_the_parameters(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(kernel)
    prefer(monkeypatch, kernel)
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 64).requires_grad_(False).eval(), torch.randn(20, 64)
    speed_up(linear, 'int8' if kernel == 'int8' else 'auto', at_least=0)

    def check() -> None:
        assert KERNELS[kernel].agrees(linear(x), x @ linear.weight.T + linear.bias)

    check()
    assert linear.fast_weights.values, 'nothing was packed: the test says nothing'
    linear.weight.mul_(2)
    check()
    linear.load_state_dict({name: value * -1 for name, value in linear.state_dict().items()})
    check()
    linear.weight.data = torch.randn(64, 64)
    check()
    linear.weight.data.copy_(torch.randn(64, 64))  # leaves no trace on the parameter
    linear.eval()
    check()
    with torch.inference_mode():
        check()
    assert len(linear.fast_weights.values) <= 2


def test_training_autocast_and_counting_see_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from trecvit_dense.engine.costs import count_flops

    need('oneDNN')
    prefer(monkeypatch, 'oneDNN')
    torch.manual_seed(0)
    mlp, x = MLP(32, 64), torch.randn(10, 32)
    wanted = mlp(x)
    with torch.no_grad():
        flops = count_flops(lambda: mlp(x))
    speed_up(mlp)
    y = mlp(x)
    assert torch.equal(y, wanted)
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in mlp.parameters())
    with torch.no_grad():
        assert count_flops(lambda: mlp(x)) == flops > 0
        with torch.autocast('cpu', torch.bfloat16):
            assert mlp(x).dtype == torch.bfloat16
        mlp.double()
        assert mlp(x.double()).dtype == torch.float64
    assert not mlp.fc1.fast_weights.values


def test_bfloat16_weights_leave_state_and_residual_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    need('bf16')
    used = prefer(monkeypatch, 'bf16')
    model = tiny_model('tokens')
    wanted, last = outputs(model, [1] * 4)
    speed_up(model, 'bf16', at_least=0)
    seen = []
    for block in model.backbone.blocks:
        block.temporal.rg_lru.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
        block.spatial.norm2.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
        block.spatial.attn.proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    found, state = outputs(model, [1] * 4)
    assert 'bf16' in used
    assert set(seen[0::3] + seen[2::3]) == {torch.float32}, 'recurrence and residual'
    assert set(seen[1::3]) == {torch.bfloat16}, 'attention'
    assert all(value.dtype == last[key].dtype for key, value in state.items())
    assert not torch.equal(found, wanted)
    assert (found - wanted).abs().max() < 6  # of 64 pixels, untrained


def test_a_layer_with_an_outlier_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    need('int8')
    prefer(monkeypatch, 'int8')
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).requires_grad_(False)
    layers[1].weight.mul_(1e-3)  # what lies on one outlying input is all that eight bits can tell
    layers[1].weight[:, 0] = 0
    layers[1].bias.zero_()
    speed_up(layers, 'int8', at_least=0)
    x = torch.randn(30, 64)
    layers[0](x)
    x[:, 0] = 7e4
    wanted = x @ layers[1].weight.T + layers[1].bias
    torch.testing.assert_close(layers[1](x), wanted, rtol=1e-4, atol=1e-4)

    def taken(layer: nn.Linear) -> set[str]:
        return {kernel.name for _, ready in layer.fast_weights.values.values() for kernel, _ in ready.calls.values()}

    assert taken(layers[1]) == {'plain'}
    assert taken(layers[0]) == {'int8'}


def test_other_numbers_of_rows_are_packed_for_when_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    need('MKL, packed')
    prefer(monkeypatch, 'MKL, packed')
    linear = nn.Linear(16, 16).requires_grad_(False)
    speed_up(linear)
    for rows, packed in ((10, 10), (3, 10), (10, 10), (3, 10), (3, 3), (3, 3)):
        x = torch.rand(rows, 16)
        torch.testing.assert_close(linear(x), x @ linear.weight.T + linear.bias)
        assert linear.fast_weights.values['none', None][1].rows == packed


@pytest.mark.parametrize('shape', [(1, 3, 32, 32), (5, 3, 37, 50)])
def test_patches_as_a_product_are_those_of_the_convolution(shape: tuple[int, ...], monkeypatch) -> None:
    embed, frames = PatchEmbed(24, (8, 16)).requires_grad_(False), torch.randn(shape)
    wanted = embed(frames)[0]
    speed_up(embed)
    for faster in ('product', 'conv'):
        monkeypatch.setattr(fast_linear, 'measure', lambda calls, faster=faster: {n: float(n != faster) for n in calls})
        embed.forward.as_product.clear()
        torch.testing.assert_close(embed(frames)[0], wanted, rtol=1e-4, atol=1e-5)
        assert list(embed.forward.as_product.values()) == [faster == 'product']


@torch.no_grad()
def test_the_gate_of_the_recurrent_block(monkeypatch: pytest.MonkeyPatch) -> None:
    need('oneDNN')
    used = prefer(monkeypatch, 'oneDNN')
    torch.manual_seed(0)
    block, x = RecurrentBlock(32, 48, num_heads=4).requires_grad_(False), torch.randn(2, 3, 5, 32)
    wanted, last = block(x)
    tuning = speed_up(block)
    found, state = block(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)
    assert set(used) == {'oneDNN'}
    assert {key[3] for key in tuning.choices} == {'none', 'tanh'}
    restore(block)
    assert torch.equal(block(x)[0], wanted)


def test_gated_mlp_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    need('oneDNN, packed')
    prefer(monkeypatch, 'oneDNN, packed')
    torch.manual_seed(0)
    mlp, x = GatedMLP(32, 48).requires_grad_(False), torch.randn(2, 3, 32)
    nn.init.normal_(mlp.up.bias)
    wanted = mlp(x)
    speed_up(mlp)
    torch.testing.assert_close(mlp(x), wanted, rtol=1e-4, atol=1e-5)
    assert len(mlp.up.fast_weights.values) == 2, 'gate and value'


@pytest.mark.parametrize(
    ('precision', 'message'),
    [('fp16', 'precision .fp16. overflows at 65504'), ('fp8', 'precision is .fp8.; wanted auto, fp32, bf16, int8')],
)
def test_what_is_refused(precision: str, message: str) -> None:
    for make in (speed_up, lambda model, precision: Session(model, precision=precision)):
        with pytest.raises(ValueError, match=message):
            make(tiny_model(), precision)
    with pytest.raises(ValueError, match='not on meta'):
        speed_up(nn.Linear(2, 2, device='meta'), 'int8')


def test_files_are_fast_and_models_are_left_as_they_are() -> None:
    model = tiny_model()
    assert Session(model, device='cpu').model is model
    assert 'forward' not in model.backbone.blocks[0].spatial.mlp.__dict__
    assert Predictor(model, device='cpu', precision='fp32').model is model
    assert 'forward' in model.backbone.blocks[0].spatial.mlp.__dict__
    boxed = Session('boxed', device='cpu').model
    assert all('forward' in module.__dict__ for module in boxed.modules() if type(module) is nn.Linear)


def test_a_fast_model_can_be_saved_and_read() -> None:
    model = tiny_model('tokens')
    speed_up(model)
    wanted, _ = outputs(model, [2, 1])
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    torch.testing.assert_close(outputs(again, [2, 1])[0], wanted, rtol=1e-4, atol=1e-2)
