"""ViS4mer and its S4 layers against the authors' code: kernels, stages, recurrence, logits, gradients, names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.parity.goldens import Golden, assert_close_max, golden_files, goldens_dir, to_numpy
from trecvit_dense.checkpoints.trecvit_names import load_rules, save_rules, unmatched
from trecvit_dense.checkpoints.vis4mer_names import LAYOUT
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.models.layers.hippo import legs_matrices, legs_nplr
from trecvit_dense.models.layers.s4 import S4Layer
from trecvit_dense.models.layers.s4_kernel import S4Kernel
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import VideoSample


def kinds() -> dict[str, list]:
    """Golden files by what they hold: whole models, single layers, the initial matrices."""
    found: dict[str, list] = {'model': [], 'layer': [], 'hippo': []}
    for parameter in golden_files('vis4mer_'):
        path = parameter.values[0]
        if path is None:
            return {kind: [parameter] for kind in found}
        with np.load(path, allow_pickle=False) as file:
            names = file.files
        kind = 'model' if 'cfg/d_model' in names else 'layer' if 'cfg/H' in names else 'hippo'
        found[kind].append(parameter)
    return {kind: parameters or golden_files(f'vis4mer_{kind}_none') for kind, parameters in found.items()}


KINDS = kinds()


def close(actual: object, golden: Golden, key: str, atol: float = 5e-4) -> None:
    """To the tolerance of the files' description."""
    np.testing.assert_allclose(to_numpy(actual), golden[key], atol=atol, rtol=1e-3, err_msg=key)


def pairs(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(x.resolve_conj())


# --------------------------------------------------------------------------------------------------------- HiPPO


@pytest.mark.parametrize('path', KINDS['hippo'])
def test_hippo(path) -> None:
    golden = Golden(path)
    for size in sorted({int(key[1:].partition('/')[0]) for key in golden.keys('N')}):
        matrix, inputs = legs_matrices(size)
        w, p, b = legs_nplr(size)
        for name, value in dict(A=matrix, B=inputs).items():
            assert_close_max(value, golden[f'N{size}/{name}'], 1e-6, f'N{size}/{name}')
        order = descending(golden[f'N{size}/w'])
        found = dict(w_ref64=pairs(w), abs_p=p.abs(), abs_B=b.abs(), B_conj_p=pairs(b * p.conj()))
        for name, value in found.items():
            assert_close_max(value, golden[f'N{size}/{name}'][order], 1e-6, f'N{size}/{name}')
        # the authors' eigenvalues are those of a float32 problem
        np.testing.assert_allclose(to_numpy(pairs(w)), golden[f'N{size}/w'][order], atol=5e-4, rtol=1e-6)
    golden.assert_all_compared()


def descending(w: np.ndarray) -> np.ndarray:
    """Modes by frequency: the order in which an eigensolver finds them has no meaning."""
    return np.argsort(-w[:, 1])


# --------------------------------------------------------------------------------------------------- single layer


def load_kernel(kernel: S4Kernel, golden: Golden, prefix: str) -> None:
    with torch.no_grad():
        for name, parameter in kernel.named_parameters():
            parameter.copy_(golden.tensor(f'{prefix}kernel.krylov.{name}'))


def build_layer(golden: Golden, prefix: str = 'param/', **options: object) -> S4Layer:
    layer = S4Layer(int(golden['cfg/H']), int(golden['cfg/l_max']), d_state=int(golden['cfg/d_state']), **options)
    load_kernel(layer.kernel, golden, prefix)
    with torch.no_grad():
        layer.D.copy_(golden.tensor('param/D'))
        layer.output_linear.weight.copy_(golden.tensor('param/output_linear.weight'))
        layer.output_linear.bias.copy_(golden.tensor('param/output_linear.bias')[:, 0])
    return layer.eval()


@pytest.mark.parametrize('path', KINDS['layer'])
@torch.no_grad()
def test_layer(path) -> None:
    golden = Golden(path)
    layer = build_layer(golden, official_odd_length=True)
    length = layer.kernel.length
    close(layer.kernel()[:, : golden['out/kernel'].shape[1]], golden, 'out/kernel')
    if 'out/kernel_ref64' in golden:
        assert_close_max(layer.kernel(), golden['out/kernel_ref64'], 1e-5, 'out/kernel_ref64')
    close(layer(golden.tensor('input').mT)[0].mT, golden, 'out/y')
    compare_steps(golden, layer, 'step/layer/')
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    compare_doubling(golden, layer)
    compare_initial(golden, layer)
    assert all(torch.equal(value, before[name]) for name, value in build_layer(golden).state_dict().items())
    assert layer.kernel.length == length
    golden.assert_all_compared(ignore=['cfg/*', 'param/*.nodes', 'param/*.z'])


def compare_steps(golden: Golden, layer: S4Layer, prefix: str) -> None:
    """The recurrence token by token, its matrices, and the convolution of the same sequence."""
    u = golden.tensor(f'{prefix}u').mT  # (2, Ls, H)
    y, whole = layer(u)
    close(y.mT, golden, f'{prefix}conv_y')
    state, outputs = dict(s4=torch.zeros_like(whole['s4'])), []
    layer.kernel.official_odd_length = False  # the recurrence is exact
    for index, token in enumerate(u.split(1, dim=1)):
        y, state = layer(token, state)
        outputs.append(y)
        if index == 0:
            close(state['s4'], golden, f'{prefix}state_after_1')
    close(torch.cat(outputs, 1).mT, golden, f'{prefix}y')
    for final in (state, whole):
        close(final['s4'], golden, f'{prefix}final_state')
    transition, readout = layer.kernel._transition(), layer.kernel.recurrence().readout
    dense = completed(transition.dense())
    count = len(golden[f'{prefix}dA_first2'])
    close(pairs(dense[:count]).float(), golden, f'{prefix}dA_first2')
    twins = torch.cat([transition.drive, transition.drive.conj()], -1)
    close(pairs(twins).float(), golden, f'{prefix}dB')
    c = torch.view_as_complex(readout.double().unflatten(-1, (-1, 2)).contiguous()) / 2
    assert_close_max(pairs(torch.cat([c, c.conj()], -1)).float(), golden[f'{prefix}dC'], 1e-3, f'{prefix}dC')


def completed(dense: torch.Tensor) -> torch.Tensor:
    """``dA`` on all N modes, conjugates behind, from the real matrix on the half of them that is kept."""
    half = dense.shape[-1] // 2
    order = torch.cat([torch.arange(0, 2 * half, 2), torch.arange(1, 2 * half, 2)])
    one = torch.eye(half, dtype=torch.complex128)
    basis = torch.cat([torch.cat([one, 1j * one], 1), torch.cat([one, -1j * one], 1)])
    return basis @ dense[:, order][:, :, order].to(torch.complex128) @ torch.linalg.inv(basis)


def compare_doubling(golden: Golden, layer: S4Layer) -> None:
    """Longer input: what the authors' code writes into its parameters is worked out here for the call."""
    kernel, total = layer.kernel, golden['doubling/kernel'].shape[1]
    c = kernel._lengthened(kernel._dense(), total).unflatten(-1, (-1, 2)) / 2
    close(torch.stack([c.float(), kernel.C[:, 1]], dim=1), golden, 'doubling/C_after')
    close(kernel(total), golden, 'doubling/kernel')
    close(layer(golden.tensor('doubling/input').mT)[0].mT, golden, 'doubling/y')


def compare_initial(golden: Golden, layer: S4Layer) -> None:
    """Length correction of a fresh layer, and what a fresh layer of ours has in common with one of theirs."""
    kernel = layer.kernel
    load_kernel(kernel, golden, 'init/')
    c = kernel._lengthened(kernel._dense(), kernel.length, -1.0).unflatten(-1, (-1, 2)) / 2
    corrected = torch.stack([c.float(), kernel.C[:, 1]], dim=1)
    close(corrected, golden, 'init/C_length_corrected')
    kernel.C.copy_(corrected)
    kernel.official_odd_length = True
    samples = golden['init/kernel_length_corrected'].shape[1]
    close(kernel()[:, :samples], golden, 'init/kernel_length_corrected')
    fresh = S4Kernel(kernel.channels, kernel.length, d_state=kernel.d_state)
    order = descending(golden['init/kernel.krylov.w'])
    np.testing.assert_allclose(to_numpy(fresh.w), golden['init/kernel.krylov.w'][order], atol=5e-4)
    b, p = torch.view_as_complex(fresh.B.detach()).unbind(1)
    b_theirs, p_theirs = torch.view_as_complex(golden.tensor('init/kernel.krylov.B')[:, :, order]).unbind(1)
    torch.testing.assert_close(b * p.conj(), b_theirs * p_theirs.conj(), atol=1e-3, rtol=1e-3)  # free of phases
    low, high = golden['init/kernel.krylov.log_dt'].min(), golden['init/kernel.krylov.log_dt'].max()
    assert np.log(1e-3) <= low and high <= np.log(0.1)
    assert np.log(1e-3) <= fresh.log_dt.min() and fresh.log_dt.max() <= np.log(0.1)


# ---------------------------------------------------------------------------------------------------------- model


def build(golden: Golden, **options: object) -> tuple[VideoPerceiver, dict[str, np.ndarray]]:
    """The model that a file with the golden's parameters becomes; every key has a place, and every place a key."""
    arrays = golden.group('param/')
    dropped = LAYOUT.drop(arrays)
    assert bool(dropped) == (int(golden['cfg/d_input']) == int(golden['cfg/d_model']))
    config = LAYOUT.config(arrays, {})
    for name in ('d_input', 'd_model', 'n_layers', 'l_max', 'd_state'):
        assert config['backbone'][name] == int(golden[f'cfg/{name}']), name
    config['backbone'].update(options)
    model = MODELS.build(config).eval()
    rules = [rule for rule in LAYOUT.rules(arrays) if rule.ours in model.state_dict()]
    assert not unmatched(rules, arrays)
    model.load_state_dict(load_rules(rules, arrays))
    return model, arrays


def logits_of(model: VideoPerceiver, tokens: torch.Tensor) -> tuple[object, torch.Tensor]:
    """Output of the head for tokens ``(B, L, C)`` of one frame, and the readout."""
    (task, head), state = next(iter(model.heads.items())), model.start(len(tokens))
    features, _ = model.backbone(tokens[:, None])
    output, _ = head(features, state.scope(f'heads.{task}'), (1, 1))
    return output, features.class_token[:, -1]


@pytest.mark.parametrize('path', KINDS['model'])
def test_model(path) -> None:
    golden = Golden(path)
    model, _ = build(golden, official_odd_length=True)
    seen = watch(model)
    output, readout = logits_of(model, golden.tensor('input'))
    for index, stage in enumerate(model.backbone.stages):
        kernel = stage.s4.kernel
        samples = golden[f'out/kernel{index}'].shape[1]
        assert samples == kernel.length - kernel.length % 2  # theirs are one short
        taps = kernel()
        close(taps[:, :samples], golden, f'out/kernel{index}')
        assert taps.shape[1] == kernel.length and not taps[:, samples:].any()
        if f'out/kernel{index}_ref64' in golden:
            assert_close_max(taps, golden[f'out/kernel{index}_ref64'], 1e-5, f'out/kernel{index}_ref64')
        for name in ('s4_in', 's4_out', 'pool_out', 'stage_out'):
            close(seen[f'{name}{index}'], golden, f'out/{name}{index}')
    close(readout, golden, 'out/features', 1e-4)
    close(output.logits, golden, 'out/logits', 1e-4)
    close(logits_of(model, golden.tensor('input_short'))[0].logits, golden, 'out_short/logits', 1e-4)
    np.testing.assert_array_equal(golden['input_short'], golden['input'][:, : int(golden['cfg/length_short'])])
    compare_gradients(golden, model, output)
    with torch.no_grad():
        compare_steps(golden, model.backbone.stages[0].s4, 'step/layer0/')
    golden.assert_all_compared(ignore=['cfg/*', 'param/*'])


def watch(model: VideoPerceiver) -> dict[str, torch.Tensor]:
    """What goes through the stages in the next pass, under the names of the goldens."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        seen.setdefault(name, value.detach())

    for index, stage in enumerate(model.backbone.stages):
        stage.norm.register_forward_hook(lambda _, x, y, i=index: keep(f's4_in{i}', y.mT))
        stage.s4.register_forward_hook(lambda _, x, y, i=index: keep(f's4_out{i}', y[0].mT))
        stage.linear.register_forward_hook(lambda _, x, y, i=index: keep(f'pool_out{i}', x[0].mT))
        stage.linear.register_forward_hook(lambda _, x, y, i=index: keep(f'stage_out{i}', torch.nn.functional.gelu(y)))
    return seen


def compare_gradients(golden: Golden, model: VideoPerceiver, output: object) -> None:
    head = next(iter(model.heads.values()))
    classes = output.logits.shape[1]
    pixels = np.zeros((1, 1, 1, 3), np.uint8)
    samples = [VideoSample(pixels, label=i % classes, meta=dict(target=0.5)) for i in range(len(output.logits))]
    (loss,) = head.loss(output, samples, (1.0, 1.0)).values()
    close(loss, golden, 'out/loss', 1e-4)
    model.zero_grad()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    official = save_rules(LAYOUT.rules_back(model.state_dict()), gradients, 0)
    for key in golden.keys('grad/'):
        assert_close_max(official[key.removeprefix('grad/')], golden[key], 1e-3, key)


@pytest.mark.parametrize('path', KINDS['model'])
@torch.no_grad()
def test_exact_kernel_is_the_default(path) -> None:
    golden = Golden(path)
    model, _ = build(golden)
    for index, stage in enumerate(model.backbone.stages):
        length, official = stage.s4.kernel.length, golden[f'out/kernel{index}']
        taps = stage.s4.kernel()
        assert taps.shape[1] == length
        off = np.sqrt(((taps[:, : official.shape[1]].numpy() - official) ** 2).mean() / (official**2).mean())
        assert off > 1e-3 if length % 2 else off < 1e-3
        first = stage.s4.kernel.recurrence().within[:, :length, 0]  # impulse response of the recurrence
        assert_close_max(first, taps[:, : first.shape[1]], 1e-5)


@pytest.mark.parametrize('path', KINDS['model'])
def test_official_names_round_trip(path) -> None:
    golden = Golden(path)
    model, read = build(golden)
    state = model.state_dict()
    back = save_rules(LAYOUT.rules_back(state), state, 0)
    LAYOUT.finish(back)
    arrays = golden.group('param/')
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype and back[key].shape == array.shape, key
        if key in read and not key.endswith('.z'):
            np.testing.assert_array_equal(back[key], array, err_msg=key)
        elif key.endswith('.z'):  # the last node of an even length is 4 / 0 but for rounding
            np.testing.assert_allclose(back[key][:-1], array[:-1], rtol=1e-4, atol=1e-4, err_msg=key)


def test_all_kinds_of_goldens_are_there() -> None:
    if not list(goldens_dir().glob('vis4mer_*.npz')):
        pytest.skip(f'no vis4mer_*.npz in {goldens_dir()}; set TRECVIT_GOLDENS to the folder of reference outputs')
    assert all(parameters[0].values[0] is not None for parameters in KINDS.values())
