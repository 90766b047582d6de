"""Roll and homography augmentation against the official code, fed with its random draws."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import PointTracks, VideoSample


def transform(name: str, config: dict):
    """The official behaviour, its crop and its point arithmetic included."""
    if name == 'homography':
        options = dict(type='HomographyAugmentation', strength=config['homography_strength'])
        return TRANSFORMS.build(dict(options, border=config['border_mode'], official_points=True))
    options = dict(type='RollAugmentation', strength=config['roll_strength'], rotate=name == 'roll_rot')
    return TRANSFORMS.build(dict(options, official_crop=True, official_points=True))


@pytest.mark.parametrize('path', golden_files('tapnextpp_augment_'))
def test_tapnextpp_augment(path) -> None:
    golden = Golden(path)
    video, tracks = golden['video'], golden['trajs'].transpose(1, 0, 2)  # (N, T, 2)
    sample = VideoSample(video, PointTracks(tracks, np.ones(tracks.shape[:2], dtype=bool)))
    for name in ('roll', 'roll_rot', 'homography'):
        moved = transform(name, golden.config).apply(sample, golden.group(f'{name}/draw/'))
        np.testing.assert_array_equal(moved.video, golden[f'{name}/video'])
        assert_close_max(moved.points.xy_px.transpose(1, 0, 2), golden[f'{name}/trajs'], name=f'{name}/trajs')
    golden.assert_all_compared()
