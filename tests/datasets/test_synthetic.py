"""The procedural dataset: deterministic, exact, any size, and as hard as it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from trecvit_dense.datasets import SyntheticVideoDataset
from trecvit_dense.datasets.procedural import CLASSES, ClipSpec
from trecvit_dense.datasets.procedural.motion import random_warp
from trecvit_dense.datasets.procedural.scene import build_scene
from trecvit_dense.registry import DATASETS
from trecvit_dense.structures import VideoSample


def small(**kwargs) -> SyntheticVideoDataset:
    options = dict(length=20, size=(48, 64), num_frames=6, num_points=32) | kwargs
    return SyntheticVideoDataset(**options)


def test_item_has_the_contract() -> None:
    item = DATASETS.build(dict(type='SyntheticVideoDataset', length=3, size=(40, 56), num_frames=5, num_points=16))[0]
    inputs, sample = item['inputs'], item['data_samples']
    assert inputs.dtype == torch.uint8 and inputs.shape == (5, 3, 40, 56)
    np.testing.assert_array_equal(inputs.permute(0, 2, 3, 1).numpy(), sample.video)
    points = sample.points
    assert points.xy_px.shape == (16, 5, 2) and points.visible.shape == (16, 5)
    assert np.isfinite(points.xy_px).all() and points.visible.any(1).all()
    frame, rows = points.query_txy[:, 0].astype(int), np.arange(16)
    assert points.visible[rows, frame].all()
    np.testing.assert_array_equal(points.xy_px[rows, frame], points.query_txy[:, 1:])
    assert sample.masks.labels.shape == sample.depth.depth_m.shape == (5, 40, 56)
    assert set(np.unique(sample.masks.labels)) <= {0, *sample.masks.ids}
    for i, first in zip(sample.masks.ids, sample.masks.first_frame, strict=True):
        assert (sample.masks.labels[first] == i).any() and not (sample.masks.labels[:first] == i).any()
    assert np.isfinite(sample.depth.depth_m).all() and (sample.depth.depth_m > 0).all()
    assert 0 <= sample.label < len(CLASSES)


def test_deterministic_in_seed_draw_and_index() -> None:
    one, two = small(), small()
    np.testing.assert_array_equal(one[7]['data_samples'].points.xy_px, two[7]['data_samples'].points.xy_px)
    np.testing.assert_array_equal(one[7]['inputs'], two[7]['inputs'])
    others = [small()[27], small(seed=1)[7], small(split='val')[7], small(split='test')[7], small()[8]]
    clips = [one[7]['inputs'], *(item['inputs'] for item in others)]
    for a, b in itertools.combinations(clips, 2):
        assert not torch.equal(a, b)


@pytest.mark.parametrize(('size', 'frames'), [((8, 8), 1), ((16, 90), 2), ((130, 40), 3)])
def test_any_size_and_length(size: tuple[int, int], frames: int) -> None:
    for index in range(3):
        sample = small(size=size, num_frames=frames).sample(index)
        assert sample.video.shape == (frames, *size, 3)


def test_first_queries_are_first_visible() -> None:
    points = small(split='val').sample(0).points
    np.testing.assert_array_equal(points.query_txy[:, 0], points.visible.argmax(1))


@pytest.mark.parametrize('seed', range(6))
def test_rendering_agrees_with_the_point_map(seed: int) -> None:
    """A texture that encodes its own coordinates is rendered; the map that points use reads the same ones."""
    spec = ClipSpec(size=(60, 80), num_frames=8, photometric=0.0, nonrigid=1.8)
    _, layers, _ = build_scene(np.random.default_rng(seed), spec)
    for layer in layers:
        height, width = layer.texture.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        layer.texture = np.dstack([x, y, np.ones_like(x), np.ones_like(x)])
        for t in (0, 3, 7):
            box = layer.box(t, spec.size)
            if box is None:
                continue
            row, column = np.mgrid[box[1] : box[3], box[0] : box[2]] + 0.5
            place = np.stack([column, row], axis=-1)
            rest = layer.to_rest(place, np.array(t))
            texel = rest * layer.texels + layer.centre - 0.5
            inside = (texel >= 1).all(-1) & (texel[..., 0] < width - 2) & (texel[..., 1] < height - 2)
            drawn = layer.draw(t, box)
            assert np.abs(drawn[..., :2] - texel)[inside].max(initial=0) / layer.texels < 0.02
            assert np.abs(layer.to_image(rest, np.array(t)) - place)[inside].max(initial=0) < 1e-4


def test_warp_inverts() -> None:
    clock = np.arange(20.0)
    for seed in range(20):
        warp = random_warp(np.random.default_rng(seed), clock, 30.0, 3.0)
        bent = np.random.default_rng(seed).uniform(-40, 40, (50, 1, 2))
        bent = np.broadcast_to(bent, (50, 20, 2))
        frames = np.arange(20)
        rest = bent + warp.shift(bent, frames)
        np.testing.assert_allclose(warp.bend(rest, frames), bent, atol=1e-5)
        dx, dy = warp.shift_maps(bent[:, 3, 0].astype(np.float32), bent[:, 3, 1].astype(np.float32), 3)
        np.testing.assert_allclose(np.stack([dx, dy], -1), warp.shift(bent[:, 3], 3), atol=1e-3)


def test_a_point_stays_on_its_instance_while_visible() -> None:
    """Away from silhouettes the instance map under a visible point never changes; under a hidden one it may."""
    same = total = hidden = 0
    for index in range(12):
        sample = small(num_points=80).sample(index)
        labels, points = sample.masks.labels, sample.points
        height, width = sample.size
        for n, t in zip(*np.nonzero(points.visible), strict=True):
            first = int(points.query_txy[n, 0])
            around = [_around(labels[f], points.xy_px[n, f]) for f in (first, t)]
            if all(len(np.unique(a)) == 1 for a in around):
                same += around[0][0, 0] == around[1][0, 0]
                total += 1
        inside = ((points.xy_px >= 0) & (points.xy_px < (width, height))).all(-1)
        hidden += (inside & ~points.visible).sum()
    assert total > 1000 and same == total
    assert hidden > 50


def _around(labels: np.ndarray, xy: np.ndarray) -> np.ndarray:
    x, y = int(xy[0]), int(xy[1])
    return labels[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]


def test_still_without_motion() -> None:
    sample = small(motion=0.0, photometric=0.0).sample(1)
    np.testing.assert_array_equal(sample.video, np.broadcast_to(sample.video[:1], sample.video.shape))
    np.testing.assert_allclose(sample.points.xy_px, sample.points.xy_px[:, :1].repeat(6, 1), atol=1e-4)


def test_depth_agrees_with_the_camera() -> None:
    """Background points lifted with depth and pose stay where they are in the world, up to the pixel grid."""
    dataset = small(num_objects=(0, 0), nonrigid=0.0, photometric=0.0, num_points=64)
    for index in range(4):
        sample = dataset.sample(index)
        depth, points = sample.depth, sample.points
        world = []
        for t in range(sample.num_frames):
            xy = points.xy_px[:, t]
            column, row = np.clip(xy.astype(int), 0, (63, 47)).T
            inverse = np.linalg.inv(depth.intrinsics[t])
            ray = np.concatenate([xy, np.ones((64, 1))], 1) @ inverse.T
            pose = depth.camera_to_world[t]
            world.append(ray * depth.depth_m[t, row, column][:, None] @ pose[:3, :3].T + pose[:3, 3])
        spread = np.linalg.norm(np.stack(world, 1) - world[0][:, None], axis=-1) / np.median(depth.depth_m)
        assert spread[points.visible & points.visible[:, :1]].max() < 0.03


def zero_motion(sample: VideoSample) -> float:
    """TAP-Vid delta_avg of predicting the query's place for ever, at 256 x 256."""
    points, (height, width) = sample.points, sample.size
    away = (points.xy_px - points.query_txy[:, None, 1:]) * (256 / width, 256 / height)
    counted = points.visible & (np.arange(points.xy_px.shape[1]) > points.query_txy[:, :1])
    distance = np.linalg.norm(away, axis=-1)[counted]
    return float(np.mean([(distance < d).mean() for d in (1, 2, 4, 8, 16)])) if len(distance) else np.nan


def test_difficulty_is_about_as_documented() -> None:
    """Zero motion scores about 0.14 on the default clips; 40 small ones give it to within chance."""
    dataset = SyntheticVideoDataset(40, (32, 32), split='val', photometric=0.0)
    scores = [zero_motion(dataset.sample(i)) for i in range(40)]
    assert 0.07 < np.nanmean(scores) < 0.22


@pytest.mark.parametrize(
    'wrong',
    [
        dict(split='training'),
        dict(query_mode='strided'),
        dict(num_frames=0),
        dict(size=(4, 64)),
        dict(num_objects=(5, 2)),
        dict(motion=float('nan')),
        dict(camera=-1.0),
    ],
)
def test_wrong_arguments_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match='wanted'):
        small(**wrong)


def test_workers_and_pipeline() -> None:
    dataset = small(length=4, pipeline=[dict(type='Resize', size=(24, 24)), dict(type='HorizontalFlip', p=0.5)])
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    for index, item in enumerate(loader):
        assert torch.equal(item['inputs'], dataset[index]['inputs'])
        assert item['inputs'].shape == (6, 3, 24, 24)
