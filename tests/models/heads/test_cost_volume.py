"""CostVolumePointHead: it learns, every parameter has a part in it, and its losses mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.models.heads.point_slots import CapacityError, add_points, begin_slots, retire_points, spread_slots
from trecvit_dense.models.layers.feature_pyramid import sample_maps
from trecvit_dense.models.losses.track_loss import cost_volume_loss, hypothesis_loss, masked_mean, sequence_loss
from trecvit_dense.models.queries import point_queries
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import PointTracks, VideoSample


def build(**head) -> torch.nn.Module:
    use_scope()
    torch.manual_seed(0)
    backbone = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=32, patch_size=8, image_size=32)
    head = dict(type='CostVolumePointHead', channels=8, hidden_dim=16, num_levels=2, iterations=2) | head
    return MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(points=head)))


def sample(num_frames: int = 4, num_points: int = 3) -> VideoSample:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (num_frames, 32, 32, 3), dtype=np.uint8)
    xy = rng.uniform(4, 28, (num_points, num_frames, 2)).astype(np.float32)
    query = np.concatenate([np.zeros((num_points, 1), np.float32), xy[:, 0]], 1)
    return VideoSample(video, PointTracks(xy, np.ones((num_points, num_frames), bool), query))


def batch(samples: list[VideoSample]) -> dict:
    return dict(inputs=[torch.from_numpy(s.video).permute(0, 3, 1, 2) for s in samples], data_samples=samples)


def test_every_parameter_has_a_gradient() -> None:
    model = build().train()
    losses = model(**model.data_preprocessor(batch([sample(), sample(num_points=2)]), True), mode='loss')
    parts = ('position', 'visible', 'certain', 'match', 'fine', 'hypothesis')
    assert set(losses) == {f'loss_{part}' for part in parts}
    sum(losses.values()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_it_learns_one_clip() -> None:
    model, data = build().train(), batch([sample()])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(12):
        losses = model(**model.data_preprocessor(data, True), mode='loss')
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(float(total.detach()))
    assert history[-1] < 0.7 * history[0]


def test_padding_of_a_batch_changes_nothing() -> None:
    model = build().train()
    few, many = sample(num_points=2), sample(num_points=5)
    alone = model(**model.data_preprocessor(batch([few, few]), True), mode='loss')
    video, _ = model.data_preprocessor.prepare(torch.from_numpy(few.video).permute(0, 3, 1, 2)[None])
    queries = point_queries([few, many], (1.0, 1.0), video.device)
    assert queries['valid'].sum(1).tolist() == [2, 5]
    state = model.start(1, points=dict(query_txy=queries['query_txy'][:1], valid=queries['valid'][:1]))
    outputs, _ = model.step(video, state)
    padded = model.heads.points.loss(outputs['points'], [few], (1.0, 1.0))
    for name, value in alone.items():
        torch.testing.assert_close(padded[name], value)


def test_strided_queries_are_answered_before_and_after(monkeypatch) -> None:
    model, clip = build().eval(), sample(num_frames=5)
    clip.points.query_txy[:, 0] = 2
    clip.points.query_txy[:, 1:] = clip.points.xy_px[:, 2]
    clip.meta['query_mode'] = 'strided'
    model(**model.data_preprocessor(batch([clip])), mode='predict')
    found = clip.predictions['points']
    np.testing.assert_allclose(found.xy_px[:, 2], clip.points.xy_px[:, 2], atol=1e-4)
    turned = VideoSample(clip.video[::-1].copy(), clip.points, meta=dict(query_mode='first'))
    model(**model.data_preprocessor(batch([turned])), mode='predict')
    np.testing.assert_allclose(found.xy_px[:, :2], turned.predictions['points'].xy_px[:, :2:-1], atol=1e-4)


def test_too_few_levels_is_said() -> None:
    use_scope()
    model = build()
    features, _ = model.backbone(torch.rand(1, 1, 3, 32, 32))
    features.levels = features.levels * 2
    with pytest.raises(ValueError, match='feature levels'):
        model.heads.points.pyramid(features)


def test_samples_are_taken_at_pixel_centres() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    xy = torch.tensor([[[2.0, 2.0], [6.0, 10.0], [4.0, 2.0]]])  # stride 4: cell centres at 2, 6, 10
    torch.testing.assert_close(sample_maps(maps, xy, 4).flatten(), torch.tensor([0.0, 9.0, 0.5]))


def test_cost_volume_loss_is_least_at_the_truth() -> None:
    target = torch.tensor([[[[6.0, 10.0]]]])  # cell (1, 2) of stride 4
    counted = torch.ones(1, 1, 1, dtype=torch.bool)
    volume = torch.zeros(1, 1, 1, 4, 4)
    flat = cost_volume_loss([(volume, 4)], torch.tensor(10.0), target, counted)
    torch.testing.assert_close(flat, torch.tensor(16.0).log())
    volume[..., 2, 1] = 1
    assert cost_volume_loss([(volume, 4)], torch.tensor(10.0), target, counted) < 0.01


def test_sequence_loss_grows_like_a_logarithm_beyond_the_knee() -> None:
    target, weight = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1)
    near, far, farther = (
        sequence_loss(torch.tensor([d, 0.0]).view(1, 1, 1, 1, 2), target, weight) for d in (3.0, 6.0, 12.0)
    )
    torch.testing.assert_close(near, torch.tensor(0.75), atol=1e-3, rtol=0)
    torch.testing.assert_close(farther - far, far - near, atol=1e-3, rtol=0)


def test_hypothesis_loss_and_masked_mean() -> None:
    xy, target = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[3.0, 0.0]]]])
    counted = torch.ones(1, 1, 1, dtype=torch.bool)
    sure = torch.full((1, 1, 1), 20.0)
    assert hypothesis_loss(sure, xy, target, counted, radius=4.0) < 1e-6
    assert hypothesis_loss(sure, xy, target, counted, radius=3.0) > 19  # strictly within
    assert masked_mean(torch.ones(3), torch.zeros(3)) == 0


def test_slots_spread_over_frames() -> None:
    state = begin_slots(torch.tensor([[[0.0, 1, 1], [2.4, 5, 5]]]), capacity=3)
    spread = spread_slots(state, 4)
    assert spread.tracked[0].T.tolist() == [[True] * 4, [False, False, True, True], [False] * 4]
    assert spread.is_query[0].T.tolist() == [[True, False, False, False], [False, False, True, False], [False] * 4]
    assert spread.reset[0, :, 1].tolist() == [True, False, False, False]  # an unknown row from frame 0
    state['frame'] += 4
    assert add_points(state, torch.tensor([[7.0, 8.0]])).tolist() == [2]
    assert spread_slots(state, 2).reset[0, :, 2].tolist() == [True, False]
    with pytest.raises(CapacityError, match='0 slots are free'):
        add_points(state, torch.tensor([[1.0, 1.0]]))
    retire_points(state, torch.tensor([0]))
    assert add_points(state, torch.tensor([[1.0, 1.0]])).tolist() == [0]


def test_capacity_at_the_start() -> None:
    with pytest.raises(CapacityError, match='3 points asked for'):
        begin_slots(torch.zeros(1, 3, 3), capacity=2)


@pytest.mark.parametrize('num_levels', [1, 2, 3, 4])
def test_the_best_match_is_that_of_all_levels_added(num_levels: int) -> None:
    """As if the costs of coarser levels were enlarged for every point and added."""
    torch.manual_seed(0)
    head = build(num_levels=num_levels).heads['points']
    sizes = [(12, 20), (6, 10), (3, 5), (2, 3)][:num_levels]
    maps = [torch.randn(2, 8, *size, dtype=torch.float64) for size in sizes]
    template = torch.randn(2, 7, num_levels, 2, 8, dtype=torch.float64)
    volume = head._volume(maps, template)
    total = sum(
        torch.nn.functional.interpolate(costs[:, :, 0], sizes[0], mode='bilinear', align_corners=False)
        for costs in volume[:3]
    )
    rows, columns = np.unravel_index(total.flatten(2).argmax(-1).numpy(), sizes[0])
    wanted = (np.stack([columns, rows], -1) + 0.5) * head.stride
    assert len(np.unique(wanted.reshape(-1, 2), axis=0)) > 7
    np.testing.assert_array_equal(head._best_match(maps, volume, template).numpy(), wanted)
