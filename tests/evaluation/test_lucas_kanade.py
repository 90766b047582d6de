"""Lucas-Kanade beside the model: exact on a drift, honest about what it lost, and in the table."""

import cv2
import numpy as np
import pytest

from trecvit_dense.evaluation import TapVidMetric, format_table
from trecvit_dense.evaluation.lucas_kanade import lucas_kanade, track_sample
from trecvit_dense.structures import PointTracks, VideoSample

STEP = np.array([1.5, -0.75])  # px a frame


def drifting(num_frames=7, size=(80, 112)):
    """A texture that moves by STEP a frame: a crop of a larger picture."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (200, 240, 3), dtype=np.uint8), (0, 0), 2.0)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    frames = []
    for t in range(num_frames):
        dx, dy = STEP * t - (60, 60)
        frames.append(cv2.warpAffine(texture, np.array([[1, 0, dx], [0, 1, dy]]), size[::-1], flags=cv2.INTER_CUBIC))
    return np.stack(frames)


@pytest.mark.parametrize('backward', [False, True])
def test_follows_a_drift_from_any_frame(backward):
    video = drifting()
    query = np.array([[0, 50.5, 40.5], [3, 30.0, 45.0], [6, 60.0, 35.0]])
    tracks = lucas_kanade(video, query, backward=backward)
    truth = query[:, None, 1:] + (np.arange(7)[None] - query[:, :1])[..., None] * STEP
    there = np.ones((3, 7), bool) if backward else np.arange(7)[None] >= query[:, :1]
    assert np.abs(tracks.xy_px - truth)[there].max() < 0.1
    assert (tracks.visible == there).all()
    assert (tracks.xy_px[~there] == np.repeat(query[:, None, 1:], 7, axis=1)[~there]).all()


def test_a_point_that_leaves_or_is_covered_is_not_visible():
    video = drifting()
    video[4:, 30:60, 20:60] = 128  # a grey card comes down on the second point
    query = np.array([[0, 109.0, 40.0], [0, 35.0, 45.0], [0, 85.0, 50.0]])
    visible = lucas_kanade(video, query).visible
    assert not visible[0, -1] and not visible[1, 4:].any() and visible[2].all()
    assert visible[:, 0].all() and visible[1, :4].all()


def test_one_frame_and_no_points():
    assert lucas_kanade(drifting(1), np.array([[0, 5.0, 5.0]])).visible.all()
    assert lucas_kanade(drifting(2), np.zeros((0, 3))).xy_px.shape == (0, 2, 2)


def test_stands_beside_the_model_in_the_table():
    video = drifting()
    query = np.array([[0, 50.0, 40.0], [0, 30.0, 45.0]])
    xy = query[:, None, 1:] + np.arange(7)[None, :, None] * STEP
    truth = PointTracks(xy, np.ones((2, 7), bool), query)
    sample = VideoSample(video, truth, name='drift', meta=dict(query_mode='first'))
    sample.predictions = dict(
        points=PointTracks(xy + 100, truth.visible, query), points_lucas_kanade=track_sample(sample)
    )
    metric = TapVidMetric(per_video=True)
    metric.process(None, [sample])
    metrics = metric.evaluate(1)
    assert metrics['tapvid/first/256/lucas_kanade/AJ'] == 1 and metrics['tapvid/first/256/AJ'] == 0
    assert metrics['tapvid/first/256/lucas_kanade/delta_avg'] > metrics['tapvid/first/256/zero_motion/delta_avg']
    table = format_table(metrics)
    assert 'Lucas-Kanade ' in table and table.count('tapvid/first/256') == 1
    assert 'drift' in table and 'Lucas-Kanade delta_avg' in table


def test_without_queries_it_says_so():
    with pytest.raises(ValueError, match="video 'a' has no points to follow"):
        track_sample(VideoSample(drifting(1), name='a'))
