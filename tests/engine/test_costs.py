"""Operations and memory, counted: against sums done by hand, and on the meta device as on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trecvit_dense.cli.benchmark_claims import trecvit_and_vivit
from trecvit_dense.engine.costs import FusedAttention, PeakMemory, count, count_classifier, count_flops
from trecvit_dense.registry import MODELS, use_scope

use_scope()


def test_fused_attention_is_counted() -> None:
    query = torch.rand(2, 3, 20, 8)
    mask = torch.ones(20, 20, dtype=torch.bool)
    for options in ({}, dict(attn_mask=mask)):
        found = count_flops(lambda options=options: F.scaled_dot_product_attention(query, query, query, **options))
        assert found == 2 * 2 * (2 * 3 * 20 * 20 * 8)  # two products, two operations per multiply-add


def test_memory_is_what_lives_at_once() -> None:
    x = torch.zeros(100)
    with PeakMemory() as memory:
        memory.add([x, x[:50]])  # one storage
        y = x + 1
        z = y + 1
        z = z.view(10, 10)[:5]  # nothing new
        del y
        assert (memory.live, memory.peak) == (800, 1200)
        z = z + 1  # 50 numbers, while the 100 before it are there
        assert (memory.live, memory.peak) == (600, 1200)
        del z
    assert memory.live == 400


def test_a_training_step_by_hand() -> None:
    """Two layers of 8 x 8 without bias on 4 rows: what the way back needs, and the gradients."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False))

    step = count(build, lambda model: model(torch.empty(4, 8)), train=True)
    call = count(build, lambda model: model(torch.empty(4, 8)))
    assert step.parameters == 128 and step.flops == call.flops == 2 * (2 * 4 * 8 * 8)
    assert call.peak_bytes == 4 * (128 + 3 * 32)  # weights; input, and what the ReLU takes and gives
    assert 4 * (2 * 128 + 2 * 32) <= step.peak_bytes <= 4 * (2 * 128 + 6 * 32)


def test_fused_attention_keeps_no_weights_on_the_meta_device() -> None:
    def run(fused: bool) -> int:
        return count(
            lambda: nn.Identity(), lambda _: F.scaled_dot_product_attention(*torch.empty(3, 1, 2, 64, 8)), fused=fused
        ).peak_bytes

    weights = 4 * 2 * 64 * 64
    assert run(False) >= run(True) + 2 * weights - 4 * 2 * 64 * 8
    with FusedAttention():  # elsewhere nothing changes
        query = torch.rand(1, 2, 5, 4)
        assert F.scaled_dot_product_attention(query, query, query).shape == query.shape


@pytest.mark.parametrize('fused', [True, False])
def test_the_meta_device_counts_what_a_cpu_uses(fused: bool) -> None:
    sizes = dict(embed_dim=16, depth=2, num_heads=2, image_size=32)
    config = dict(type='ViViT', tubelet_size=(1, 8, 8), num_frames=4, fused=fused, **sizes)
    video = torch.rand(1, 4, 3, 32, 32)
    model = MODELS.build(config).eval()
    with torch.no_grad(), PeakMemory() as memory:
        memory.add([video, *model.parameters()])
        model(video)
    counted = count(lambda: MODELS.build(config), lambda model: model(video.to('meta'))[0].class_token, fused=fused)
    assert counted.peak_bytes == pytest.approx(memory.peak, rel=0.02)


def test_the_models_of_the_trecvit_paper() -> None:
    """Table 3: 111.3 M and 1.44 TFLOP; 310.8 M and 7.75 TFLOP."""
    trecvit, vivit = (count_classifier(model, (32, 224, 224), fused=False) for model in trecvit_and_vivit(False))
    assert trecvit.parameters == 111_218_862 and vivit.parameters == 310_751_406
    assert trecvit.flops == pytest.approx(1.44e12, rel=0.03) and vivit.flops == pytest.approx(7.75e12, rel=0.015)
    scores = 4 * 16 * (32 * 196 + 1) ** 2
    assert 4 * vivit.parameters + 2 * scores < vivit.peak_bytes < 4 * vivit.parameters + 2.2 * scores
