"""Depth on a stream: frames, chunks and clip agree, nothing grows, and what is forgotten is gone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.equivalence.several import BACKBONES, DEPTH, FRAMES, SIZE, assert_same, build, clip, joined, stream
from trecvit_dense.structures import RecurrentState, VideoSample


@pytest.fixture(scope='module', params=[(head, backbone) for head in DEPTH for backbone in BACKBONES], ids='-'.join)
def model(request) -> nn.Module:
    head, backbone = request.param
    return build(dict(depth=DEPTH[head]), backbone)


@pytest.mark.parametrize('sizes', [[FRAMES], [1, 4, 2, 3, 1], [5, 6]])
def test_step_is_chunk_is_clip(model, sizes) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES)
    found, state = stream(model, sizes)
    assert_same(found['depth'], wanted['depth'])
    assert_same(state, wanted_state)
    values = wanted['depth']['log_values']
    assert (values[:, -1] - values[:, 0]).abs().max() > 0.01, 'depth must change from frame to frame'


@torch.no_grad()
def test_the_past_counts_until_it_is_forgotten(model) -> None:
    """A frame after ``forget`` is answered as the first of a stream; one whose memory is kept is not."""
    _, state = stream(model, [FRAMES])
    frame = clip()[:, 3:4]
    fresh, _ = model.step(frame, model.start(1))
    later, _ = model.step(frame, state)
    assert (later['depth'].log_values - fresh['depth'].log_values).abs().max() > 1e-3
    again, _ = model.step(frame, model.forget(state, 'all'))
    assert torch.equal(again['depth'].log_values, fresh['depth'].log_values)
    assert not model.forget(state, 'all'), 'nothing is asked for, so nothing is kept'
    kept = model.forget(state, 'backbone')
    assert set(kept) == {key for key in state if key.startswith('heads.depth')}
    if kept:
        partly, _ = model.step(frame, kept)
        assert not torch.equal(partly['depth'].log_values, fresh['depth'].log_values)


@torch.no_grad()
def test_state_has_one_size_for_ever(model) -> None:
    state, sizes, video = model.start(1), [], clip(10, (16, 24))
    for index in range(100):
        outputs, state = model.step(video, state)
        if index in (0, 99):  # frame 10 and frame 1000
            sizes.append(({key: (tuple(value.shape), value.dtype) for key, value in state.items()}, state.nbytes))
    assert sizes[0] == sizes[1]
    assert outputs['depth'].log_values.isfinite().all()


def test_prediction_does_not_depend_on_its_chunks() -> None:
    video = np.random.default_rng(0).integers(0, 255, (7, *SIZE, 3), dtype=np.uint8)
    answers = []
    for frames in (1, 3, 7):
        model = build(dict(depth=DEPTH['parallax']), chunk_frames=frames)
        sample = VideoSample(video)
        data = dict(inputs=[torch.from_numpy(video).permute(0, 3, 1, 2)], data_samples=[sample])
        answers.append(model.test_step(data)[0].predictions['depth'])
    for answer in answers[1:]:
        np.testing.assert_allclose(answer.values, answers[0].values, rtol=1e-4)
        np.testing.assert_allclose(answer.confidence, answers[0].confidence, rtol=1e-4)


@torch.no_grad()
def test_videos_of_a_batch_do_not_disturb_one_another() -> None:
    model = build(dict(depth=DEPTH['parallax']))
    videos = torch.cat([clip(), clip().flip(1, 3)])
    together = joined('depth', [model.step(videos, model.start(2))[0]['depth']])
    for row in range(2):
        alone = joined('depth', [model.step(videos[row : row + 1], RecurrentState())[0]['depth']])
        assert_same({key: value[row : row + 1] for key, value in together.items()}, alone)
