"""Several clips of each video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from trecvit_dense.datasets import RepeatedClipsDataset, SyntheticVideoDataset
from trecvit_dense.registry import DATASETS

PIPELINE = [dict(type='SampleFrames', num_frames=3), dict(type='CropTo', size=(32, 48))]


class Counted(Dataset):
    """The embedded data, and how often it was asked."""

    def __init__(self) -> None:
        self.inner, self.asked = SyntheticVideoDataset(4, (64, 64), num_frames=6, num_points=2), []

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> dict:
        self.asked.append(index)
        return self.inner[index]


def test_each_video_is_made_once_and_gives_clips_that_differ() -> None:
    source = Counted()
    data = RepeatedClipsDataset(source, 3, pipeline=PIPELINE)
    assert len(data) == 12
    clips = [data[index] for index in range(6)]
    assert source.asked == [0, 1]
    assert all(clip['inputs'].shape == (3, 3, 32, 48) for clip in clips)
    assert not torch.equal(clips[0]['inputs'], clips[1]['inputs'])
    assert [clip['data_samples'].name for clip in clips[:3]] == [source.inner[0]['data_samples'].name] * 3
    # Every clip is a window of its video.
    video = source.inner[1]['inputs']
    windows = video.unfold(0, 3, 1).unfold(2, 32, 1).unfold(3, 48, 1)  # (t, 3, y, x, 3, 32, 48)
    windows = windows.permute(0, 2, 3, 4, 1, 5, 6)
    for clip in clips[3:]:
        assert (windows == clip['inputs']).flatten(3).all(dim=3).any()


def test_an_item_does_not_depend_on_the_order_of_asking() -> None:
    data, other = (RepeatedClipsDataset(Counted(), 3, pipeline=PIPELINE) for _ in range(2))
    there = [data[index]['inputs'] for index in (14, 1, 13, 2)]
    back = [other[index]['inputs'] for index in (2, 13, 1, 14)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(there, back, strict=True))
    assert not torch.equal(data[1]['inputs'], data[13]['inputs'])  # another pass, another video


def test_a_transform_does_not_change_the_video_that_is_kept() -> None:
    def darken(sample, rng):  # noqa: ANN001, ANN202
        return replace(sample, video=sample.video // 2, name='dark')

    source = SyntheticVideoDataset(2, (32, 32), num_frames=2, num_points=1)
    data = RepeatedClipsDataset(source, 2, pipeline=[darken])
    for index in range(2):
        sample = data[index]['data_samples']
        np.testing.assert_array_equal(sample.video, source[0]['data_samples'].video // 2)
        assert sample.name == 'dark'


def test_built_from_a_config() -> None:
    inner = dict(type='SyntheticVideoDataset', length=2, size=(32, 32), num_frames=2, num_points=1)
    data = DATASETS.build(dict(type='RepeatedClipsDataset', dataset=inner, times=2))
    assert len(data) == 4
    assert torch.equal(data[0]['inputs'], data[1]['inputs'])  # nothing is drawn
    with pytest.raises(ValueError, match='times is 0'):
        RepeatedClipsDataset(inner, 0)
    with pytest.raises(IndexError, match='-1'):
        data[-1]
