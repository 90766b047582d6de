"""The optimiser of the recipes: one fused pass over all parameters, and the steps of the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from trecvit_dense.engine.config import config_names, load_config
from trecvit_dense.registry import MODELS, use_scope

AT_SCALE_WITH_SGD = ('classify_xvit-b_ssv2',)


@pytest.mark.parametrize('name', config_names())
def test_every_recipe_takes_the_fused_optimiser(name: str) -> None:
    wrapper = load_config(name).get('optim_wrapper')
    if wrapper is None or name in AT_SCALE_WITH_SGD:
        return
    assert wrapper.optimizer.type == 'MuonAdamW' or (wrapper.optimizer.type == 'AdamW' and wrapper.optimizer.fused)


def test_fused_steps_are_the_plain_ones() -> None:
    """Also where gradients come in another layout of memory, as those of a ``channels_last`` stem do."""
    use_scope()
    torch.manual_seed(0)
    sizes = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=32)
    plain = MODELS.build(dict(type='TRecViT', stem='conv', stem_channels=(4, 8, 16), **sizes)).train()
    fused, start = copy.deepcopy(plain), copy.deepcopy(plain.state_dict())
    video = torch.rand(1, 3, 3, 32, 32)
    optimisers = [
        torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=model is fused)
        for model in (plain, fused)
    ]
    for _ in range(3):
        fused.zero_grad()
        tokens = fused(video)[0].levels[-1].tokens
        F.mse_loss(tokens, torch.ones_like(tokens)).backward()
        # The same gradients for both: where they are nothing but round-off, a step is as large as any other.
        for mine, its in zip(plain.parameters(), fused.parameters(), strict=True):
            mine.grad = its.grad.contiguous().clone()
        for optimiser in optimisers:
            optimiser.step()
    wanted = plain.state_dict()
    for name, value in fused.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7, msg=name)
    moved = [name for name, value in wanted.items() if not torch.equal(value, start[name])]
    assert len(moved) == len(list(plain.parameters()))
