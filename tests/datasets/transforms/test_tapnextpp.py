"""Roll and homography: everything in a sample moves together, and the sound behaviour is the default."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import DepthMap, ObjectMasks, PointTracks, VideoSample

HEIGHT, WIDTH, FRAMES = 48, 64, 6
KINDS = [
    dict(type='RollAugmentation', p=1.0, rotate=False, strength=0.3),
    dict(type='RollAugmentation', p=1.0, strength=0.2),
    dict(type='HomographyAugmentation', p=1.0),
]


def scene() -> VideoSample:
    """Bright blobs at the tracks, a mask and a depth that are the same picture."""
    rng = np.random.default_rng(0)
    xy = np.repeat(rng.uniform(12, [WIDTH - 12, HEIGHT - 12], (5, 1, 2)), FRAMES, 1).astype(np.float32)
    centre = np.indices((HEIGHT, WIDTH)).transpose(1, 2, 0)[..., ::-1] + 0.5
    near = np.linalg.norm(centre[None] - xy[:, 0, None, None], axis=-1)  # (N, H, W)
    labels = np.where(near.min(0) < 3, near.argmin(0) + 1, 0).astype(np.uint8)
    video = np.repeat(labels[None, ..., None], 3, -1) * 50
    query = np.concatenate([np.zeros((5, 1)), xy[:, 0]], 1).astype(np.float32)
    return VideoSample(
        np.repeat(video, FRAMES, 0),
        PointTracks(xy, np.ones((5, FRAMES), bool), query),
        ObjectMasks(np.repeat(labels[None], FRAMES, 0), [1, 2, 3, 4, 5]),
        DepthMap(np.repeat(labels[None] + 1.0, FRAMES, 0).astype(np.float32), np.ones((FRAMES, HEIGHT, WIDTH), bool)),
    )


@pytest.mark.parametrize('config', KINDS, ids=['roll', 'roll_rotate', 'homography'])
def test_everything_moves_together(config) -> None:
    sample = scene()
    before = sample.video.copy()
    moved = TRANSFORMS.build(config)(sample, np.random.default_rng(3))
    assert np.array_equal(sample.video, before), 'the original is left alone'
    assert (
        moved.size == sample.size and moved.masks.labels.shape == moved.depth.depth_m.shape == moved.depth.valid.shape
    )
    assert np.array_equal(moved.video[0], sample.video[0]) or config['type'] == 'HomographyAugmentation'
    assert np.abs(moved.points.xy_px[:, -1] - sample.points.xy_px[: len(moved.points), -1]).max() > 0.5
    checked = 0
    for xy, visible, query in zip(moved.points.xy_px, moved.points.visible, moved.points.query_txy, strict=True):
        assert np.allclose(query[1:], xy[int(query[0])]) and visible[int(query[0])]
        own = None
        for frame in np.flatnonzero(visible):
            x, y = np.floor(xy[frame]).astype(int)
            label = moved.masks.labels[frame, y, x]
            if label == 0:
                continue  # a blob cut by the border
            own = own or label
            assert label == own and moved.depth.depth_m[frame, y, x] == own + 1 and moved.depth.valid[frame, y, x]
            checked += 1
    assert checked > 0.8 * moved.points.visible.sum()


@pytest.mark.parametrize('config', KINDS, ids=['roll', 'roll_rotate', 'homography'])
def test_points_sit_on_the_centre_of_their_blob(config) -> None:
    """No half-pixel shift between the frames and the points."""
    sample = scene()
    moved = TRANSFORMS.build(config)(sample, np.random.default_rng(5))
    errors = []
    for frame in range(FRAMES):
        for label in range(1, 6):
            rows, columns = np.nonzero(moved.masks.labels[frame] == label)
            inside = len(rows) > 18 and min(rows.min(), columns.min()) > 0
            if not inside or rows.max() == HEIGHT - 1 or columns.max() == WIDTH - 1:
                continue
            centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
            errors.append(moved.points.xy_px[:, frame] - centre)
    nearest = np.array([error[np.linalg.norm(error, axis=-1).argmin()] for error in errors])
    assert len(nearest) > 10 and np.abs(nearest.mean(0)).max() < 0.3


def test_points_outside_are_invisible_and_asked_for_again() -> None:
    transform = TRANSFORMS.build(dict(type='RollAugmentation', p=1.0, strength=3.0))
    moved = transform(scene(), np.random.default_rng(1))
    xy = moved.points.xy_px
    inside = ((xy >= 0) & (xy < [WIDTH, HEIGHT])).all(-1)
    assert not moved.points.visible[~inside].any() and (~inside).any()
    assert moved.points.visible.any(1).all()


def test_probability_and_determinism() -> None:
    sample = scene()
    never = TRANSFORMS.build(dict(type='HomographyAugmentation', p=0.0))
    assert never(sample, np.random.default_rng(0)) is sample
    always = TRANSFORMS.build(dict(type='RollAugmentation', p=1.0))
    first, second = (always(sample, np.random.default_rng(7)).video for _ in range(2))
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match='p is 2'):
        TRANSFORMS.build(dict(type='RollAugmentation', p=2))
    with pytest.raises(ValueError, match="border is 'mirror'"):
        TRANSFORMS.build(dict(type='HomographyAugmentation', border='mirror'))


@pytest.mark.parametrize('kind', ['RollAugmentation', 'HomographyAugmentation'])
def test_depth_of_another_size_moves_with_the_frames(kind: str) -> None:
    video = np.zeros((3, 32, 48, 3), np.uint8)
    depth = DepthMap(
        np.ones((3, 16, 24), np.float32), np.ones((3, 16, 24), bool), np.eye(3), np.tile(np.eye(4), (3, 1, 1))
    )
    transform = TRANSFORMS.build(dict(type=kind, p=1.0))
    moved = transform(VideoSample(video=video, depth=depth), np.random.default_rng(0))
    assert moved.depth.depth_m.shape == moved.depth.valid.shape == moved.video.shape[:3]
    assert moved.depth.intrinsics is None and moved.depth.camera_to_world is None, 'a warped picture has no such camera'
