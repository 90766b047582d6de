"""Ray-cast scenes: depth, poses, tracks and masks are one geometry, and a clip is what its index says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from trecvit_dense.datasets import SyntheticSceneDataset
from trecvit_dense.datasets.scenes import CLASSES, SceneSpec
from trecvit_dense.datasets.scenes.clip import build_scene
from trecvit_dense.datasets.scenes.raycast import View
from trecvit_dense.registry import DATASETS
from trecvit_dense.structures import VideoSample


def small(**kwargs) -> SyntheticSceneDataset:
    options = dict(length=20, size=(48, 64), num_frames=4, num_points=32) | kwargs
    return SyntheticSceneDataset(**options)


def test_item_has_the_contract() -> None:
    item = DATASETS.build(dict(type='SyntheticSceneDataset', length=3, size=(40, 56), num_frames=5, num_points=16))[0]
    inputs, sample = item['inputs'], item['data_samples']
    assert inputs.dtype == torch.uint8 and inputs.shape == (5, 3, 40, 56)
    np.testing.assert_array_equal(inputs.permute(0, 2, 3, 1).numpy(), sample.video)
    points, depth = sample.points, sample.depth
    assert points.xy_px.shape == (16, 5, 2) and points.visible.shape == (16, 5)
    assert np.isfinite(points.xy_px).all() and points.visible.any(1).all()
    frame, rows = points.query_txy[:, 0].astype(int), np.arange(16)
    assert points.visible[rows, frame].all()
    np.testing.assert_array_equal(points.xy_px[rows, frame], points.query_txy[:, 1:])
    assert sample.masks.labels.shape == depth.depth_m.shape == depth.valid.shape == (5, 40, 56)
    assert set(np.unique(sample.masks.labels)) <= {0, *sample.masks.ids}
    for i, first in zip(sample.masks.ids, sample.masks.first_frame, strict=True):
        assert (sample.masks.labels[first] == i).any() and not (sample.masks.labels[:first] == i).any()
    assert depth.depth_m.dtype == np.float32 and (depth.depth_m[depth.valid] > 0).all()
    assert depth.intrinsics.shape == (5, 3, 3) and depth.camera_to_world.shape == (5, 4, 4)
    turn = depth.camera_to_world[:, :3, :3]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-9)
    assert (np.linalg.det(turn) > 0.999).all()
    assert sample.label in range(len(CLASSES))


def lift(sample: VideoSample, t: int) -> np.ndarray:
    """``(H, W, 3)`` world points of a frame, from depth, intrinsics and pose alone."""
    height, width = sample.size
    rows, columns = np.mgrid[:height, :width] + 0.5
    ray = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(sample.depth.intrinsics[t]).T
    pose = sample.depth.camera_to_world[t]
    return ray * sample.depth.depth_m[t][..., None] @ pose[:3, :3].T + pose[:3, 3]


def project(sample: VideoSample, t: int, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depth of world points in a frame."""
    pose = sample.depth.camera_to_world[t]
    camera = (world - pose[:3, 3]) @ pose[:3, :3]
    image = camera @ sample.depth.intrinsics[t].T
    return image[..., :2] / camera[..., 2:], camera[..., 2]


@pytest.mark.parametrize('indoor', [1.0, 0.0])
def test_static_pixels_land_on_the_same_depth(indoor: float) -> None:
    """A pixel lifted to the world and seen from another frame lies on that frame's surface, or behind it."""
    dataset = small(indoor=indoor, movers=0.0, photometric=0.0, camera=2.0)
    agree = total = through = 0
    for index in range(6):
        sample = dataset.sample(index)
        height, width = sample.size
        for a, b in ((0, 1), (0, 3), (2, 1)):
            xy, depth = project(sample, b, lift(sample, a)[sample.depth.valid[a]])
            inside = (depth > 0.2) & (xy >= 1).all(-1) & (xy[:, 0] < width - 1) & (xy[:, 1] < height - 1)
            xy, depth = xy[inside], depth[inside]
            # Bilinear inverse depth is exact on planes; edges are left out by asking four neighbours to be alike.
            inverse = np.where(sample.depth.valid[b], 1 / np.maximum(sample.depth.depth_m[b], 1e-3), 0)
            column, row = np.floor(xy - 0.5).astype(int).T
            corner = np.stack([inverse[row + j, column + i] for j in (0, 1) for i in (0, 1)])
            share_x, share_y = (xy - 0.5 - np.stack([column, row], 1)).T
            read = (1 - share_y) * ((1 - share_x) * corner[0] + share_x * corner[1])
            read += share_y * ((1 - share_x) * corner[2] + share_x * corner[3])
            smooth = (corner.max(0) < 1.05 * corner.min(0)) & (corner.min(0) > 0)
            ratio = (read * depth)[smooth]
            through += (ratio < 0.97).sum()  # seen through a surface
            agree += (np.abs(ratio - 1) < 2e-3).sum()
            total += len(ratio)
    assert total > 10000 and through < 0.003 * total and agree > 0.8 * total  # the rest is hidden there


def test_tracks_agree_with_depth_and_poses() -> None:
    dataset = small(movers=0.0, num_points=60)
    errors, hidden = [], 0
    for index in range(6):
        sample = dataset.sample(index)
        rows = np.arange(60)
        frame = sample.points.query_txy[:, 0].astype(int)
        # Depth of the query by a ray through the very place.
        scene, _, intrinsics, poses, _ = build_scene(dataset.rng(index), dataset.spec)
        world = np.empty((60, 3))
        for n in rows:
            inverse, _ = View(scene, frame[n], intrinsics, poses[frame[n]]).cast(sample.points.query_txy[n : n + 1, 1:])
            ray = np.linalg.inv(intrinsics) @ [*sample.points.query_txy[n, 1:], 1]
            world[n] = poses[frame[n], :3, :3] @ ray / inverse[0] + poses[frame[n], :3, 3]
        for t in range(sample.num_frames):
            xy, depth = project(sample, t, world)
            seen = sample.points.visible[:, t] & (depth > 0.2)
            errors += np.linalg.norm(xy - sample.points.xy_px[:, t], axis=1)[seen].tolist()
            inside = (xy >= 0).all(1) & (xy[:, 0] < 64) & (xy[:, 1] < 48) & (depth > 0.2)
            hidden += (inside & ~sample.points.visible[:, t]).sum()
    assert np.percentile(errors, 99) < 0.05 and hidden > 5


def test_raster_is_the_same_as_single_rays() -> None:
    spec = SceneSpec(size=(40, 56), num_frames=3)
    for seed in range(6):
        scene, _, intrinsics, poses, _ = build_scene(np.random.default_rng(seed), spec)
        view = View(scene, 1, intrinsics, poses[1])
        x, y = np.arange(113) * 0.5, np.arange(81) * 0.5
        inverse, index = view.raster(x, y)
        places = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        one, which = view.cast(places)
        same = which == index.ravel()
        close = np.abs(inverse.ravel() - one) <= 2e-4 * one + 1e-6
        assert close.mean() > 0.998 and close[same].all()  # the others graze an edge
        assert same.mean() > 0.99  # the others lie where two faces touch


def test_points_of_moving_solids_stay_on_their_mask() -> None:
    """Away from silhouettes the instance under a visible point never changes."""
    same = total = travelled = 0
    dataset = small(movers=1.0, num_points=80, object_fraction=1.0)
    for index in range(8):
        sample = dataset.sample(index)
        labels, points = sample.masks.labels, sample.points
        for n, t in zip(*np.nonzero(points.visible), strict=True):
            first = int(points.query_txy[n, 0])
            around = [_around(labels[f], points.xy_px[n, f]) for f in (first, t)]
            if all(len(np.unique(a)) == 1 for a in around):
                same += around[0][0, 0] == around[1][0, 0]
                total += 1
                travelled += np.abs(points.xy_px[n, t] - points.xy_px[n, first]).max() > 3
    assert total > 200 and same == total and travelled > 50


def _around(labels: np.ndarray, xy: np.ndarray) -> np.ndarray:
    x, y = int(xy[0]), int(xy[1])
    return labels[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]


def test_deterministic_in_seed_draw_index_and_split() -> None:
    one, two = small(), small()
    np.testing.assert_array_equal(one[7]['inputs'], two[7]['inputs'])
    a, b = one[7]['data_samples'], two[7]['data_samples']
    np.testing.assert_array_equal(a.points.xy_px, b.points.xy_px)
    np.testing.assert_array_equal(a.depth.depth_m, b.depth.depth_m)
    others = [small()[27], small(seed=1)[7], small(split='val')[7], small(split='test')[7], small()[8]]
    for first, second in itertools.combinations([one[7]['inputs'], *(item['inputs'] for item in others)], 2):
        assert not torch.equal(first, second)


def test_still_without_camera_and_movers() -> None:
    sample = small(camera=0.0, movers=0.0, photometric=0.0).sample(1)
    np.testing.assert_array_equal(sample.video, np.broadcast_to(sample.video[:1], sample.video.shape))
    np.testing.assert_array_equal(sample.depth.depth_m, sample.depth.depth_m[:1].repeat(4, 0))
    np.testing.assert_allclose(sample.points.xy_px, sample.points.xy_px[:, :1].repeat(4, 1), atol=1e-4)


def test_a_camera_that_travels_goes_somewhere_in_every_clip() -> None:
    def way(**options) -> list[float]:
        data = small(num_frames=8, size=(16, 24), num_points=1, movers=0.0, **options)
        centres = [data.sample(i).depth.camera_to_world[:, :3, 3] for i in range(16)]
        return [float(np.linalg.norm(np.diff(place, axis=0), axis=1).sum()) for place in centres]

    travelled, turned, any_way = way(travel=1.0), way(travel=0.0), way()
    assert np.mean(np.array(travelled) > 0.05) > 0.7  # the others have no room to move
    assert np.median(travelled) > 1.5 * np.median(any_way) > 1.5 * np.median(turned)


def test_rooms_are_as_large_as_rooms_and_the_camera_stays_free() -> None:
    for index in range(10):
        sample = small(indoor=1.0).sample(index)
        depth = sample.depth.depth_m
        assert sample.depth.valid.all() and sample.label == 0
        assert 0.15 < depth.min() and depth.max() < 14 and 0.4 < np.median(depth) < 9


def test_open_ground_has_a_sky_without_depth() -> None:
    skies = []
    for index in range(8):
        sample = small(indoor=0.0).sample(index)
        assert sample.label == 1 and np.isfinite(sample.depth.depth_m).all()
        assert (sample.depth.depth_m[~sample.depth.valid] == 0).all()
        skies.append((~sample.depth.valid).mean())
    assert 0.02 < np.mean(skies) < 0.7


@pytest.mark.parametrize(('size', 'frames'), [((8, 8), 1), ((16, 90), 2), ((130, 40), 3)])
def test_any_size_and_length(size: tuple[int, int], frames: int) -> None:
    for index in range(3):
        assert small(size=size, num_frames=frames).sample(index).video.shape == (frames, *size, 3)


def test_empty_rooms_and_targets() -> None:
    assert small(num_objects=(0, 0)).sample(0).masks.ids == []
    sample = small(num_targets=(1, 2), num_objects=(6, 12)).sample(3)
    assert 1 <= len(sample.masks.ids) <= 2 and 0 in sample.masks.first_frame
    assert sample.meta['frame_names'] == ['00000', '00001', '00002', '00003']


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
        dict(travel=1.5),
        dict(indoor=1.5),
        dict(num_targets=(0, 2)),
    ],
)
def test_wrong_arguments_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match='wanted'):
        small(**wrong)


def test_pipeline_moves_depth_along() -> None:
    dataset = small(length=4, pipeline=[dict(type='Resize', size=(24, 24)), dict(type='HorizontalFlip', p=0.5)])
    for index in range(4):
        assert dataset[index]['inputs'].shape == (4, 3, 24, 24)
