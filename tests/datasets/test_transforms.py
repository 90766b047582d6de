"""Transforms move frames, points, masks, depth and camera together."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.datasets.procedural import ClipSpec, render_clip
from trecvit_dense.datasets.transforms import (
    ColorJitter,
    DropAnnotations,
    HorizontalFlip,
    RandomCrop,
    Resize,
    TemporalReverse,
    TemporalStride,
)
from trecvit_dense.datasets.transforms.colour import colour_matrix
from trecvit_dense.datasets.transforms.geometry import crop, flip, pick_frames, resize
from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import PointTracks, VideoSample

SIZE = (32, 48)


def clip(seed: int = 0, **spec) -> VideoSample:
    rng = np.random.default_rng(seed)
    return render_clip(rng, ClipSpec(size=SIZE, num_frames=6, num_points=40, photometric=0.0, **spec))


def coordinate_clip() -> VideoSample:
    """Each pixel's colour is the coordinate of its centre, so a point can be compared with what lies below it."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width] + 0.5
    frame = np.stack([x * 4, y * 4, np.zeros_like(x)], axis=-1)
    video = np.repeat(frame[None], 4, axis=0).astype(np.uint8)
    rng = np.random.default_rng(0)
    xy = np.repeat(rng.uniform([4, 4], [width - 4, height - 4], (60, 2))[:, None], 4, axis=1)
    query = np.concatenate([np.full((60, 1), 2.0), xy[:, 2]], axis=1)
    return VideoSample(video, PointTracks(xy, np.ones((60, 4), bool), query))


def colour_error(sample: VideoSample, reference: PointTracks) -> float:
    """Largest distance, source pixels, between the colour at a moved point and the point's place in the source."""
    import cv2

    worst = 0.0
    for t in range(sample.num_frames):
        xy = (sample.points.xy_px[:, t] - 0.5).astype(np.float32)
        seen = cv2.remap(sample.video[t].astype(np.float32), xy[:, None], None, cv2.INTER_LINEAR)[:, 0, :2] / 4
        keep = sample.points.visible[:, t]
        worst = max(worst, np.abs(seen - reference.xy_px[:, t])[keep].max())
    return worst


def reprojected(sample: VideoSample) -> np.ndarray:
    """World points of every pixel of frame 0."""
    depth = sample.depth
    height, width = sample.size
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(depth.intrinsics[0]).T
    points = rays * depth.depth_m[0][..., None]
    pose = depth.camera_to_world[0]
    return points @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize('size', [(64, 96), (50, 61), (32, 100)])
def test_resize_is_a_plain_ratio(size: tuple[int, int]) -> None:
    sample = coordinate_clip()
    moved = resize(sample, size)
    ratio = np.array([size[1] / SIZE[1], size[0] / SIZE[0]])
    np.testing.assert_allclose(moved.points.xy_px, sample.points.xy_px * ratio)
    assert colour_error(moved, sample.points) < 0.3
    back = moved.points.scaled(*(1 / ratio))
    np.testing.assert_allclose(back.xy_px, sample.points.xy_px)
    np.testing.assert_allclose(back.query_txy, sample.points.query_txy)


def test_crop_and_flip_keep_points_on_their_pixels() -> None:
    sample = coordinate_clip()
    mirrored = flip(sample)
    assert colour_error(mirrored, sample.points) < 0.26
    np.testing.assert_allclose(flip(mirrored).points.xy_px, sample.points.xy_px, atol=1e-9)
    np.testing.assert_array_equal(flip(mirrored).video, sample.video)
    window = crop(sample, 3, 7, 20, 30)
    inside = ((sample.points.xy_px[:, 0] >= (7, 3)) & (sample.points.xy_px[:, 0] < (37, 23))).all(-1)
    assert 0 < inside.sum() < 60 and len(window.points) == inside.sum()
    np.testing.assert_allclose(window.points.xy_px, sample.points.xy_px[inside] - (7, 3))
    np.testing.assert_allclose(window.points.query_txy[:, 1:], window.points.xy_px[:, 2])


def test_depth_and_masks_move_with_the_pixels() -> None:
    sample = clip()
    world = reprojected(sample)
    np.testing.assert_allclose(reprojected(crop(sample, 2, 5, 20, 31)), world[2:22, 5:36], atol=1e-4)
    mirrored = reprojected(flip(sample))
    np.testing.assert_allclose(mirrored[:, ::-1] * (-1, 1, 1), world, atol=1e-4)
    doubled = resize(sample, (64, 96))
    np.testing.assert_array_equal(doubled.masks.labels[:, ::2, ::2], sample.masks.labels)
    np.testing.assert_allclose(doubled.depth.intrinsics[:, 0], sample.depth.intrinsics[:, 0] * 2)
    assert (flip(sample).masks.labels[:, :, ::-1] == sample.masks.labels).all()


@pytest.mark.parametrize('mode', ['first', 'random'])
def test_queries_are_on_visible_tracks_after_any_transform(mode: str) -> None:
    rng = np.random.default_rng(3)
    steps = [
        RandomCrop((40, 40)),
        HorizontalFlip(p=1.0),
        TemporalReverse(p=1.0),
        TemporalStride(3, max_stride=2),
        Resize((24, 31)),
    ]
    for seed in range(5):
        sample = clip(seed, query_mode=mode)
        for step in steps:
            sample = step(sample, rng)
            points = sample.points
            frame = points.query_txy[:, 0].astype(int)
            rows = np.arange(len(points))
            assert points.visible[rows, frame].all()
            np.testing.assert_allclose(points.xy_px[rows, frame], points.query_txy[:, 1:], atol=1e-4)
            if mode == 'first' and not isinstance(step, RandomCrop):
                assert (points.visible.argmax(1) <= frame).all()
            height, width = sample.size
            seen = points.xy_px[points.visible]
            assert ((seen >= 0) & (seen <= (width, height))).all()
        assert sample.video.shape == (3, 24, 31, 3) and sample.depth.depth_m.shape == (3, 24, 31)


def test_reverse_twice_is_the_clip() -> None:
    sample = clip(query_mode='random')
    twice = pick_frames(pick_frames(sample, np.arange(6)[::-1]), np.arange(6)[::-1])
    np.testing.assert_array_equal(twice.video, sample.video)
    np.testing.assert_array_equal(twice.points.query_txy, sample.points.query_txy)
    assert twice.masks.first_frame == sample.masks.first_frame


def test_colour_matrix_keeps_grey_grey() -> None:
    matrix = colour_matrix(0.0, 0.0, 0.7, 0.3, 100.0)
    np.testing.assert_allclose(matrix @ np.array([50, 50, 50, 1.0]), 50, atol=1e-9)
    matrix = colour_matrix(0.0, 0.5, 0.0, 0.0, 100.0)
    np.testing.assert_allclose(matrix @ np.array([100, 120, 80, 1.0]), [100, 130, 70])


def test_colour_jitter_leaves_geometry_alone_and_is_deterministic() -> None:
    sample = clip()
    jitter = ColorJitter(p=1.0)
    one, two = (jitter(sample, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.video, two.video)
    assert one.points is sample.points and (one.video != sample.video).any()


def test_transforms_are_registered_and_check_their_arguments() -> None:
    assert isinstance(TRANSFORMS.build(dict(type='Resize', size=(8, 8))), Resize)
    assert Resize((64, 64), keep_ratio=True)(clip(), None).size == (43, 64)
    for build in (lambda: HorizontalFlip(2.0), lambda: RandomCrop(area=(0.5, 0.2)), lambda: Resize((0, 4))):
        with pytest.raises(ValueError, match='wanted'):
            build()
    with pytest.raises(ValueError, match='6 frames'):
        TemporalStride(9)(clip(), np.random.default_rng(0))


def test_annotations_are_dropped_by_name():
    sample = clip()
    kept = DropAnnotations(['depth', 'label'])(sample)
    assert kept.depth is None
    assert kept.label is None
    assert kept.points is sample.points
    assert sample.depth is not None
    with pytest.raises(ValueError, match="names 'deph'; wanted some of points, masks, depth, label"):
        DropAnnotations(['deph'])
