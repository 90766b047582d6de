"""The sliding window of backbones that look both ways: exact streaming, constant memory, clear refusals."""

from __future__ import annotations

import pytest
import torch

from trecvit_dense.models.backbones.sliding_window import SlidingWindow
from trecvit_dense.structures import FeatureLevel, Features, RecurrentState


def clip_features(clip: torch.Tensor) -> Features:
    """Every frame of a clip knows all of it, and its own place in it."""
    time = clip.shape[1]
    weights = torch.arange(1.0, time + 1)[:, None] + torch.arange(time) / 10  # (frame that reads, frame that is read)
    mixed = torch.einsum('st,bt...->bs...', weights, clip)  # (B, T, 3, H, W)
    tokens = mixed.flatten(3).transpose(2, 3)  # (B, T, H * W, 3)
    level = FeatureLevel(tokens, tuple(clip.shape[-2:]), (1, 1))
    return Features((level, level), class_token=tokens.mean(2))


def make_video(batch: int = 2, time: int = 7) -> torch.Tensor:
    return torch.randn(batch, time, 3, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('frames', [1, 3, 10])
def test_step_is_chunk_is_clip(frames):
    window, video = SlidingWindow(frames), make_video()
    whole, last = window(clip_features, video, None)
    for sizes in ([1] * 7, [3, 1, 3], [2, 5]):
        state, parts = None, []
        for chunk in video.split(sizes, 1):
            before = None if state is None else state.clone()
            features, new_state = window(clip_features, chunk, state)
            assert state is None or all(torch.equal(before[key], state[key]) for key in state)
            assert new_state['window'].shape == (2, frames - 1, 3, 4, 6)  # full from the first step on
            state = new_state
            parts.append(features)
        for index in range(2):
            assert torch.equal(torch.cat([part.levels[index].tokens for part in parts], 1), whole.levels[index].tokens)
        assert torch.equal(torch.cat([part.class_token for part in parts], 1), whole.class_token)
        assert all(torch.equal(state[key], last[key]) for key in last)


def test_every_frame_comes_from_the_window_that_ends_with_it():
    video = make_video()
    features, state = SlidingWindow(3)(clip_features, video, None)
    padded = torch.cat([video[:, :1], video[:, :1], video], 1)  # the first frame stands in for what came before
    for time in range(7):
        wanted = clip_features(padded[:, time : time + 3]).class_token[:, -1]
        assert torch.equal(features.class_token[:, time], wanted)
    assert torch.equal(state['window'], video[:, -2:])
    assert state['seen'].tolist() == [7, 7]


def test_a_row_that_has_seen_nothing_starts_afresh():
    window, video = SlidingWindow(3), make_video()
    _, state = window(clip_features, video[:, :4], None)
    state['seen'] = torch.tensor([4, 0])
    features, _ = window(clip_features, video[:, 4:], state)
    whole, _ = window(clip_features, video, None)
    alone, _ = window(clip_features, video[1:, 4:], None)
    torch.testing.assert_close(features.class_token[0], whole.class_token[0, 4:])
    torch.testing.assert_close(features.class_token[1], alone.class_token[0])


def test_whole_clips_and_no_going_on():
    window, video = SlidingWindow(None), make_video()
    features, state = window(clip_features, video, None)
    assert torch.equal(features.class_token, clip_features(video).class_token)
    assert set(state) == {'seen'}
    with pytest.raises(ValueError, match='not in chunks of chunk_frames, or set window=W in its config to stream'):
        window(clip_features, video, state)
    window(clip_features, video, RecurrentState())


def test_the_state_holds_no_part_of_the_callers_video():
    video = make_video()
    _, state = SlidingWindow(3)(clip_features, video, None)
    kept = state['window'].clone()
    video.zero_()
    assert torch.equal(state['window'], kept)


def test_refusals():
    video = make_video()
    with pytest.raises(ValueError, match='window is 0; wanted a number of frames from 1 up'):
        SlidingWindow(0)
    _, state = SlidingWindow(3)(clip_features, video, None)
    with pytest.raises(
        ValueError, match=r"state 'window' has shape \(2, 2, 3, 4, 6\), this call needs \(2, 4, 3, 4, 6\)"
    ):
        SlidingWindow(5)(clip_features, video, state)
    with pytest.raises(ValueError, match='with at least one frame'):
        SlidingWindow(5)(clip_features, video[:, :0], None)
