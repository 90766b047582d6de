"""The temporal residual block against the official one, without and with its gated MLP."""

from __future__ import annotations

import pytest
import torch

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.checkpoints.trecvit_names import TEMPORAL_BLOCK, load_rules, save_rules
from trecvit_dense.models.layers import RecurrentBlock
from trecvit_dense.registry import MODELS


def build(golden: Golden) -> RecurrentBlock:
    """The temporal block of a TRecViT of the golden's sizes, with the golden's weights."""
    config = golden.config
    backbone = MODELS.build(
        dict(
            type='TRecViT',
            embed_dim=config['width'],
            depth=1,
            num_heads=config['num_heads'],
            mlp_dim=config['mlp_expanded_width'],
            lru_width=config['lru_width'],
            temporal_mlp=config['use_mlp'],
            conv_width=config['conv1d_temporal_width'],
            image_size=16,
            patch_size=16,
        )
    )
    block = backbone.blocks[0].temporal
    block.load_state_dict(load_rules(TEMPORAL_BLOCK, golden.group('params/')))
    return block


@pytest.mark.parametrize('path', golden_files('resblock_'))
def test_resblock(path) -> None:
    golden = Golden(path)
    block = build(golden)
    x = golden.tensor('x').requires_grad_()
    y, state = block(x)
    assert_close_max(y, golden['y'], name='y')
    assert_close_max(state['rg_lru'], golden['state/rg_lru_state'], name='state/rg_lru_state')
    assert_close_max(state['conv'], golden['state/conv1d_state'], name='state/conv1d_state')
    (y * golden.tensor('cotangent')).sum().backward()
    assert_close_max(x.grad, golden['grad/x'], 1e-3, 'grad/x')
    gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
    for name, gradient in save_rules(TEMPORAL_BLOCK, gradients, golden.config['num_heads']).items():
        assert_close_max(gradient, golden[f'grad/params/{name}'], 1e-3, f'grad/params/{name}')
    state, outputs = None, []
    for frame in golden.tensor('x').split(1, dim=1):
        out, state = block(frame, state)
        outputs.append(out)
    assert_close_max(torch.cat(outputs, dim=1), golden['stream/y'], name='stream/y')
    golden.assert_all_compared()
