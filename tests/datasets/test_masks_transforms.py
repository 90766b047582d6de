"""Masks move with their frames and points, and no transform loses what a clip asks for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.datasets.mask_layouts import moving_squares, picture
from trecvit_dense.datasets.procedural import ClipSpec, render_clip
from trecvit_dense.datasets.transforms import (
    HomographyAugmentation,
    HorizontalFlip,
    RandomResizedCrop,
    ScaleJitter,
    SelectObjects,
    TemporalReverse,
    TemporalStride,
)
from trecvit_dense.datasets.transforms.geometry import pick_frames
from trecvit_dense.datasets.transforms.objects import first_frames, pad
from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import ObjectMasks, VideoSample


def clip(labels: np.ndarray, first: list[int] | None = None, **meta: object) -> VideoSample:
    """Each id has its own grey: a mask can be read off the picture."""
    ids = [int(i) for i in np.unique(labels) if 0 < i < 255]
    video = np.repeat(labels[..., None] * np.uint8(20), 3, axis=-1)
    return VideoSample(video, masks=ObjectMasks(labels, ids, first), name='squares', meta=dict(meta))


def large() -> np.ndarray:
    return moving_squares(6, ids=(1, 2, 3)).repeat(3, 1).repeat(3, 2)


def agreement(sample: VideoSample) -> float:
    """Share of the pixels whose colour says what their label says."""
    return float((np.round(sample.video[..., 0] / 20) == sample.masks.labels).mean())


@pytest.mark.parametrize(
    'step',
    [
        dict(type='ScaleJitter', size=(60, 90), scale=(1.2, 2.0)),
        dict(type='RandomResizedCrop', size=(60, 90)),
        dict(type='RandomCrop', size=(60, 90)),
        dict(type='Resize', size=(101, 77)),
        dict(type='HorizontalFlip', p=1.0),
        dict(type='TemporalReverse', p=1.0),
        dict(type='TemporalStride', num_frames=3, max_stride=2),
        dict(type='HomographyAugmentation', p=1.0),
        dict(type='RollAugmentation', p=1.0),
    ],
    ids=lambda step: step['type'],
)
def test_masks_follow_the_pixels(step: dict) -> None:
    transform = TRANSFORMS.build(step)
    for seed in range(4):
        sample = transform(clip(large(), [0, 0, 0]), np.random.default_rng(seed))
        assert sample.masks.labels.shape == sample.video.shape[:3]
        assert agreement(sample) > 0.93  # the edges are smooth in the picture and hard in the mask
        for i, first in zip(sample.masks.ids, sample.masks.first_frame, strict=True):
            assert first == first_frames(sample.masks).get(i, 0)


def test_reduced_clips_lie_in_grey() -> None:
    sample = ScaleJitter((72, 120), scale=(0.5, 0.5))(clip(large()), np.random.default_rng(0))
    assert sample.video.shape == (6, 72, 120, 3) and (sample.video == 127).all(-1).mean() > 0.7
    assert 0.15 < (sample.masks.labels > 0).sum() / (large() > 0).sum() < 0.35


def test_padding_moves_points_and_depth() -> None:
    sample = render_clip(np.random.default_rng(0), ClipSpec(size=(20, 30), num_frames=3, num_points=12))
    moved = pad(sample, (32, 48), 5, 9)
    np.testing.assert_array_equal(moved.video[:, 5:25, 9:39], sample.video)
    np.testing.assert_array_equal(moved.masks.labels[:, 5:25, 9:39], sample.masks.labels)
    np.testing.assert_allclose(moved.points.xy_px, sample.points.xy_px + (9, 5))
    np.testing.assert_allclose(moved.points.query_txy, sample.points.query_txy + (0, 9, 5))
    assert not moved.depth.valid[:, :5].any() and moved.depth.valid[:, 5:25, 9:39].all()
    np.testing.assert_allclose(moved.depth.intrinsics[:, :2, 2] - sample.depth.intrinsics[:, :2, 2], [[9, 5]] * 3)


def test_time_moves_what_is_annotated_and_named() -> None:
    labels = moving_squares(6, ids=(1, 2), start={2: 4})
    sample = clip(labels, [0, 4], frame_names=list('abcdef'))
    sample.masks.annotated = np.array([True, True, False, True, True, True])
    moved = pick_frames(sample, np.array([5, 3, 2]))
    assert moved.masks.annotated.tolist() == [True, True, False] and moved.masks.first_frame == [0, 0]
    assert moved.meta['frame_names'] == ['f', 'd', 'c'] and sample.meta['frame_names'][0] == 'a'
    # Objects that were all given on frame 0 appear on different frames of the reversed clip.
    turned = TemporalReverse(1.0)(clip(labels[:, ::-1][::-1].copy()), np.random.default_rng(0))
    assert turned.masks.first_frame == [0, 4]


def test_crops_do_not_lose_every_object() -> None:
    labels = np.zeros((3, 90, 120), np.uint8)
    labels[:, 2:12, 3:13] = 1  # in a corner that a small window would nearly always miss
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for step in (RandomResizedCrop((40, 40), area=(0.1, 0.2)), ScaleJitter((40, 40), scale=(2.0, 3.0))):
            moved = step(clip(labels), rng)
            assert moved.video.shape == (3, 40, 40, 3)
            if isinstance(step, RandomResizedCrop):
                assert (moved.masks.labels[0] == 1).any()


def test_select_objects() -> None:
    labels = moving_squares(6, ids=(7, 2, 9), start={9: 2})
    labels[:, -1, -1] = 4  # one pixel: too small to be given
    labels[0, -1, 0], labels[1, -1, 1] = 255, 9  # void, and a glimpse of what is given later
    sample = clip(labels, frame_names=list('abcdef'))
    picked = set()
    for seed in range(30):
        masks = SelectObjects(2)(sample, np.random.default_rng(seed)).masks
        assert len(masks.ids) == 2 and masks.ids == sorted(masks.ids) and 4 not in masks.ids
        assert set(np.unique(masks.labels)) <= {0, 255, *masks.ids} and masks.labels[0, -1, 0] == 255
        for i, first in zip(masks.ids, masks.first_frame, strict=True):
            assert first == (2 if i == 9 else 0) and (masks.labels[first] == i).sum() == 36
            assert not (masks.labels[:first] == i).any()
        assert 0 in masks.first_frame
        picked.add(tuple(masks.ids))
    assert picked == {(2, 7), (2, 9), (7, 9)}
    everything = SelectObjects(None, min_area=0.0)(sample, np.random.default_rng(0)).masks
    assert everything.ids == [2, 4, 7, 9]
    np.testing.assert_array_equal(labels, sample.masks.labels)
    assert SelectObjects(3)(clip(labels * 0), np.random.default_rng(0)).masks.ids == []


def test_arguments_are_checked() -> None:
    for build in (
        lambda: SelectObjects(0),
        lambda: SelectObjects(min_area=2.0),
        lambda: ScaleJitter((10, 10), scale=(2.0, 1.0)),
        lambda: RandomResizedCrop((10, 10), keep=1.5),
    ):
        with pytest.raises(ValueError, match='wanted'):
            build()


def test_pictures_of_the_tests_follow_their_labels() -> None:
    labels = moving_squares()
    frame = picture(labels[0])
    assert (frame[labels[0] == 1] == frame[labels[0] == 1][0]).all()
    assert HorizontalFlip(0.0)(clip(labels), np.random.default_rng(0)).masks.labels is labels
    assert TemporalStride(2)(clip(labels), np.random.default_rng(0)).num_frames == 2
    assert HomographyAugmentation(p=0.0)(clip(labels), np.random.default_rng(0)).video.shape[0] == 6
