"""Predictor: original pixels, chunks that change nothing, queries on any frame, one line per mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.tiny import HEADS, drifting_clip, tiny_model
from tests.io.videos import make_video
from trecvit_dense.inference import Predictor, grid_queries
from trecvit_dense.io import FrameSource
from trecvit_dense.structures import PointTracks, VideoSample

QUERIES = np.array([[0, 10, 10], [3, 20.5, 30], [7, 5, 39], [0, 56, 40]], np.float32)


@pytest.fixture(scope='module', params=list(HEADS))
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return Predictor(tiny_model(request.param), device='cpu')


@pytest.fixture(scope='module')
def clip() -> np.ndarray:
    return drifting_clip()


def equal(one: PointTracks, other: PointTracks) -> None:
    np.testing.assert_allclose(one.xy_px, other.xy_px, atol=1e-4 * np.nanmax(np.abs(other.xy_px)))
    np.testing.assert_array_equal(one.visible, other.visible)


@pytest.mark.parametrize('live', [False, True])
def test_chunks_change_nothing(predictor: Predictor, clip: np.ndarray, live: bool) -> None:
    whole = predictor.points(clip, QUERIES, live=live, chunk=12)
    assert whole.xy_px.shape == (4, 12, 2) and whole.xy_px.dtype == np.float32
    for chunk in (1, 5, None):
        equal(predictor.points(clip, QUERIES, live=live, chunk=chunk), whole)


@pytest.mark.parametrize('live', [False, True])
def test_nothing_before_the_query(predictor: Predictor, clip: np.ndarray, live: bool) -> None:
    tracks = predictor.points(clip, QUERIES, live=live)
    before = np.arange(12)[None] < QUERIES[:, :1]
    np.testing.assert_array_equal(np.isnan(tracks.xy_px).all(-1), before)
    assert not np.isnan(tracks.xy_px[~before]).any() and not tracks.visible[before].any()
    np.testing.assert_array_equal(tracks.query_txy, QUERIES)


def test_equals_the_perceiver(predictor: Predictor, clip: np.ndarray) -> None:
    """The path of tools/test.py, which holds the clip, gives the numbers of the path that streams."""
    video, scale = predictor.model.data_preprocessor.prepare(torch.from_numpy(clip).permute(0, 3, 1, 2)[None])
    points = PointTracks(np.zeros((4, 12, 2), np.float32), np.zeros((4, 12), bool), QUERIES)
    sample = predictor.model.predict(video, [VideoSample(clip, points)], scale)[0]
    tracks, there = predictor.points(clip, QUERIES), np.arange(12)[None] >= QUERIES[:, :1]
    np.testing.assert_allclose(tracks.xy_px[there], sample.predictions['points'].xy_px[there], atol=1e-2)
    np.testing.assert_array_equal(tracks.visible, sample.predictions['points'].visible & there)


def test_stream_has_frames_and_follows_the_source(predictor: Predictor, tmp_path: Path) -> None:
    path = make_video(tmp_path / 'a.mp4', 10)
    results = list(predictor.stream_points(path, grid=3, max_frames=7))
    assert [result.frame for result in results] == list(range(7))
    assert results[0].xy_px.shape == (9, 2) and results[0].certainty.shape == (9,)
    for result, frame in zip(results, FrameSource.open(path), strict=False):
        np.testing.assert_array_equal(result.image, frame)
    equal(predictor.points(path, grid=3), predictor.points(np.stack(list(FrameSource.open(path))), grid=3))


@pytest.mark.parametrize('size', [(64, 64), (192, 128), (30, 200)])
def test_pixels_are_those_of_the_video(predictor: Predictor, size: tuple[int, int]) -> None:
    """At any aspect ratio a query comes back in the pixels it was asked in, and no track leaves the frame."""
    height, width = size
    query = np.array([[0, 0.3 * width, 0.5 * height], [2, 0.8 * width, 0.1 * height]], np.float32)
    tracks = predictor.points(drifting_clip(6, size), query)
    assert np.nanmin(tracks.xy_px) >= 0
    assert np.nanmax(tracks.xy_px[..., 0]) <= width and np.nanmax(tracks.xy_px[..., 1]) <= height
    if predictor.model.heads['points'].__class__.__name__ == 'CostVolumePointHead':  # it starts where it was asked
        for index, (frame, *xy) in enumerate(query.tolist()):
            assert tracks.xy_px[index, int(frame)] == pytest.approx(xy, abs=1e-2)


@pytest.mark.parametrize(
    ('query', 'message'),
    [
        ([[0, 57, 10]], 'query 0 at x=57, y=10 is outside the frame of 56x40 px'),
        ([[0, 5, 5], [0, 5, -1]], 'query 1 at x=5, y=-1 is outside'),
        ([[0, 5, 5], [12, 5, 5]], 'query 1 asks for frame 12; the video has frames 0 to 11'),
        ([[-1, 5, 5]], 'query 0 asks for frame -1'),
        ([[0, np.nan, 5]], 'query 0 is not a number'),
        (np.zeros((0, 3)), 'wanted'),
        ([[1, 2]], 'wanted'),
    ],
)
def test_bad_queries(predictor: Predictor, clip: np.ndarray, query: list, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        predictor.stream_points(clip, np.array(query, np.float32))  # before the first frame is asked for
    assert '\n' not in str(error.value)


def test_bad_arguments(predictor: Predictor, clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match='frames 0 to 4'):
        predictor.points(clip, [[7, 5, 5]], max_frames=5)
    with pytest.raises(ValueError, match='one of them'):
        predictor.points(clip, QUERIES, grid=4)
    with pytest.raises(ValueError, match='grid is 0'):
        predictor.points(clip, grid=0)
    with pytest.raises(ValueError, match='1x1 px is smaller than one patch of the model, 8x8'):
        predictor.points(np.zeros((2, 1, 1, 3), np.uint8), [[0, 0.5, 0.5]])
    with pytest.raises(ValueError, match='nowhere'):
        Predictor(predictor.model, device='nowhere')
    with pytest.raises(FileNotFoundError):
        Predictor('no_such_file.safetensors', device='cpu')


def test_stream_that_ends_before_a_query(predictor: Predictor, clip: np.ndarray) -> None:
    source = FrameSource.open(clip)
    source.num_frames = None  # as a camera
    with pytest.raises(ValueError, match='query 0 asks for frame 12; the video ended after 12 frames'):
        list(predictor.stream_points(iter_only(source), [[12, 5, 5]]))


def iter_only(source: FrameSource) -> FrameSource:
    class Stream(FrameSource):
        name, size, num_frames = 'stream', source.size, None

        def __iter__(self):
            return iter(source._video)

    return Stream()


def test_grid_is_in_cell_centres() -> None:
    query = grid_queries(2, (40, 60), 3)
    np.testing.assert_array_equal(query, [[3, 15, 10], [3, 45, 10], [3, 15, 30], [3, 45, 30]])
