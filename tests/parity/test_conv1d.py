"""The causal temporal convolution against the official layer."""

from __future__ import annotations

import pytest
import torch

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.models.layers import CausalConv
from trecvit_dense.registry import MODELS


def build(golden: Golden) -> CausalConv:
    """The convolution inside a TRecViT of the golden's width, with the golden's weights."""
    width, taps = golden['params/b'].shape[0], golden['params/w'].shape[0]
    backbone = MODELS.build(
        dict(
            type='TRecViT',
            embed_dim=width,
            depth=1,
            num_heads=1,
            lru_width=width,
            conv_width=taps,
            image_size=16,
            patch_size=16,
        )
    )
    layer = backbone.blocks[0].temporal.conv
    layer.load_state_dict({'weight': golden.tensor('params/w'), 'bias': golden.tensor('params/b')})
    return layer


@pytest.mark.parametrize('path', golden_files('conv1d_'))
def test_conv1d(path) -> None:
    golden = Golden(path)
    layer = build(golden)
    for key in golden.keys():
        if not key.endswith('/segment_pos'):
            continue
        scenario = key.removesuffix('/segment_pos')
        layer.zero_grad()
        x = golden.tensor('x').requires_grad_()
        y, state = layer(x, reset=golden.tensor(key) == 0, raw_state=True)
        assert_close_max(y, golden[f'{scenario}/y'], name=f'{scenario}/y')
        assert_close_max(state, golden[f'{scenario}/state'], name=f'{scenario}/state')
        (y * golden.tensor('cotangent')).sum().backward()
        gradients = {'x': x.grad, 'params/w': layer.weight.grad, 'params/b': layer.bias.grad}
        for name, gradient in gradients.items():
            assert_close_max(gradient, golden[f'{scenario}/grad/{name}'], 1e-3, f'{scenario}/grad/{name}')
    state, outputs = None, []
    for frame in golden.tensor('x').split(1, dim=1):
        y, state = layer(frame, state)
        outputs.append(y)
    assert_close_max(torch.cat(outputs, dim=1), golden['stream/y'], name='stream/y')
    assert_close_max(state, golden['stream/state'], name='stream/state')
    golden.assert_all_compared(ignore=['config_json'])
