"""VideoPerceiver: several heads from one pass, and clear words when data and heads do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.models.heads import Head
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import DepthMap, PointTracks, RecurrentState, VideoSample

use_scope()


@MODELS.register_module(force=True)
class CountingHead(Head):
    """Mean feature of every frame, and how often the backbone was asked."""

    def forward(self, features, state, input_size):
        return features.levels[-1].tokens.mean((2, 3)), RecurrentState()

    def predict(self, outputs, sample, scale):
        return torch.cat(outputs, 1)[0].numpy()


def build(points: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    heads = dict(depth=dict(type='CountingHead'))
    if points:
        heads['points'] = dict(
            type='CostVolumePointHead', channels=8, hidden_dim=16, num_levels=2, iterations=1, max_points=4
        )
    backbone = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=32, patch_size=8, image_size=32)
    return MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=heads, chunk_frames=2)).eval()


def predict(model: torch.nn.Module, sample: VideoSample) -> dict:
    inputs = [torch.from_numpy(sample.video).permute(0, 3, 1, 2)]
    return model(**model.data_preprocessor(dict(inputs=inputs, data_samples=[sample])), mode='predict')[0].predictions


def make_sample(points: bool = True) -> VideoSample:
    video = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    xy = np.full((2, 5, 2), 9.0, np.float32)
    tracks = PointTracks(xy, np.ones((2, 5), bool), np.array([[0, 9, 9], [1, 9, 9]], np.float32))
    return VideoSample(video, tracks if points else None, name='clip')


def test_all_heads_read_one_pass(monkeypatch) -> None:
    model, frames = build(), []
    forward = model.backbone.forward
    monkeypatch.setattr(model.backbone, 'forward', lambda v, **k: frames.append(v.shape[1]) or forward(v, **k))
    sample = make_sample()
    sample.depth = DepthMap(np.ones((5, 32, 32), np.float32), np.ones((5, 32, 32), bool))
    found = predict(model, sample)
    assert frames == [2, 2, 1]
    assert found['depth'].shape == (5,)
    assert found['points'].xy_px.shape == (2, 5, 2)


def test_only_heads_that_a_sample_asks_for_are_run(monkeypatch) -> None:
    model = build()
    monkeypatch.setattr(CountingHead, 'forward', lambda *_: pytest.fail('nobody asked for depth'))
    assert set(predict(model, make_sample())) == {'points'}
    assert model.tasks is None


def test_a_sample_without_points_is_no_obstacle_to_the_other_heads() -> None:
    found = predict(build(), make_sample(points=False))
    alone = predict(build(points=False), make_sample(points=False))
    np.testing.assert_allclose(found['depth'], alone['depth'], atol=1e-6)
    assert 'points' not in found


def test_training_a_point_head_needs_points() -> None:
    model, sample = build(), make_sample(points=False)
    data = model.data_preprocessor(dict(inputs=[torch.zeros(5, 3, 32, 32, dtype=torch.uint8)], data_samples=[sample]))
    with pytest.raises(ValueError, match="sample 'clip' has no point queries"):
        model(**data, mode='loss')


def test_a_head_without_predict_says_so() -> None:
    with pytest.raises(TypeError, match='must define predict'):
        Head().predict([], None, (1.0, 1.0))


def test_prompts_need_a_backbone_that_takes_them(monkeypatch) -> None:
    from trecvit_dense.models.backbones import TRecViT

    monkeypatch.setattr(TRecViT, 'supports_prompts', False)
    monkeypatch.setattr(CountingHead, 'requires_prompts', True)
    with pytest.raises(ValueError, match='CountingHead adds prompt tokens, but TRecViT takes none'):
        build(points=False)
