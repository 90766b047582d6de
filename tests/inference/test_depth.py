"""Depth of files and live video: one answer from step, chunks and clip; beside points and objects; one state size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference.tiny import drifting_clip, square_mask, tiny_model
from trecvit_dense.inference import Predictor, Session
from trecvit_dense.structures import DepthPrediction, VideoSample

CLIP = drifting_clip()
MASK = square_mask()
CAMERA = np.array([[50.0, 0, 28], [0, 50, 20], [0, 0, 1]])


@pytest.fixture(scope='module')
def model():
    return tiny_model('all')


@pytest.fixture(scope='module')
def whole(model) -> DepthPrediction:
    return Predictor(model, device='cpu').depth(CLIP, chunk=12)


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_prediction_has_the_size_of_the_video(whole: DepthPrediction) -> None:
    assert whole.values.shape == whole.confidence.shape == (12, 40, 56) and whole.kind == 'disparity'
    assert whole.values.dtype == whole.confidence.dtype == np.float32
    assert (whole.values > 0).all() and whole.values.std() > 0.1 * whole.values.mean()
    assert (whole.confidence > 0).all() and (whole.confidence < 1).all()


@pytest.mark.parametrize('chunk', [1, 5, None])
def test_chunks_change_nothing(model, whole: DepthPrediction, chunk: int | None) -> None:
    found = Predictor(model, device='cpu').depth(CLIP, chunk=chunk)
    close(found.values, whole.values)
    close(found.confidence, whole.confidence)


def test_live_frames_equal_the_clip(model, whole: DepthPrediction) -> None:
    session = Session(model, max_points=0, max_objects=0, depth=True, device='cpu')
    for index, frame in enumerate(CLIP):
        result = session.step(frame)
        close(result.depth, whole.values[index])
        close(result.depth_confidence, whole.confidence[index])
        assert result.depth_kind == 'disparity' and result.depth is result.depth  # made once
        assert result.masks is None and not len(result.ids)


def test_equals_the_perceiver(model, whole: DepthPrediction) -> None:
    """The path of tools/test.py, which holds the clip, gives the numbers of the path that streams."""
    video, scale = model.data_preprocessor.prepare(torch.from_numpy(CLIP).permute(0, 3, 1, 2)[None])
    expected = model.predict(video, [VideoSample(CLIP)], scale)[0].predictions['depth']
    close(whole.values, expected.values)
    close(whole.confidence, expected.confidence)


@pytest.mark.parametrize(('head', 'last'), [('depth', 200), ('all', 20)])
def test_state_has_one_size(head: str, last: int) -> None:
    session, sizes = Session(tiny_model(head), max_points=4, max_objects=2, depth=True, device='cpu'), {}
    if head == 'all':
        session.add_points([[10, 10]])
        session.add_object(MASK)
    for index in range(last + 1):
        session.step(CLIP[index % 12])
        sizes[index] = session.state.nbytes
    assert sizes[10] == sizes[last] and len(set(sizes.values())) == 1


def test_points_objects_and_depth_share_a_stream(model, whole: DepthPrediction) -> None:
    """Heads that read features alone do not disturb one another, live and from a file."""
    session = Session(model, max_points=4, max_objects=2, depth=True, device='cpu')
    session.add_points([[10, 10]])
    session.add_object(MASK)
    predictor = Predictor(model, device='cpu')
    query = np.array([[0, 10, 10]], np.float32)
    tracks, masks = predictor.points(CLIP, query), predictor.masks(CLIP, MASK)
    together = list(predictor.stream_all(CLIP, query, MASK, chunk=5))
    for index, from_file in enumerate(together):
        assert from_file.frame == index
        np.testing.assert_array_equal(from_file.image, CLIP[index])
        for result in (session.step(CLIP[index]), from_file):
            close(result.depth, whole.values[index])
            np.testing.assert_allclose(result.xy_px, tracks.xy_px[:, index], atol=1e-3)
            np.testing.assert_array_equal(result.masks, masks.labels[index])


def test_all_takes_what_comes_later(model) -> None:
    """Objects and live points cut the steps; results stay those of one task alone."""
    predictor = Predictor(model, device='cpu')
    query = np.array([[0, 10, 10], [3, 30, 20], [7, 5, 5]], np.float32)
    schedule = {2: MASK.astype(np.uint8), 5: 2 * np.roll(MASK, 9, axis=1).astype(np.uint8)}
    results = list(predictor.stream_all(CLIP, query, schedule, live=True))
    tracks, masks = predictor.points(CLIP, query, live=True), predictor.masks(CLIP, schedule)
    np.testing.assert_allclose(np.stack([r.xy_px for r in results], 1), tracks.xy_px, atol=1e-3)
    np.testing.assert_array_equal(np.stack([r.visible for r in results], 1), tracks.visible)
    np.testing.assert_array_equal(np.stack([r.masks for r in results]), masks.labels)


def test_what_is_not_asked_for_does_not_run(model) -> None:
    seen: list[str] = []
    hooks = [head.register_forward_hook(lambda *_, task=task: seen.append(task)) for task, head in model.heads.items()]
    try:
        next(iter(Predictor(model, device='cpu').stream_all(CLIP)))
        Session(model, depth=False, max_objects=0, device='cpu').step(CLIP[0])
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == ['depth', 'points'] and model.tasks is None


@pytest.mark.parametrize('size', [(64, 64), (96, 128), (30, 100)])
def test_any_size(model, size: tuple[int, int]) -> None:
    clip = drifting_clip(3, size)
    assert Predictor(model, device='cpu').depth(clip).values.shape == (3, *size)


def test_metres_need_the_focal_length() -> None:
    """A head that stands for one focal length: a camera with twice that sees the same picture twice as far."""
    metric = tiny_model('metric')
    plain = Predictor(metric, device='cpu').depth(CLIP, intrinsics=CAMERA)
    assert plain.kind == 'depth' and plain.confidence is None
    close(plain.values, Predictor(metric, device='cpu').depth(CLIP).values)
    metric.heads['depth'].canonical_focal_px = 25.0
    video, scale = metric.data_preprocessor.prepare(torch.from_numpy(CLIP[:1]).permute(0, 3, 1, 2)[None])
    factor = 50 * (scale[0] + scale[1]) / 2 / 25
    found = Predictor(metric, device='cpu').depth(CLIP, intrinsics=CAMERA)
    close(found.values, plain.values * factor)
    live = Session(metric, max_points=0, max_objects=0, depth=True, intrinsics=CAMERA, device='cpu')
    close(live.step(CLIP[0]).depth, found.values[0])


def test_mistakes(model) -> None:
    points = tiny_model('volume')
    for call in (
        lambda: Predictor(points, device='cpu').stream_depth(CLIP),
        lambda: Predictor(points, device='cpu').stream_all(CLIP, grid=2),
        lambda: Session(points, depth=True, device='cpu'),
    ):
        with pytest.raises(ValueError, match='the model does not estimate depth; its heads are: points'):
            call()
    with pytest.raises(ValueError, match='nothing runs: the model has depth'):
        Session(tiny_model('depth'), device='cpu')
    predictor = Predictor(model, device='cpu')
    with pytest.raises(ValueError, match='nothing is asked for'):
        predictor.stream_all(CLIP, depth=False)
    with pytest.raises(ValueError, match='max_frames is 0'):
        predictor.stream_depth(CLIP, max_frames=0)
    with pytest.raises(ValueError, match='1x1 px is smaller than one patch'):
        predictor.stream_depth(np.zeros((2, 1, 1, 3), np.uint8))
    with pytest.raises(ValueError, match='do not fit images of 56x40 px'):
        predictor.stream_depth(CLIP, intrinsics=10 * CAMERA + np.diag([0, 0, -9]))
    session = Session(model, depth=True, intrinsics=np.eye(2), device='cpu')
    with pytest.raises(ValueError, match='wanted a 3x3 matrix'):
        session.step(CLIP[0])


def test_without_depth_there_is_none(model) -> None:
    result = Session(model, device='cpu').step(CLIP[0])
    assert result.depth is None and result.depth_kind is None and result.depth_confidence is None
