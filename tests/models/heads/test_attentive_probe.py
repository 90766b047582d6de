"""Attentive and linear probes: streams, a softmax over all tokens, gradients, and what stays frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import FeatureLevel, Features

BACKBONE = dict(type='TRecViT', embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=32)
PROBES = dict(
    attentive=dict(type='AttentiveProbe', num_classes=5, num_heads=2, num_queries=3),
    linear=dict(type='ClassificationHead', num_classes=5, rep_size=None, pool='gap'),
)


def build(probe: str, **options: object) -> nn.Module:
    use_scope()
    torch.manual_seed(0)
    head = PROBES[probe] | options
    cfg = dict(type='VideoPerceiver', backbone=BACKBONE, heads=dict(classification=head), freeze=('backbone',))
    return MODELS.build(cfg)


def video(frames: int = 7) -> torch.Tensor:
    return torch.rand(2, frames, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize('probe', PROBES)
def test_step_is_clip(probe: str) -> None:
    model = build(probe).eval()
    nn.init.normal_(model.heads['classification'].classifier.weight)
    whole, _ = model.step(video(), model.start(2))
    state, sizes = model.start(2), set()
    for first, last in ((0, 1), (1, 2), (2, 5), (5, 7)):
        outputs, state = model.step(video()[:, first:last], state)
        sizes.add(state.nbytes)
    torch.testing.assert_close(outputs['classification'].logits, whole['classification'].logits, rtol=1e-4, atol=1e-5)
    assert len(sizes) == 1 and outputs['classification'].logits.std() > 0.01


@torch.no_grad()
def test_running_sums_are_a_softmax_over_all_tokens() -> None:
    """Against torch's own attention, with scores so large that they would overflow without the largest taken off."""
    head = build('attentive').heads['classification'].eval()
    head.queries.mul_(3000)
    tokens = torch.randn(2, 4, 6, 16, generator=torch.Generator().manual_seed(0))
    features = Features((FeatureLevel(tokens, (2, 3), (8, 8)),))
    _, state = head(features, head.begin(2, 'cpu'), (16, 24))
    flat = head.norm_tokens(tokens).flatten(1, 2)
    query, key, value = (
        x.unflatten(-1, (2, 8)).transpose(-3, -2) for x in (head.query(head.queries), head.key(flat), head.value(flat))
    )
    wanted = nn.functional.scaled_dot_product_attention(query.expand(2, -1, -1, -1), key, value)
    torch.testing.assert_close(state['sum'] / state['weight'][..., None], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('probe', PROBES)
def test_the_probe_learns_and_the_backbone_stays(probe: str) -> None:
    model = build(probe).train()
    output = model.step(video(), model.start(2))[0]['classification']
    nn.functional.cross_entropy(output.logits, torch.tensor([0, 3])).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.heads.parameters())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match='3 queries with 3 heads on tokens of width 16'):
        build('attentive', num_heads=3)
    with pytest.raises(ValueError, match='has no pool'):
        build('attentive', pool='gap')
