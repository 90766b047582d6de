"""RG-LRU against the official layer: outputs, states and gradients, with and without resets and carried state."""

from __future__ import annotations

import pytest
import torch

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.models.layers import RGLRU
from trecvit_dense.registry import MODELS

PARAMETERS = {
    'a_param': 'a_param',
    'input_gate/w': 'input_gate.weight',
    'input_gate/b': 'input_gate.bias',
    'a_gate/w': 'a_gate.weight',
    'a_gate/b': 'a_gate.bias',
}


def build(golden: Golden) -> RGLRU:
    """The recurrence inside a TRecViT of the golden's width, with the golden's weights."""
    width, heads = golden.config['width'], golden.config['num_heads']
    backbone = MODELS.build(
        dict(type='TRecViT', embed_dim=width, depth=1, num_heads=heads, lru_width=width, image_size=16, patch_size=16)
    )
    layer = backbone.blocks[0].temporal.rg_lru
    layer.load_state_dict({ours: golden.tensor(f'params/{name}') for name, ours in PARAMETERS.items()})
    return layer


def scenarios(golden: Golden) -> list[str]:
    return [key.removesuffix('/segment_pos') for key in golden.keys() if key.endswith('/segment_pos')]


@pytest.mark.parametrize('path', golden_files('rglru_'))
def test_rglru(path) -> None:
    golden = Golden(path)
    layer = build(golden)
    for scenario in scenarios(golden):
        compare_scenario(golden, layer, scenario)
    state, outputs = None, []
    for frame in golden.tensor('x').split(1, dim=1):
        y, state = layer(frame, state)
        outputs.append(y)
    assert_close_max(torch.cat(outputs, dim=1), golden['stream/y'], name='stream/y')
    assert_close_max(state, golden['stream/last_h'], name='stream/last_h')
    golden.assert_all_compared()


def compare_scenario(golden: Golden, layer: RGLRU, scenario: str) -> None:
    reset = golden.tensor(f'{scenario}/segment_pos') == 0
    with_h0 = f'{scenario}/grad/h0' in golden
    for kind in ('grad', 'grad_with_state'):
        layer.zero_grad()
        x = golden.tensor('x').requires_grad_()
        # Without h0 the past is zero, and only position 0 is a reset.
        h0 = golden.tensor('h0') if with_h0 else torch.zeros(x.shape[0], x.shape[-1])
        h0.requires_grad_(with_h0)
        y, last = layer(x, h0, reset=reset)
        assert_close_max(y, golden[f'{scenario}/y'], name=f'{scenario}/y')
        assert_close_max(last, golden[f'{scenario}/last_h'], name=f'{scenario}/last_h')
        loss = (y * golden.tensor('cotangent')).sum()
        if kind == 'grad_with_state':
            loss = loss + (last * golden.tensor('cotangent_last_h')).sum()
        loss.backward()
        inputs = {'x': x, 'h0': h0} if with_h0 else {'x': x}
        for name, tensor in inputs.items():
            assert_close_max(tensor.grad, golden[f'{scenario}/{kind}/{name}'], 1e-3, f'{scenario}/{kind}/{name}')
        parameters = dict(layer.named_parameters())
        for name, ours in PARAMETERS.items():
            key = f'{scenario}/{kind}/params/{name}'
            assert_close_max(parameters[ours].grad, golden[key], 1e-3, key)


@pytest.mark.parametrize('path', golden_files('rglru_'))
def test_no_state_is_a_reset_of_the_first_frame(path) -> None:
    golden = Golden(path)
    y, last = build(golden)(golden.tensor('x'))
    assert_close_max(y, golden['fresh/y'])
    assert_close_max(last, golden['fresh/last_h'])
