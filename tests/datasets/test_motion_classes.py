"""Motion classes: frames, first, last or as a mean, do not tell them apart; how things move does."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from trecvit_dense.datasets import SyntheticMotionClassesDataset
from trecvit_dense.datasets.procedural.cast import MOTION_CLASSES, Actor, CastSpec, draw_cast, order, render_cast
from trecvit_dense.registry import DATASETS
from trecvit_dense.structures import VideoSample

LABELS = range(len(MOTION_CLASSES))
CHANCE = 1 / len(MOTION_CLASSES)


def small(**options) -> SyntheticMotionClassesDataset:
    return SyntheticMotionClassesDataset(**(dict(length=12, size=(24, 32)) | options))


def test_item_has_the_contract() -> None:
    item = DATASETS.build(dict(type='SyntheticMotionClassesDataset', length=3, size=(24, 40), num_frames=7))[1]
    sample = item['data_samples']
    assert item['inputs'].dtype == torch.uint8 and item['inputs'].shape == (7, 3, 24, 40)
    np.testing.assert_array_equal(item['inputs'].permute(0, 2, 3, 1).numpy(), sample.video)
    assert sample.meta['class_name'] == MOTION_CLASSES[sample.label] and sample.points is None
    assert small().metainfo['classes'] == MOTION_CLASSES


def test_deterministic_in_seed_split_draw_and_index() -> None:
    np.testing.assert_array_equal(small()[7]['inputs'], small()[7]['inputs'])
    others = [small()[8], small()[19], small(seed=1)[7], small(split='val')[7], small(split='test')[7]]
    assert all(not torch.equal(small()[7]['inputs'], other['inputs']) for other in others)


@pytest.mark.parametrize(('size', 'frames'), [((8, 8), 6), ((16, 90), 11), ((90, 16), 16)])
def test_any_size_and_length(size, frames) -> None:
    for index in range(3):
        assert small(size=size, num_frames=frames).sample(index).video.shape == (frames, *size, 3)


def test_mistakes() -> None:
    for options in (dict(num_frames=5), dict(clutter=(3, 1)), dict(shake=-1.0), dict(split='dev'), dict(size=(4, 64))):
        with pytest.raises(ValueError, match='wanted'):
            small(**options)


def test_no_motion_is_a_still_picture() -> None:
    video = small(motion=0, shake=0, photometric=0).sample(0).video
    assert all(np.array_equal(frame, video[0]) for frame in video)


# ---- by construction


@pytest.mark.parametrize('num_frames', [6, 7, 8, 16, 33])
def test_orders_are_permutations_and_differ(num_frames) -> None:
    kinds = [('neutral', 1), ('slow', 1), ('slow', -1), ('fast', 1), ('fast', -1)]
    for phase in range(num_frames):
        orders = [order(kind, sign, num_frames, phase).tolist() for kind, sign in kinds]
        assert all(sorted(one) == list(range(num_frames)) for one in orders)
        assert len({tuple(one) for one in orders}) == len(kinds)
    assert order('once', 1, num_frames, 3).tolist() == list(range(num_frames))
    assert order('once', -1, num_frames, 3).tolist() == list(range(num_frames))[::-1]


def poses(actor: Actor) -> np.ndarray:
    return np.column_stack([actor.xy_px, actor.angle])


@pytest.mark.parametrize('seed', range(3))
def test_every_class_has_the_same_frames(seed) -> None:
    """The generator that makes a clip gives the same set of poses, and of pictures, whatever the class is."""
    spec = CastSpec(size=(24, 24), photometric=0, shake=0)
    casts = [draw_cast(np.random.default_rng(seed), spec, label) for label in LABELS]
    for actors in zip(*casts, strict=True):
        sets = [sorted(poses(actor).tolist()) for actor in actors]
        assert all(one == sets[0] for one in sets)
    moving = [
        sum(not np.array_equal(poses(a), poses(b)) for a, b in zip(casts[0], cast, strict=True)) for cast in casts
    ]
    assert moving[0] == 0 and all(1 <= count <= 2 for count in moving[1:]), 'a class is the order of one actor'
    for place in range(4):
        videos = [render_cast(np.random.default_rng(9), spec, [cast[place]]) for cast in casts]
        pictures = [Counter(frame.tobytes() for frame in video) for video in videos]
        assert all(one == pictures[0] for one in pictures)


def test_places_are_uniform_on_every_frame() -> None:
    """No part of the frame is likelier in one class than in another, on the first frame and the last one, too."""
    spec, count = CastSpec(size=(32, 32), clutter=(0, 0)), 80
    for label in LABELS:
        casts = [draw_cast(np.random.default_rng([1, label, i]), spec, label) for i in range(count)]
        turns = np.array([[actor.xy_px[[0, -1]] / 32 for actor in cast] for cast in casts])  # (count, 4, 2, xy)
        mean = np.exp(2j * np.pi * turns).mean(axis=0)
        assert np.abs(mean).max() < 4 / np.sqrt(count), MOTION_CLASSES[label]


# ---- by measurement


def tell_by_poses(cast: list[Actor]) -> str:
    """The class from the ways of the four actors."""
    horizontal, vertical, turning, corner = cast[:4]
    ways = [
        (horizontal.xy_px[:, 0], 'left', 'right', True),
        (vertical.xy_px[:, 1], 'up', 'down', True),
        (turning.angle, 'turn/counterclockwise', 'turn/clockwise', False),
    ]
    for way, back, forth, speeds in ways:
        steps = np.diff(way)
        net = int(np.sign(steps).sum())
        if abs(net) >= 3:
            slow = np.median(np.abs(steps)) < 1.5 * np.ptp(way) / (len(way) - 1)
            return (forth if net > 0 else back) + (('/slow' if slow else '/fast') if speeds else '')
    dx, dy = np.abs(np.diff(corner.xy_px[: len(corner.xy_px) // 2], axis=0)).sum(axis=0)
    return 'order/sideways-upright' if dx > dy else 'order/upright-sideways'


def test_the_ways_tell_the_class() -> None:
    for label in LABELS:
        for i in range(10):
            cast = draw_cast(np.random.default_rng([2, i]), CastSpec(), label)
            assert tell_by_poses(cast) == MOTION_CLASSES[label]


@pytest.fixture(scope='module')
def clips() -> tuple[list[VideoSample], list[VideoSample]]:
    train, val = (SyntheticMotionClassesDataset(260, (32, 32), split=split) for split in ('train', 'val'))
    return [train.sample(i) for i in range(260)], [val.sample(i) for i in range(130)]


def accuracy(features, clips, *, ridge: float = 300.0) -> dict[str, float]:
    """On held-out clips, of a linear classifier and of the nearest class mean."""
    (x, y), (v, truth) = ((np.stack([features(s) for s in part]), np.array([s.label for s in part])) for part in clips)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, v = (np.column_stack([(part - mean) / deviation, np.ones(len(part))]) for part in (x, v))
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ np.eye(len(MOTION_CLASSES))[y])
    centres = np.stack([x[y == label].mean(axis=0) for label in LABELS])
    nearest = ((v[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    return dict(linear=float(((v @ weights).argmax(axis=1) == truth).mean()), nearest=float((nearest == truth).mean()))


def picture(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image.astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA).ravel()


ORDERLESS = {
    'first frame': lambda s: picture(s.video[0]),
    'middle frame': lambda s: picture(s.video[s.num_frames // 2]),
    'last frame': lambda s: picture(s.video[-1]),
    'mean': lambda s: picture(s.video.mean(axis=0)),
    'deviation': lambda s: picture(s.video.astype(np.float32).std(axis=0)),
}


@pytest.mark.parametrize('name', ORDERLESS)
def test_pictures_do_not_tell(clips, name) -> None:
    found = accuracy(ORDERLESS[name], clips)
    limit = CHANCE + 3.5 * np.sqrt(CHANCE * (1 - CHANCE) / len(clips[1]))  # 16 %
    assert max(found.values()) < limit, found


def flow(sample: VideoSample) -> np.ndarray:
    """How much moves in each of four directions, and turns either way, between every two frames; and in what order."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in sample.video]
    rows = []
    for one, two in zip(grey, grey[1:], strict=False):
        xy = cv2.calcOpticalFlowFarneback(one, two, None, 0.5, 2, 7, 2, 5, 1.1, 0)
        xy = np.clip(xy - np.median(xy.reshape(-1, 2), axis=0), -6, 6)
        parts = np.maximum(np.stack([xy[..., 0], -xy[..., 0], xy[..., 1], -xy[..., 1]]), 0)
        curl = np.gradient(xy[..., 1], axis=1) - np.gradient(xy[..., 0], axis=0)
        turning = [np.maximum(curl, 0).mean(), np.maximum(-curl, 0).mean()]
        rows.append(
            [*parts.mean(axis=(1, 2)), *(parts > 1).mean(axis=(1, 2)), *(parts > 2).mean(axis=(1, 2)), *turning]
        )
    rows = np.array(rows)  # (T - 1, 14)
    half = len(rows) // 2
    return np.concatenate([rows[:half].mean(axis=0), rows[half:].mean(axis=0), np.sort(rows, axis=0).ravel()])


def test_motion_tells(clips) -> None:
    found = accuracy(flow, clips)
    assert found['linear'] > 3 * CHANCE, found


def test_equal_odds(clips) -> None:
    counts = np.bincount([sample.label for part in clips for sample in part], minlength=len(MOTION_CLASSES))
    assert len(counts) == len(MOTION_CLASSES) and np.abs(counts - counts.mean()).max() < 4 * np.sqrt(counts.mean())
